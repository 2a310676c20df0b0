"""What a learner might write: right bodies of all functions, and mistakes planted in them by replacing text.

The bodies are written from the formulas, in other ways than `cnn_vit/analysis/backprop.py`: window by window, by sums
over indices, by matrices.
"""

import textwrap
from dataclasses import dataclass

HELPERS = """
def surround(x, padding, value=0.0):
    (top, bottom), (left, right) = padding
    batch, height, width, channels = x.shape
    big = np.full((batch, height + top + bottom, width + left + right, channels), value)
    big[:, top:top + height, left:left + width] = x
    return big


def stable_softmax(a):
    e = np.exp(a - np.max(a, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)
"""

BODIES = {
    "relu_forward": """
        return np.where(x > 0, x, 0.0)
    """,
    "relu_backward": """
        dx = g.copy()
        dx[x <= 0] = 0
        return dx
    """,
    "dense_forward": """
        return np.einsum("nd,dk->nk", x, w) + b[None, :]
    """,
    "dense_backward": """
        dx = np.dot(g, w.T)
        dw = np.zeros(w.shape)
        db = np.zeros(g.shape[1])
        for n in range(len(x)):
            dw += np.outer(x[n], g[n])
            db += g[n]
        return dx, dw, db
    """,
    "conv_forward": """
        p = surround(x, padding)
        U, V, I, O = w.shape
        Y = (p.shape[1] - dilation * (U - 1) - 1) // stride + 1
        X = (p.shape[2] - dilation * (V - 1) - 1) // stride + 1
        y = np.zeros((len(x), Y, X, O))
        for i in range(Y):
            for j in range(X):
                window = p[:, i * stride:i * stride + dilation * (U - 1) + 1:dilation,
                           j * stride:j * stride + dilation * (V - 1) + 1:dilation]
                for o in range(O):
                    first = o // (O // groups) * I
                    y[:, i, j, o] = (window[..., first:first + I] * w[..., o]).sum((1, 2, 3))
        return y + b
    """,
    "conv_backward": """
        p = surround(x, padding)
        U, V, I, O = w.shape
        _, Y, X, _ = g.shape
        dp, dw = np.zeros_like(p), np.zeros_like(w)
        for i in range(Y):
            for j in range(X):
                rows = slice(i * stride, i * stride + dilation * (U - 1) + 1, dilation)
                columns = slice(j * stride, j * stride + dilation * (V - 1) + 1, dilation)
                for o in range(O):
                    first = o // (O // groups) * I
                    part = slice(first, first + I)
                    gradient = g[:, i, j, o][:, None, None, None]
                    dw[..., o] += (p[:, rows, columns, part] * gradient).sum(0)
                    dp[:, rows, columns, part] += w[..., o] * gradient
        db = g.sum(axis=0).sum(axis=0).sum(axis=0)
        top, left = padding[0][0], padding[1][0]
        dx = dp[:, top:top + x.shape[1], left:left + x.shape[2]]
        return dx, dw, db
    """,
    "max_pool_forward": """
        p = surround(x, padding, -np.inf)
        Y, X = (p.shape[1] - size) // stride + 1, (p.shape[2] - size) // stride + 1
        y = np.zeros((len(x), Y, X, x.shape[3]))
        for i in range(Y):
            for j in range(X):
                y[:, i, j] = p[:, i * stride:i * stride + size, j * stride:j * stride + size].max(axis=(1, 2))
        return y
    """,
    "max_pool_backward": """
        p = surround(x, padding, -np.inf)
        dp = np.zeros(p.shape)
        for n, i, j, c in np.ndindex(*g.shape):
            window = p[n, i * stride:i * stride + size, j * stride:j * stride + size, c]
            u, v = np.unravel_index(window.argmax(), window.shape)
            dp[n, i * stride + u, j * stride + v, c] += g[n, i, j, c]
        top, left = padding[0][0], padding[1][0]
        return dp[:, top:top + x.shape[1], left:left + x.shape[2]]
    """,
    "average_pool_forward": """
        p, inside = surround(x, padding), surround(np.ones(x.shape), padding)
        Y, X = (p.shape[1] - size) // stride + 1, (p.shape[2] - size) // stride + 1
        y = np.zeros((len(x), Y, X, x.shape[3]))
        for i in range(Y):
            for j in range(X):
                window = np.s_[:, i * stride:i * stride + size, j * stride:j * stride + size]
                m = size * size if counts_padding else inside[window].sum(axis=(1, 2))
                y[:, i, j] = p[window].sum(axis=(1, 2)) / m
        return y
    """,
    "average_pool_backward": """
        inside = surround(np.ones(x.shape), padding)
        dp = np.zeros(inside.shape)
        for i in range(g.shape[1]):
            for j in range(g.shape[2]):
                window = np.s_[:, i * stride:i * stride + size, j * stride:j * stride + size]
                m = size * size if counts_padding else inside[window].sum(axis=(1, 2))
                dp[window] += (g[:, i, j] / m)[:, None, None, :]
        top, left = padding[0][0], padding[1][0]
        return dp[:, top:top + x.shape[1], left:left + x.shape[2]]
    """,
    "softmax_cross_entropy_forward": """
        K = scores.shape[1]
        total = 0.0
        for row, label in zip(scores, labels):
            t = np.full(K, smoothing / K)
            t[label] += 1 - smoothing
            top = row.max()
            log_p = row - top - np.log(np.sum(np.exp(row - top)))
            total -= np.sum(t * log_p)
        return total / len(scores)
    """,
    "softmax_cross_entropy_backward": """
        B, K = scores.shape
        d = stable_softmax(scores) - smoothing / K
        d[np.arange(B), labels] -= 1 - smoothing
        return d / B
    """,
    "batch_norm_forward": """
        m, v = np.mean(x, axis=(0, 1, 2)), np.var(x, axis=(0, 1, 2))
        return gamma * (x - m) / np.sqrt(v + epsilon) + beta
    """,
    "batch_norm_backward": """
        n = x.size // x.shape[-1]
        m, v = np.mean(x, axis=(0, 1, 2)), np.var(x, axis=(0, 1, 2))
        s = 1 / np.sqrt(v + epsilon)
        centered = x - m
        dbeta = np.sum(g, axis=(0, 1, 2))
        dgamma = np.sum(g * centered * s, axis=(0, 1, 2))
        dz = g * gamma
        dv = np.sum(dz * centered, axis=(0, 1, 2)) * -0.5 * s ** 3
        dm = -s * np.sum(dz, axis=(0, 1, 2))
        dx = dz * s + dv * 2 / n * centered + dm / n
        return dx, dgamma, dbeta
    """,
    "layer_norm_forward": """
        m, v = x.mean(axis=2, keepdims=True), x.var(axis=2, keepdims=True)
        return gamma * (x - m) / np.sqrt(v + epsilon) + beta
    """,
    "layer_norm_backward": """
        dgamma, dbeta, dx = np.zeros_like(gamma), np.zeros_like(gamma), np.zeros_like(x)
        for n, t in np.ndindex(x.shape[:2]):
            row, d = x[n, t], x.shape[2]
            s = np.sqrt(row.var() + epsilon)
            z = (row - row.mean()) / s
            dgamma += g[n, t] * z
            dbeta += g[n, t]
            jacobian = (np.eye(d) - 1 / d - np.outer(z, z) / d) / s
            dx[n, t] = jacobian @ (gamma * g[n, t])
        return dx, dgamma, dbeta
    """,
    "attention_forward": """
        a = np.einsum("nte,nse->nts", q, k) / q.shape[2] ** 0.5
        return np.einsum("nts,nsf->ntf", stable_softmax(a), v)
    """,
    "attention_backward": """
        root = q.shape[2] ** 0.5
        p = stable_softmax(np.einsum("nte,nse->nts", q, k) / root)
        dv = np.einsum("nts,ntf->nsf", p, g)
        dp = np.einsum("ntf,nsf->nts", g, v)
        da = np.zeros_like(p)
        for n, t in np.ndindex(p.shape[:2]):
            da[n, t] = (np.diag(p[n, t]) - np.outer(p[n, t], p[n, t])) @ dp[n, t]
        dq = np.einsum("nts,nse->nte", da, k) / root
        dk = np.einsum("nts,nte->nse", da, q) / root
        return dq, dk, dv
    """,
}


@dataclass(frozen=True)
class Planted:
    """A mistake that is put into a right body.

    Attributes:
        function: whose body it is.
        before: a text of the body.
        after: what stands there instead.
        output: which output is wrong then.
        mistake: how the check calls it.
        words: a part of its message.
    """

    function: str
    before: str
    after: str
    output: str
    mistake: str
    words: str


PLANTED = (
    # A wrong sign, a missing flip, a forgotten padding, a transposed kernel: those that the issue names come first.
    Planted("dense_backward", "return dx, dw, db", "return -dx, dw, db", "dL/dx", "wrong sign", "the sign is wrong"),
    Planted("conv_backward", "+= w[..., o] * g", "+= w[::-1, ::-1][..., o] * g", "dL/dx", "kernel not flipped", "flip"),
    Planted("conv_backward", "top, left = padding[0][0], padding[1][0]", "top = left = 0", "dL/dx",
            "padding forgotten", "no padding"),
    Planted("conv_forward", "p = surround(x, padding)", "p = x", "y", "padding forgotten", "padding is left out"),
    Planted("dense_backward", "np.dot(g, w.T)", "np.dot(g, w)", "dL/dx", "kernel not transposed", "g @ w.T"),
    Planted("conv_forward", "* w[..., o])", "* w[::-1, ::-1][..., o])", "y", "kernel flipped", "nothing is flipped"),
    Planted("conv_backward", "rows = slice(i * stride, i * stride + dilation * (U - 1) + 1, dilation)\n"
            "                columns = slice(j * stride, j * stride + dilation * (V - 1) + 1, dilation)",
            "rows = slice(i, i + dilation * (U - 1) + 1, dilation)\n"
            "                columns = slice(j, j + dilation * (V - 1) + 1, dilation)",
            "dL/dx", "stride forgotten", "zeros"),
    Planted("conv_backward", "return dx, dw, db", "return dx, dw / len(x), db", "dL/dw", "mean over the batch", "sum"),
    Planted("conv_backward", "db = g.sum(axis=0).sum(axis=0).sum(axis=0)", "db = g[0].sum(axis=0).sum(axis=0)", "dL/db",
            "first image alone", "over the batch"),
    Planted("conv_backward", "dp[:, rows, columns, part] +=", "dp[:, rows, columns, part] =", "dL/dx", "not added up",
            "in each of their outputs"),
    Planted("conv_forward", "first = o // (O // groups) * I", "first = o % groups * I", "y",
            "groups interleaved", "dealt out"),
    Planted("conv_forward", "return y + b", "return y", "y", "bias forgotten", "b is not added"),
    Planted("relu_backward", "dx[x <= 0] = 0", "dx[g <= 0] = 0", "dL/dx", "mask of the gradient", "sign of its input"),
    Planted("relu_backward", "dx[x <= 0] = 0", "dx[x < 0] = 0", "dL/dx", "gradient at zero", "compare by >"),
    Planted("max_pool_backward", "window.argmax()", "window.size - 1 - window[::-1, ::-1].argmax()", "dL/dx",
            "last of equal pixels", "it is the first"),
    Planted("max_pool_backward", "v, c] += g", "v, c] = g", "dL/dx", "not added up", "sum of their gradients"),
    Planted("max_pool_forward", "padding, -np.inf", "padding, 0.0", "y", "padding of zeros", "minus infinity"),
    Planted("average_pool_backward", "(g[:, i, j] / m)", "(g[:, i, j])", "dL/dx", "not divided", "1 / (size * size)"),
    Planted("average_pool_forward", "if counts_padding else", "if True else", "y", "padding always counted", "False"),
    Planted("softmax_cross_entropy_forward", "top = row.max()", "top = 0.0", "L", "softmax without shift", "largest"),
    Planted("softmax_cross_entropy_forward", " - np.log(np.sum(np.exp(row - top)))", "", "L", "not normalized",
            "log(sum"),
    Planted("softmax_cross_entropy_backward", "return d / B", "return d", "dL/dscores", "not divided by the batch",
            "1 / B"),
    Planted("softmax_cross_entropy_backward", "d = stable_softmax(scores) - smoothing / K",
            "d = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True) - smoothing / K", "dL/dscores",
            "softmax without shift", "overflows"),
    Planted("batch_norm_backward", " + dm / n", "", "dL/dx", "term of the mean forgotten", "mean(g)"),
    Planted("batch_norm_backward", " + dv * 2 / n * centered", "", "dL/dx", "term of the variance forgotten",
            "z mean(g z)"),
    Planted("batch_norm_backward", "dz * s + dv * 2 / n * centered + dm / n", "dz * s", "dL/dx",
            "both means forgotten", "constants"),
    Planted("batch_norm_forward", "np.mean(x, axis=(0, 1, 2)), np.var(x, axis=(0, 1, 2))",
            "np.mean(x, axis=(1, 2), keepdims=True), np.var(x, axis=(1, 2), keepdims=True)", "y", "each image by "
            "itself",
            "mean over the batch is forgotten"),
    Planted("layer_norm_backward", "jacobian @ (gamma * g[n, t])", "gamma * (jacobian @ g[n, t])", "dL/dx",
            "gamma outside the means", "g gamma"),
    Planted("layer_norm_forward", "axis=2, keepdims=True), x.var(axis=2",
            "axis=(1, 2), keepdims=True), x.var(axis=(1, 2)", "y", "over tokens and numbers", "each token"),
    Planted("attention_forward", " / q.shape[2] ** 0.5", "", "y", "missing 1 / sqrt(E)", "sqrt(E)"),
    Planted("attention_backward", "da, k) / root", "da, k)", "dL/dq", "missing 1 / sqrt(E)", "on its way back"),
    Planted("attention_backward", " - np.outer(p[n, t], p[n, t])", "", "dL/dq", "sum over the row forgotten", "sum 1"),
    Planted("attention_backward", '"nts,ntf->nsf", p, g', '"nts,nsf->ntf", p, g', "dL/dv",
            "weights not transposed", "P^T g"),
)  # fmt: skip


def fill(skeleton: str, planted: tuple[Planted, ...] = ()) -> str:
    """Returns a skeleton with every body filled in, right but for the planted mistakes."""
    bodies = {name: textwrap.dedent(body).strip() for name, body in BODIES.items()}
    for mistake in planted:
        body = BODIES[mistake.function]
        assert body.count(mistake.before) == 1, mistake
        bodies[mistake.function] = textwrap.dedent(body.replace(mistake.before, mistake.after)).strip()
    text = skeleton.replace("import numpy as np\n", f"import numpy as np\n\n{HELPERS}", 1)
    for name, body in bodies.items():
        head, signature, rest = text.partition(f"def {name}(")
        assert signature, name
        text = head + signature + rest.replace("    raise NotImplementedError", textwrap.indent(body, "    "), 1)
    return text
