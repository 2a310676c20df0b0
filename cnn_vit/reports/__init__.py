"""Makes pages of run folders: tables, intervals and plots in one HTML file, for a run or for several."""
