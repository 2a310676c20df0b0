"""The run folder: its file names, whose run it is, checkpoints, manifests, journal, and the reader of all of it."""
