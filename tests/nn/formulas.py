"""What each layer computes according to its documentation: NumPy in float64, with gradients derived by hand.

A formula returns (y, backward). For the gradient g of y, `backward(g)` returns the gradients of the formula's inputs,
in their order. Windows and heads are loops, for plainness. test_formulas.py compares each `backward` with differences
of the formula's own y.
"""

import itertools

import numpy as np


def dense(x, kernel, bias):
    """y = x kernel + bias along the last axis."""
    leading = tuple(range(x.ndim - 1))

    def backward(g):
        return g @ kernel.T, np.tensordot(x, g, (leading, leading)), g.sum(leading)

    return x @ kernel + bias, backward


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def squeeze_excitation(x, kernel1, bias1, kernel2, bias2):
    """y = x sigmoid(silu(averages kernel1 + bias1) kernel2 + bias2), one factor for each channel of an image."""
    averages = x.mean((1, 2))
    inner = averages @ kernel1 + bias1
    gate = sigmoid(inner)
    squeezed = inner * gate  # SiLU
    factors = sigmoid(squeezed @ kernel2 + bias2)

    def backward(g):
        of_scores = (g * x).sum((1, 2)) * factors * (1 - factors)
        of_inner = of_scores @ kernel2.T * (gate + squeezed * (1 - gate))
        of_averages = of_inner @ kernel1.T
        of_x = g * factors[:, None, None] + of_averages[:, None, None] / (x.shape[1] * x.shape[2])
        return of_x, averages.T @ of_inner, of_inner.sum(0), squeezed.T @ of_scores, of_scores.sum(0)

    return x * factors[:, None, None], backward


def pad_images(x, padding, value=0.0):
    """Surrounds images (B, H, W, C) with ((top, bottom), (left, right)) pixels of one value."""
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def crop_padding(padded, padding):
    """Takes away what `pad_images` added."""
    (top, bottom), (left, right) = padding
    return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]


def count_windows(pixels, window, stride, dilation=1):
    """How many windows fit along one side of a padded image."""
    return (pixels - dilation * (window - 1) - 1) // stride + 1


def pooled_shape(padded, size, stride):
    """The shape (B, Y, X, C) of one number for each window and channel of padded images."""
    rows = count_windows(padded.shape[1], size[0], stride[0])
    columns = count_windows(padded.shape[2], size[1], stride[1])
    return len(padded), rows, columns, padded.shape[-1]


def convolution(x, kernel, bias, *, padding, stride, dilation, groups):
    """y[b,i,j,o] = bias[o] + the sum over u, v, c of padded[b, s i + d u, s j + d v, c] kernel[u, v, c, o]."""
    padded = pad_images(x, padding)
    height, width, inputs, filters = kernel.shape
    outputs = filters // groups
    rows = count_windows(padded.shape[1], height, stride[0], dilation[0])
    columns = count_windows(padded.shape[2], width, stride[1], dilation[1])

    def terms():
        """For each pixel of a filter and each group: where its weights are, what they read, where that is added."""
        for u, v, group in itertools.product(range(height), range(width), range(groups)):
            top, left = u * dilation[0], v * dilation[1]
            output_channels = slice(group * outputs, (group + 1) * outputs)
            input_channels = slice(group * inputs, (group + 1) * inputs)
            read_rows = slice(top, top + stride[0] * (rows - 1) + 1, stride[0])
            read_columns = slice(left, left + stride[1] * (columns - 1) + 1, stride[1])
            weights = np.s_[u, v, :, output_channels]
            yield weights, np.s_[:, read_rows, read_columns, input_channels], np.s_[..., output_channels]

    y = np.zeros((len(x), rows, columns, filters)) + bias
    for weights, pixels, output in terms():
        y[output] += padded[pixels] @ kernel[weights]

    def backward(g):
        of_padded, of_kernel = np.zeros_like(padded), np.zeros_like(kernel)
        for weights, pixels, output in terms():
            of_padded[pixels] += g[output] @ kernel[weights].T
            of_kernel[weights] += np.einsum("byxi,byxo->io", padded[pixels], g[output])
        return crop_padding(of_padded, padding), of_kernel, g.sum((0, 1, 2))

    return y, backward


def windows(padded, size, stride):
    """For each window of each channel: the index that its output is written to, the pixels that it reads."""
    for b, i, j, c in np.ndindex(pooled_shape(padded, size, stride)):
        top, left = i * stride[0], j * stride[1]
        yield (b, i, j, c), np.s_[b, top : top + size[0], left : left + size[1], c]


def max_pooling(x, *, size, stride, padding):
    """The largest number of each window; the first of equal ones in row-major order gets the gradient."""
    padded = pad_images(x, padding, -np.inf)
    y = np.zeros(pooled_shape(padded, size, stride))
    for output, pixels in windows(padded, size, stride):
        y[output] = padded[pixels].max()

    def backward(g):
        of_padded = np.zeros_like(padded)
        for output, pixels in windows(padded, size, stride):
            largest = np.unravel_index(padded[pixels].argmax(), size)
            of_padded[pixels].reshape(size)[largest] += g[output]
        return (crop_padding(of_padded, padding),)

    return y, backward


def average_pooling(x, *, size, stride, padding, count_padding):
    """The sum of each window, divided by its size or by the number of its pixels that lie in the image."""
    padded = pad_images(x, padding)
    in_image = pad_images(np.ones_like(x), padding)

    def count(pixels):
        return size[0] * size[1] if count_padding else in_image[pixels].sum()

    y = np.zeros(pooled_shape(padded, size, stride))
    for output, pixels in windows(padded, size, stride):
        y[output] = padded[pixels].sum() / count(pixels)

    def backward(g):
        of_padded = np.zeros_like(padded)
        for output, pixels in windows(padded, size, stride):
            of_padded[pixels] += g[output] / count(pixels)
        return (crop_padding(of_padded, padding),)

    return y, backward


def blur_weights(size):
    """The weights of a window (height, width): along each axis 1, and for each further tap a convolution with 1 1."""
    along_axes = []
    for taps in size:
        weights = np.ones(1)
        for _ in range(taps - 1):
            weights = np.convolve(weights, [1, 1])
        along_axes.append(weights)
    return along_axes[0][:, None] * along_axes[1]


def blur_pooling(x, *, size, stride, padding):
    """The weighted sum of each window, divided by the sum of the weights that lie in the image."""
    padded = pad_images(x, padding)
    in_image = pad_images(np.ones_like(x), padding)
    weights = blur_weights(size)
    y = np.zeros(pooled_shape(padded, size, stride))
    for output, pixels in windows(padded, size, stride):
        y[output] = (weights * padded[pixels]).sum() / (weights * in_image[pixels]).sum()

    def backward(g):
        of_padded = np.zeros_like(padded)
        for output, pixels in windows(padded, size, stride):
            of_padded[pixels] += g[output] * weights / (weights * in_image[pixels]).sum()
        return (crop_padding(of_padded, padding),)

    return y, backward


def standardization(x, axes, epsilon):
    """(x - mean) / sqrt(variance + epsilon), the variance a sum of squares over n."""
    centered = x - x.mean(axes, keepdims=True)
    std = np.sqrt((centered**2).mean(axes, keepdims=True) + epsilon)
    y = centered / std

    def backward(g):
        return ((g - g.mean(axes, keepdims=True) - y * (g * y).mean(axes, keepdims=True)) / std,)

    return y, backward


def normalization(x, scale, bias, *, axes, epsilon):
    """Standardized, then multiplied by a scale and moved by a bias along the last axis."""
    z, backward_to_x = standardization(x, axes, epsilon)
    leading = tuple(range(x.ndim - 1))

    def backward(g):
        return *backward_to_x(g * scale), (g * z).sum(leading), g.sum(leading)

    return z * scale + bias, backward


def group_normalization(x, scale, bias, *, groups, epsilon):
    """Normalizes each group of an image's neighboring channels together."""
    outputs, backwards = [], []
    channel_groups = np.split(np.arange(x.shape[-1]), groups)
    for c in channel_groups:
        y, backward_of_group = normalization(x[..., c], scale[c], bias[c], axes=(1, 2, 3), epsilon=epsilon)
        outputs.append(y)
        backwards.append(backward_of_group)

    def backward(g):
        of_groups = []
        for c, backward_of_group in zip(channel_groups, backwards, strict=True):
            of_groups.append(backward_of_group(g[..., c]))
        of_x, of_scale, of_bias = zip(*of_groups, strict=True)
        return np.concatenate(of_x, -1), np.concatenate(of_scale, -1), np.concatenate(of_bias, -1)

    return np.concatenate(outputs, -1), backward


def fixed_normalization(x, scale, bias, *, mean, var, epsilon):
    """Normalizes by statistics that do not come from x, and get no gradient."""
    z = (x - mean) / np.sqrt(var + epsilon)

    def backward(g):
        return g * scale / np.sqrt(var + epsilon), (g * z).sum((0, 1, 2)), g.sum((0, 1, 2))

    return z * scale + bias, backward


def attention_of_one_head(q, k, v, mask):
    """Attention in one example: (N, E), (M, E), (M, E); mask (N, M), True = read. No token read gives 0."""
    scores = q @ k.T / np.sqrt(q.shape[-1])
    weights = np.where(mask, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)

    def backward(g):
        of_weights = g @ v.T
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
        return of_scores @ k, of_scores.T @ q, weights.T @ g

    return weights @ v, backward


def attention(q, k, v, *, mask):
    """Attention of each example and head by itself: (B, N, A, E), (B, M, A, E), (B, M, A, E); mask (B, N, M)."""
    y = np.zeros(q.shape)
    backwards = {}
    for b, a in itertools.product(range(len(q)), range(q.shape[2])):
        y[b, :, a], backwards[b, a] = attention_of_one_head(q[b, :, a], k[b, :, a], v[b, :, a], mask[b])

    def backward(g):
        of_q, of_k, of_v = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
        for (b, a), backward_of_head in backwards.items():
            of_q[b, :, a], of_k[b, :, a], of_v[b, :, a] = backward_of_head(g[b, :, a])
        return of_q, of_k, of_v

    return y, backward


def split_heads(x, heads):
    """Gives head a the features a E to (a + 1) E - 1: (B, N, D) -> (B, N, A, E)."""
    return np.stack(np.split(x, heads, -1), 2)


def join_heads(x):
    """Puts the features of all heads side by side: (B, N, A, E) -> (B, N, D)."""
    return np.concatenate([x[:, :, a] for a in range(x.shape[2])], -1)


def multi_head(x, context, *weights, heads, mask):
    """Dense queries of x, dense keys and values of the context, attention, a dense layer.

    `weights` are kernel and bias of queries, keys, values and output, in turn.
    """
    query_weights, key_weights, value_weights, out_weights = (weights[i : i + 2] for i in (0, 2, 4, 6))
    q, backward_of_q = dense(x, *query_weights)
    k, backward_of_k = dense(context, *key_weights)
    v, backward_of_v = dense(context, *value_weights)
    mixed, backward_of_mixing = attention(*(split_heads(part, heads) for part in (q, k, v)), mask=mask)
    y, backward_of_out = dense(join_heads(mixed), *out_weights)

    def backward(g):
        of_mixed, *of_out_weights = backward_of_out(g)
        of_q, of_k, of_v = (join_heads(part) for part in backward_of_mixing(split_heads(of_mixed, heads)))
        of_x, *of_query_weights = backward_of_q(of_q)
        of_context_by_k, *of_key_weights = backward_of_k(of_k)
        of_context_by_v, *of_value_weights = backward_of_v(of_v)
        of_context = of_context_by_k + of_context_by_v
        return of_x, of_context, *of_query_weights, *of_key_weights, *of_value_weights, *of_out_weights

    return y, backward


def patch_embedding(x, kernel, bias):
    """Each patch as one row of numbers, row by row, times one matrix."""
    side = len(kernel)
    corners = list(itertools.product(range(0, x.shape[1], side), range(0, x.shape[2], side)))
    patches = np.stack([x[:, i : i + side, j : j + side].reshape(len(x), -1) for i, j in corners], 1)
    y, backward_of_dense = dense(patches, kernel.reshape(-1, kernel.shape[-1]), bias)

    def backward(g):
        of_patches, of_kernel, of_bias = backward_of_dense(g)
        of_x = np.zeros_like(x)
        for n, (i, j) in enumerate(corners):
            of_x[:, i : i + side, j : j + side] = of_patches[:, n].reshape(len(x), side, side, -1)
        return of_x, of_kernel.reshape(kernel.shape), of_bias

    return y, backward
