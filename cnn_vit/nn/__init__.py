"""Layers: each declares its parameters, holds no values, and says what its defaults are.

Images are (B, H, W, C), sequences (B, N, D). A layer computes in the dtype of what it is given; normalization, softmax
and averages do their arithmetic in float32. Numbers that frameworks default differently (padding, stride of a pooling,
epsilon of layer norm) are arguments without a default here.
"""
