"""Studies: many fits or many runs, and one answer with its interval."""
