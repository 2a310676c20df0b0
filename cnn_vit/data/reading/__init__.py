"""Reads what lies at a path: files are listed, scanned, remembered and decoded. Imports `decode` and `base` only."""
