"""What lies at a path: files are listed, looked at, remembered, decoded. Imports `decode` and `base`."""
