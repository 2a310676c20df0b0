"""The layers that networks are made of: each declares its parameters, and holds no values.

Images are (B, H, W, C), sequences of tokens (B, N, D). A layer computes in the dtype of its input; normalization,
softmax and averages do their arithmetic in float32. Numbers whose defaults differ between frameworks (padding, the
stride of a pooling, the epsilon of layer norm) are arguments without a default here.
"""
