"""The order of the examples, and their batches, made before they are asked for. Imports `decode` and `base`."""
