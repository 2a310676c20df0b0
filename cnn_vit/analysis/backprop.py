"""Backpropagation by hand: the layers of a CNN and of a ViT forward and backward, in NumPy alone.

Read each pair of functions beside its formula. A network turns its input into one number, the loss L. A layer computes
y from x and from its parameters. Its backward function is given g = dL/dy, which has the shape of y, and returns
dL/dx, and dL/dw for each parameter w, each of the shape of what it is derived by. That is the whole process: the
dL/dx of a layer is the g of the layer below it, down to the image.

    x = conv -> ReLU -> pool -> ... -> dense -> softmax cross-entropy = L      forward, keep every x
    dL/dx <- ... <- g <- g <- g <- dL/dscores                                  backward, with the x that was kept

Nothing here is fast. The loops run over the places (u, v) of a kernel or window, so that a line reads as its formula:
at a place, every window reads one pixel, and all these pixels together are a slice of the padded image. Whatever a
pixel does forward several times, its gradient adds up backward.

Axes:
    B batch    H, W input height and width    C channels    Y, X output height and width    O filters
    U, V height and width of a kernel    D, K numbers before and after a dense layer, K also classes
    T tokens that ask    S tokens that are asked    E width of a query and key    F width of a value

tests/analysis/test_backprop.py holds each gradient to 1e-10 of that of `jax.vjp` in float64, and to finite differences.

Sources: LeCun et al., Gradient-based learning applied to document recognition, 1998; Dumoulin and Visin, A guide to
convolution arithmetic for deep learning, arXiv:1603.07285; the papers of the single layers stand at their functions.
"""

import numpy as np

from cnn_vit.nn.windows import output_size

Padding = tuple[tuple[int, int], tuple[int, int]]  # pixels ((top, bottom), (left, right))

NO_PADDING: Padding = ((0, 0), (0, 0))


# What convolution and pooling share -----------------------------------------------------------------------------------


def pad(x: np.ndarray, padding: Padding, value: float = 0.0) -> np.ndarray:  # (B, H, W, C) -> (B, H', W', C)
    """Puts pixels of one value around images; padding is ((top, bottom), (left, right))."""
    return np.pad(x, ((0, 0), padding[0], padding[1], (0, 0)), constant_values=value)


def crop(padded: np.ndarray, padding: Padding) -> np.ndarray:  # (B, H', W', C) -> (B, H, W, C)
    """Takes the padding away again; the padding is not of the image, and nobody asks for its gradient."""
    (top, bottom), (left, right) = padding
    height, width = padded.shape[1:3]
    return padded[:, top : height - bottom, left : width - right]


def pixels_at(place: int, outputs: int, stride: int, dilation: int = 1) -> slice:
    """The pixels along one side that all windows read at one of their places: place * dilation + i * stride.

    Args:
        place: in the kernel or window, from 0.
        outputs: how many windows there are along the side; i counts them from 0.
        stride: pixels from one window to the next.
        dilation: pixels from one place of a window to the next.
    """
    first = place * dilation
    return slice(first, first + (outputs - 1) * stride + 1, stride)


# ReLU -----------------------------------------------------------------------------------------------------------------


def relu_forward(x: np.ndarray) -> np.ndarray:
    """Returns each number that is above 0, and 0 for the others.

        y = max(x, 0)

    Shapes: x and y are the same, whatever it is.
    Source: Nair and Hinton, Rectified linear units improve restricted Boltzmann machines, ICML 2010.
    """
    return np.maximum(x, 0)


def relu_backward(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Returns dL/dx: the gradient goes on where the input was above 0, and ends elsewhere.

        dL/dx = g [x > 0]

    At x = 0 there is no derivative; 0 is what everyone takes (`jax.nn.relu`, PyTorch).

    Shapes: x, g and dL/dx are the same.
    """
    return g * (x > 0)


# Dense ----------------------------------------------------------------------------------------------------------------


def dense_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns weighted sums of the numbers of each example.

        y[n, k] = sum_d x[n, d] w[d, k] + b[k]

    Shapes: x (B, D), w (D, K), b (K,), y (B, K).
    """
    return x @ w + b


def dense_backward(x: np.ndarray, w: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns dL/dx, dL/dw and dL/db.

        dL/dx[n, d] = sum_k g[n, k] w[d, k]
        dL/dw[d, k] = sum_n x[n, d] g[n, k]
        dL/db[k]    = sum_n g[n, k]

    All examples use the same w and b, so that their gradients add up over the batch.

    Shapes: x (B, D), w (D, K), g (B, K); each result has the shape of what it is derived by.
    """
    dx = g @ w.T
    dw = x.T @ g
    db = g.sum(0)
    return dx, dw, db


# Convolution ----------------------------------------------------------------------------------------------------------


def conv_forward(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    stride: int = 1,
    padding: Padding = NO_PADDING,
    dilation: int = 1,
    groups: int = 1,
) -> np.ndarray:
    """Slides each filter over the images and returns a weighted sum of pixels for each of its positions.

        y[n, i, j, o] = sum_{u, v, c} p[n, i s + u d, j s + v d, c] w[u, v, c, o] + b[o]

    p is x with zeros around it, s the stride and d the dilation. The kernel is not flipped: what networks call
    convolution is cross-correlation in mathematics. With groups, the channels and the filters are cut into so many
    blocks of neighbors, and the filters of a block see the channels of the same block alone.

    Shapes: x (B, H, W, C), w (U, V, C / groups, O), b (O,), padding ((top, bottom), (left, right)), y (B, Y, X, O),
    where Y = floor((H + top + bottom - d (U - 1) - 1) / s) + 1, and X likewise.
    Source: Dumoulin and Visin, arXiv:1603.07285.
    """
    kernel_height, kernel_width, _, filters = w.shape
    height = output_size(x.shape[1], kernel_height, stride=stride, padding=padding[0], dilation=dilation)
    width = output_size(x.shape[2], kernel_width, stride=stride, padding=padding[1], dilation=dilation)
    padded = pad(x, padding)
    y = np.zeros((len(x), height, width, filters))
    for u in range(kernel_height):
        for v in range(kernel_width):
            rows = pixels_at(u, height, stride, dilation)
            columns = pixels_at(v, width, stride, dilation)
            for channels, outputs in blocks(w, groups):
                y[..., outputs] += padded[:, rows, columns, channels] @ w[u, v, :, outputs]
    return y + b


def conv_backward(
    x: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
    stride: int = 1,
    padding: Padding = NO_PADDING,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns dL/dx, dL/dw and dL/db of a convolution.

        dL/db[o]          = sum_{n, i, j} g[n, i, j, o]
        dL/dw[u, v, c, o] = sum_{n, i, j} p[n, i s + u d, j s + v d, c] g[n, i, j, o]
        dL/dp[n, a, e, c] = sum of g[n, i, j, o] w[u, v, c, o] over all o, i, j, u, v with i s + u d = a, j s + v d = e

    p is x with zeros around it, and dL/dx is dL/dp without the padding. A pixel that no window reads gets 0. The third
    line is a convolution too: of g with s - 1 zeros between its numbers, by the kernel flipped in height and width,
    with its channels and filters exchanged.

    Shapes: x (B, H, W, C), w (U, V, C / groups, O), g (B, Y, X, O), padding ((top, bottom), (left, right)); each result
    has the shape of what it is derived by.
    Source: Dumoulin and Visin, arXiv:1603.07285, section 4.
    """
    height, width = g.shape[1:3]
    padded = pad(x, padding)
    dpadded = np.zeros(padded.shape)
    dw = np.zeros(w.shape)
    for u in range(w.shape[0]):
        for v in range(w.shape[1]):
            rows = pixels_at(u, height, stride, dilation)
            columns = pixels_at(v, width, stride, dilation)
            for channels, outputs in blocks(w, groups):
                pixels, gradients = padded[:, rows, columns, channels], g[..., outputs]
                dw[u, v, :, outputs] = np.einsum("nijc,nijo->co", pixels, gradients)
                # += for windows overlap, and a pixel that several of them read has a part in each of their results
                dpadded[:, rows, columns, channels] += gradients @ w[u, v, :, outputs].T
    db = g.sum((0, 1, 2))
    return crop(dpadded, padding), dw, db


def conv_input_gradient(
    g: np.ndarray,
    w: np.ndarray,
    image_size: tuple[int, int],
    stride: int = 1,
    padding: Padding = NO_PADDING,
    dilation: int = 1,
    groups: int = 1,
) -> np.ndarray:  # (B, Y, X, O), (U, V, C / groups, O) -> (B, H, W, C)
    """Returns dL/dx of a convolution as a convolution of g, which is how it is often drawn; `conv_backward` adds it up.

    Put s - 1 zeros between neighbors in g, surround it with d (U - 1) zeros, and behind with as many more as there are
    pixels that no window reads; then slide the kernel over it, flipped in height and width, with its channels and
    filters exchanged (inside each group). What lies on the padding is cropped.

    Args:
        g: dL/dy.
        w: the kernel.
        image_size: (H, W) of x.
        stride: that of the forward convolution, as are the others.
        padding: ((top, bottom), (left, right)).
        dilation: pixels from one place of the kernel to the next.
        groups: blocks of channels and of filters.
    """
    batch, height, width, filters = g.shape
    spread = np.zeros((batch, (height - 1) * stride + 1, (width - 1) * stride + 1, filters))
    spread[:, ::stride, ::stride] = g
    around: list[tuple[int, int]] = []
    for axis in (0, 1):
        reach = dilation * (w.shape[axis] - 1)
        padded_pixels = image_size[axis] + sum(padding[axis])
        unread = padded_pixels - (spread.shape[1 + axis] + reach)
        around.append((reach, reach + unread))
    turned = w[::-1, ::-1]
    kernel = np.concatenate([turned[..., outputs].swapaxes(2, 3) for _, outputs in blocks(w, groups)], axis=-1)
    no_bias = np.zeros(kernel.shape[-1])
    dpadded = conv_forward(spread, kernel, no_bias, 1, (around[0], around[1]), dilation, groups)
    return crop(dpadded, padding)


def blocks(w: np.ndarray, groups: int) -> list[tuple[slice, slice]]:
    """The channels and the filters of each group, for a kernel (U, V, C / groups, O)."""
    channels, filters = w.shape[2], w.shape[3] // groups
    pairs = []
    for group in range(groups):
        of_input = slice(group * channels, (group + 1) * channels)
        of_output = slice(group * filters, (group + 1) * filters)
        pairs.append((of_input, of_output))
    return pairs


# Pooling --------------------------------------------------------------------------------------------------------------


def max_pool_forward(x: np.ndarray, size: int, stride: int, padding: Padding = NO_PADDING) -> np.ndarray:
    """Returns the largest number of each window, in each channel by itself.

        y[n, i, j, c] = max_{u, v} p[n, i s + u, j s + v, c]        u, v = 0 ... size - 1

    p is x with minus infinity around it, so that padding is never the largest; s is the stride.

    Shapes: x (B, H, W, C), padding ((top, bottom), (left, right)), each smaller than size, y (B, Y, X, C), where
    Y = floor((H + top + bottom - size) / s) + 1, and X likewise.
    """
    height = output_size(x.shape[1], size, stride=stride, padding=padding[0])
    width = output_size(x.shape[2], size, stride=stride, padding=padding[1])
    padded = pad(x, padding, -np.inf)
    y = np.full((len(x), height, width, x.shape[3]), -np.inf)
    for u in range(size):
        for v in range(size):
            y = np.maximum(y, padded[:, pixels_at(u, height, stride), pixels_at(v, width, stride)])
    return y


def max_pool_backward(
    x: np.ndarray, g: np.ndarray, size: int, stride: int, padding: Padding = NO_PADDING
) -> np.ndarray:
    """Returns dL/dx: the gradient of each window goes to the pixel that was its largest, and to no other.

        dL/dp[n, a, e, c] = sum of g[n, i, j, c] over all windows (i, j) whose largest pixel is (a, e)

    Of several equal largest pixels the first one in row-major order gets it: row by row from the top, each from the
    left (XLA and PyTorch agree on that). A pixel that is the largest of several windows gets the sum of their
    gradients. dL/dx is dL/dp without the padding.

    Shapes: x (B, H, W, C), g (B, Y, X, C), padding ((top, bottom), (left, right)), dL/dx as x.
    """
    height, width = g.shape[1:3]
    padded = pad(x, padding, -np.inf)
    largest = max_pool_forward(x, size, stride, padding)
    dpadded = np.zeros(padded.shape)
    is_open = np.full(g.shape, True)  # of a window, as long as its largest pixel has not come yet
    for u in range(size):
        for v in range(size):
            rows, columns = pixels_at(u, height, stride), pixels_at(v, width, stride)
            wins = is_open & (padded[:, rows, columns] == largest)
            dpadded[:, rows, columns] += g * wins
            is_open &= ~wins
    return crop(dpadded, padding)


def average_pool_forward(
    x: np.ndarray, size: int, stride: int, padding: Padding = NO_PADDING, counts_padding: bool = True
) -> np.ndarray:
    """Returns the mean of each window, in each channel by itself.

        y[n, i, j, c] = sum_{u, v} p[n, i s + u, j s + v, c] / m        u, v = 0 ... size - 1

    p is x with zeros around it, and s is the stride. m is size * size where the padding counts as pixels (Flax and
    PyTorch), or else how many pixels of the window (i, j) lie in the image (TensorFlow).

    Shapes: x (B, H, W, C), padding ((top, bottom), (left, right)), y (B, Y, X, C) as of max pooling.
    """
    height = output_size(x.shape[1], size, stride=stride, padding=padding[0])
    width = output_size(x.shape[2], size, stride=stride, padding=padding[1])
    return sum_windows(pad(x, padding), (height, width), size, stride) / pixel_counts(
        x.shape, (height, width), size, stride, padding, counts_padding
    )


def average_pool_backward(
    x: np.ndarray,
    g: np.ndarray,
    size: int,
    stride: int,
    padding: Padding = NO_PADDING,
    counts_padding: bool = True,
) -> np.ndarray:
    """Returns dL/dx: each pixel of a window has an equal part in its mean, and gets an equal part of its gradient.

        dL/dp[n, a, e, c] = sum of g[n, i, j, c] / m over all windows (i, j) that the pixel (a, e) lies in

    m is that of the window as in the forward function. Of x only the shape matters. dL/dx is dL/dp without the padding.

    Shapes: x (B, H, W, C), g (B, Y, X, C), padding ((top, bottom), (left, right)), dL/dx as x.
    """
    height, width = g.shape[1:3]
    share = g / pixel_counts(x.shape, (height, width), size, stride, padding, counts_padding)
    dpadded = np.zeros(pad(x, padding).shape)
    for u in range(size):
        for v in range(size):
            dpadded[:, pixels_at(u, height, stride), pixels_at(v, width, stride)] += share
    return crop(dpadded, padding)


def sum_windows(padded: np.ndarray, output: tuple[int, int], size: int, stride: int) -> np.ndarray:
    """Returns the sum of each window."""
    height, width = output
    total = np.zeros((padded.shape[0], height, width, padded.shape[3]))
    for u in range(size):
        for v in range(size):
            total += padded[:, pixels_at(u, height, stride), pixels_at(v, width, stride)]
    return total


def pixel_counts(
    shape: tuple[int, ...], output: tuple[int, int], size: int, stride: int, padding: Padding, counts_padding: bool
) -> np.ndarray:  # -> (1, Y, X, 1)
    """Returns by how many pixels the sum of each window is divided."""
    if counts_padding:
        return np.full((1, *output, 1), float(size * size))
    is_image = pad(np.ones((1, *shape[1:3], 1)), padding)
    return sum_windows(is_image, output, size, stride)


# Normalization --------------------------------------------------------------------------------------------------------


def batch_norm_forward(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float = 1e-5) -> np.ndarray:
    """Brings each channel to mean 0 and variance 1 over the batch and all pixels, then scales and shifts it.

        m = mean(x),  v = mean((x - m)^2)       over n, i, j, for each channel
        z = (x - m) / sqrt(v + epsilon)
        y = gamma z + beta

    This is batch norm in training. In evaluation m and v are running averages, constants that no gradient goes through.

    Shapes: x (B, H, W, C), gamma and beta (C,), y as x; m and v (C,).
    Source: Ioffe and Szegedy, Batch normalization, arXiv:1502.03167, algorithm 1.
    """
    axes = tuple(range(x.ndim - 1))
    z, _ = normalize(x, axes, epsilon)
    return gamma * z + beta


def batch_norm_backward(
    x: np.ndarray, gamma: np.ndarray, g: np.ndarray, epsilon: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns dL/dx, dL/dgamma and dL/dbeta of batch norm in training.

        dL/dbeta  = sum g
        dL/dgamma = sum g z
        dL/dx     = gamma / sqrt(v + epsilon) (g - mean(g) - z mean(g z))

    Sums and means run over n, i, j, for each channel; z is the normalized x. The two means are there because every
    pixel has a part in m and v: moving x by a constant, or stretching it, changes nothing behind the norm.

    Shapes: x and g (B, H, W, C), gamma (C,); each result has the shape of what it is derived by.
    Source: Ioffe and Szegedy, arXiv:1502.03167, section 3, with its sums put together.
    """
    axes = tuple(range(x.ndim - 1))
    z, root = normalize(x, axes, epsilon)
    dbeta = g.sum(axes)
    dgamma = (g * z).sum(axes)
    dx = gamma / root * (g - g.mean(axes) - z * (g * z).mean(axes))
    return dx, dgamma, dbeta


def layer_norm_forward(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    """Brings the numbers of each token to mean 0 and variance 1, then scales and shifts each of them.

        m = mean(x),  v = mean((x - m)^2)       over the last axis, for each token
        z = (x - m) / sqrt(v + epsilon)
        y = gamma z + beta

    Shapes: x (B, T, D), gamma and beta (D,), y as x; m and v (B, T, 1).
    Source: Ba, Kiros and Hinton, Layer normalization, arXiv:1607.06450.
    """
    z, _ = normalize(x, -1, epsilon)
    return gamma * z + beta


def layer_norm_backward(
    x: np.ndarray, gamma: np.ndarray, g: np.ndarray, epsilon: float = 1e-6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns dL/dx, dL/dgamma and dL/dbeta of layer norm.

        dL/dbeta  = sum g               over examples and tokens
        dL/dgamma = sum g z             over examples and tokens
        dL/dz     = g gamma
        dL/dx     = (dL/dz - mean(dL/dz) - z mean(dL/dz z)) / sqrt(v + epsilon)      means over the last axis

    Unlike in batch norm, gamma differs along the axis that the means run over, and so it stands inside them.

    Shapes: x and g (B, T, D), gamma (D,); each result has the shape of what it is derived by.
    """
    axes = tuple(range(x.ndim - 1))
    z, root = normalize(x, -1, epsilon)
    dbeta = g.sum(axes)
    dgamma = (g * z).sum(axes)
    dz = g * gamma
    dx = (dz - dz.mean(-1, keepdims=True) - z * (dz * z).mean(-1, keepdims=True)) / root
    return dx, dgamma, dbeta


def normalize(x: np.ndarray, axes: int | tuple[int, ...], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns x with mean 0 and variance 1 over some axes, and the root that it was divided by, with its axes kept."""
    centered = x - x.mean(axes, keepdims=True)
    root = np.sqrt((centered**2).mean(axes, keepdims=True) + epsilon)
    return centered / root, root


# Attention ------------------------------------------------------------------------------------------------------------


def softmax(scores: np.ndarray) -> np.ndarray:
    """Returns exp(scores) / sum exp(scores) over the last axis.

    The largest score is subtracted first. That changes nothing, for the factor exp(-largest) stands above and below,
    but without it exp overflows from a score of 710 on.
    """
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def attention_forward(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns for each query a mean of the values, weighted by how well their keys fit (one head).

        A = q k^T / sqrt(E)
        P = softmax(A)          over the keys, so that each row has sum 1
        y = P v

    Shapes: q (B, T, E), k (B, S, E), v (B, S, F), A and P (B, T, S), y (B, T, F).
    Source: Vaswani et al., Attention is all you need, arXiv:1706.03762, equation 1.
    """
    return attention_weights(q, k) @ v


def attention_backward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns dL/dq, dL/dk and dL/dv.

        dL/dv = P^T g
        dL/dP = g v^T
        dL/dA = P (dL/dP - sum_s dL/dP P)       elementwise, the sum over the keys of a row
        dL/dq = dL/dA k / sqrt(E)
        dL/dk = (dL/dA)^T q / sqrt(E)

    The third line is the derivative of softmax: raising one score lowers all other weights of its row.

    Shapes: q (B, T, E), k (B, S, E), v (B, S, F), g (B, T, F); each result has the shape of what it is derived by.
    """
    weights = attention_weights(q, k)
    dv = weights.swapaxes(1, 2) @ g
    dweights = g @ v.swapaxes(1, 2)
    dscores = weights * (dweights - (dweights * weights).sum(-1, keepdims=True))
    dq = dscores @ k / np.sqrt(q.shape[-1])
    dk = dscores.swapaxes(1, 2) @ q / np.sqrt(q.shape[-1])
    return dq, dk, dv


def attention_weights(q: np.ndarray, k: np.ndarray) -> np.ndarray:  # (B, T, E), (B, S, E) -> (B, T, S)
    """Returns the matrix P of attention, softmax(q k^T / sqrt(E))."""
    return softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))


# Loss -----------------------------------------------------------------------------------------------------------------


def softmax_cross_entropy_forward(scores: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> float:
    """Returns the mean loss of a batch, one number.

        p = softmax(scores)                                          over the classes
        t[n, k] = (1 - smoothing) [k = labels[n]] + smoothing / K    the target
        L = -1/B sum_{n, k} t[n, k] log p[n, k]

    log p = scores - log(sum exp(scores)) is computed as such, with the largest score subtracted before exp: the
    logarithm of a probability that was rounded to 0 would be minus infinity.

    Shapes: scores (B, K), labels (B,) whole numbers from 0 to K - 1, L a number.
    Source: Szegedy et al., Rethinking the inception architecture, arXiv:1512.00567, section 7 (smoothing).
    """
    shifted = scores - scores.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    targets = smoothed_targets(labels, scores.shape[-1], smoothing)
    return float(-(targets * log_probabilities).sum() / len(scores))


def softmax_cross_entropy_backward(scores: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """Returns dL/dscores, where the backward pass begins.

        dL/dscores = (p - t) / B

    p and t are those of the forward function, B is the number of examples: L is their mean.

    Shapes: scores (B, K), labels (B,) whole numbers from 0 to K - 1, dL/dscores (B, K).
    """
    targets = smoothed_targets(labels, scores.shape[-1], smoothing)
    return (softmax(scores) - targets) / len(scores)


def smoothed_targets(labels: np.ndarray, num_classes: int, smoothing: float) -> np.ndarray:  # (B,) -> (B, K)
    """Returns the target of each example: 1 - smoothing at its label, and smoothing spread evenly over all classes."""
    is_label = labels[:, None] == np.arange(num_classes)
    return (1 - smoothing) * is_label + smoothing / num_classes
