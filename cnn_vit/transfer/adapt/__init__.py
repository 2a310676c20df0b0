"""Weights of one network as the start of another: what is loaded, what is made to fit, what is new, what is frozen.

Everything here is a pure function of plain trees, of NumPy arrays or of their shapes. Nothing is read, compiled or
trained.
"""
