"""What each layer says it computes: NumPy in float64, with gradients derived by hand.

A formula gives (y, back). For the gradient g of y, `back(g)` gives the gradients of what the formula was given, in its
order. Windows and heads are loops, for plainness. test_formulas.py holds each `back` against differences of its own y.
"""

import itertools

import numpy as np


def dense(x, kernel, bias):
    """y = x kernel + bias along the last axis."""
    rows = tuple(range(x.ndim - 1))

    def back(g):
        return g @ kernel.T, np.tensordot(x, g, (rows, rows)), g.sum(rows)

    return x @ kernel + bias, back


def bordered(x, padding, value=0.0):
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def cropped(padded, padding):
    (top, bottom), (left, right) = padding
    return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]


def places(pixels, window, stride, dilation=1):
    return (pixels - dilation * (window - 1) - 1) // stride + 1


def convolution(x, kernel, bias, *, padding, stride, dilation, groups):
    """y[b,i,j,o] = bias[o] + the sum over u, v, c of padded[b, s i + d u, s j + d v, c] kernel[u, v, c, o]."""
    padded = bordered(x, padding)
    height, width, taken, filters = kernel.shape
    given = filters // groups
    rows = places(padded.shape[1], height, stride[0], dilation[0])
    columns = places(padded.shape[2], width, stride[1], dilation[1])

    def terms():
        """For each pixel of a filter and each group: where its weights are, what they read, where that is added."""
        for u, v, group in itertools.product(range(height), range(width), range(groups)):
            down, right = u * dilation[0], v * dilation[1]
            out = np.s_[..., group * given : (group + 1) * given]
            seen = np.s_[
                :,
                down : down + stride[0] * (rows - 1) + 1 : stride[0],
                right : right + stride[1] * (columns - 1) + 1 : stride[1],
                group * taken : (group + 1) * taken,
            ]
            yield np.s_[u, v, :, out[1]], seen, out

    y = np.zeros((len(x), rows, columns, filters)) + bias
    for weights, seen, out in terms():
        y[out] += padded[seen] @ kernel[weights]

    def back(g):
        to_padded, to_kernel = np.zeros_like(padded), np.zeros_like(kernel)
        for weights, seen, out in terms():
            to_padded[seen] += g[out] @ kernel[weights].T
            to_kernel[weights] += np.einsum("byxi,byxo->io", padded[seen], g[out])
        return cropped(to_padded, padding), to_kernel, g.sum((0, 1, 2))

    return y, back


def windows(padded, size, stride):
    """Each window of each channel by itself: where it is written, where it is read."""
    rows, columns = (places(padded.shape[1 + i], size[i], stride[i]) for i in (0, 1))
    for b, i, j, c in np.ndindex(len(padded), rows, columns, padded.shape[-1]):
        top, left = i * stride[0], j * stride[1]
        yield (b, i, j, c), np.s_[b, top : top + size[0], left : left + size[1], c]


def max_pooling(x, *, size, stride, padding):
    """The largest of each window; the first of equal ones in row-major order gets the gradient."""
    padded = bordered(x, padding, -np.inf)
    y = np.zeros((len(x), *(places(padded.shape[1 + i], size[i], stride[i]) for i in (0, 1)), x.shape[-1]))
    for here, seen in windows(padded, size, stride):
        y[here] = padded[seen].max()

    def back(g):
        to_padded = np.zeros_like(padded)
        for here, seen in windows(padded, size, stride):
            to_padded[seen].reshape(size)[np.unravel_index(padded[seen].argmax(), size)] += g[here]
        return (cropped(to_padded, padding),)

    return y, back


def average_pooling(x, *, size, stride, padding, count_padding):
    """The sum of each window, over its pixels or over those of them that are the image's."""
    padded, image = bordered(x, padding), bordered(np.ones_like(x), padding)
    y = np.zeros((len(x), *(places(padded.shape[1 + i], size[i], stride[i]) for i in (0, 1)), x.shape[-1]))
    count = lambda seen: size[0] * size[1] if count_padding else image[seen].sum()  # noqa: E731
    for here, seen in windows(padded, size, stride):
        y[here] = padded[seen].sum() / count(seen)

    def back(g):
        to_padded = np.zeros_like(padded)
        for here, seen in windows(padded, size, stride):
            to_padded[seen] += g[here] / count(seen)
        return (cropped(to_padded, padding),)

    return y, back


def standardized(x, axes, epsilon):
    """(x - mean) / sqrt(variance + epsilon), the variance a sum of squares over n."""
    deviation = np.sqrt(((x - x.mean(axes, keepdims=True)) ** 2).mean(axes, keepdims=True) + epsilon)
    y = (x - x.mean(axes, keepdims=True)) / deviation

    def back(g):
        return ((g - g.mean(axes, keepdims=True) - y * (g * y).mean(axes, keepdims=True)) / deviation,)

    return y, back


def normalization(x, scale, bias, *, axes, epsilon):
    """Standardized, then a scale and a bias along the last axis."""
    z, through = standardized(x, axes, epsilon)
    rows = tuple(range(x.ndim - 1))

    def back(g):
        return *through(g * scale), (g * z).sum(rows), g.sum(rows)

    return z * scale + bias, back


def group_normalization(x, scale, bias, *, groups, epsilon):
    """Each image's neighboring channels together."""
    parts = np.split(np.arange(x.shape[-1]), groups)
    each = [normalization(x[..., c], scale[c], bias[c], axes=(1, 2, 3), epsilon=epsilon) for c in parts]

    def back(g):
        gradients = [through(g[..., c]) for c, (_, through) in zip(parts, each, strict=True)]
        return tuple(np.concatenate(of, -1) for of in zip(*gradients, strict=True))

    return np.concatenate([y for y, _ in each], -1), back


def fixed_normalization(x, scale, bias, *, mean, var, epsilon):
    """By statistics that are given, and get no gradient."""
    z = (x - mean) / np.sqrt(var + epsilon)

    def back(g):
        return g * scale / np.sqrt(var + epsilon), (g * z).sum((0, 1, 2)), g.sum((0, 1, 2))

    return z * scale + bias, back


def head(q, k, v, mask):
    """One head's attention in one example: (N, E), (M, E), (M, E); mask (N, M), True = read. No token read gives 0."""
    scores = q @ k.T / np.sqrt(q.shape[-1])
    weights = np.where(mask, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)

    def back(g):
        to_weights = g @ v.T
        to_scores = weights * (to_weights - (to_weights * weights).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
        return to_scores @ k, to_scores.T @ q, weights.T @ g

    return weights @ v, back


def attention(q, k, v, *, mask):
    """Each example and head by itself: (B, N, A, E), (B, M, A, E), (B, M, A, E); mask (B, N, M)."""
    each = {(b, a): head(q[b, :, a], k[b, :, a], v[b, :, a], mask[b]) for b in range(len(q)) for a in range(q.shape[2])}
    y = np.zeros(q.shape)
    for (b, a), (part, _) in each.items():
        y[b, :, a] = part

    def back(g):
        gradients = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
        for (b, a), (_, through) in each.items():
            for whole, part in zip(gradients, through(g[b, :, a]), strict=True):
                whole[b, :, a] = part
        return gradients

    return y, back


def in_heads(x, heads):
    """Head a owns features a E to (a + 1) E - 1: (B, N, D) -> (B, N, A, E)."""
    return np.stack(np.split(x, heads, -1), 2)


def joined(x):
    return np.concatenate([x[:, :, a] for a in range(x.shape[2])], -1)


def multi_head(x, context, *weights, heads, mask):
    """Dense queries of x, dense keys and values of the context, attention, a dense layer; kernel, bias in turn."""
    (q, to_q), (k, to_k), (v, to_v) = (
        dense(taken, *weights[2 * i : 2 * i + 2]) for i, taken in enumerate((x, context, context))
    )
    mixed, to_parts = attention(*(in_heads(part, heads) for part in (q, k, v)), mask=mask)
    y, to_mixed = dense(joined(mixed), *weights[6:])

    def back(g):
        of_mixed, *out = to_mixed(g)
        parts = [joined(part) for part in to_parts(in_heads(of_mixed, heads))]
        (of_x, *query), (of_k, *key), (of_v, *value) = (
            through(part) for through, part in zip((to_q, to_k, to_v), parts, strict=True)
        )
        return of_x, of_k + of_v, *query, *key, *value, *out

    return y, back


def patch_embedding(x, kernel, bias):
    """Each patch as one row of numbers, row by row, times one matrix."""
    side = len(kernel)
    corners = [(i, j) for i in range(0, x.shape[1], side) for j in range(0, x.shape[2], side)]
    rows = np.stack([x[:, i : i + side, j : j + side].reshape(len(x), -1) for i, j in corners], 1)
    y, through = dense(rows, kernel.reshape(-1, kernel.shape[-1]), bias)

    def back(g):
        of_rows, of_kernel, of_bias = through(g)
        of_x = np.zeros_like(x)
        for n, (i, j) in enumerate(corners):
            of_x[:, i : i + side, j : j + side] = of_rows[:, n].reshape(len(x), side, side, -1)
        return of_x, of_kernel.reshape(kernel.shape), of_bias

    return y, back
