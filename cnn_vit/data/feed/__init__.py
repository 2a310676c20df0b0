"""The order of examples and their batches, made ahead of their use. Imports `decode` and `base`."""
