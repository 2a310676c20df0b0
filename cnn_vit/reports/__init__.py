"""From run folders to pages: tables, intervals, plots, one HTML file for a run or for several."""
