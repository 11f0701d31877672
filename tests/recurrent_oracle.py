"""Recurrent layers in plain NumPy, in double precision: one sequence at a time, step by step."""

import numpy as np


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cell(kind, w, x, h, c):
    """The next (h, c) of one sequence; ``w`` maps PyTorch's names (without layer) to arrays."""
    zero = np.zeros(len(w["weight_ih"]))
    a = w["weight_ih"] @ x + w.get("bias_ih", zero)
    b = w["weight_hh"] @ h + w.get("bias_hh", zero)
    if kind == "tanh":
        return np.tanh(a + b), c
    if kind == "relu":
        return np.maximum(a + b, 0), c
    n = len(c)
    if kind == "gru":
        r, z = _sigmoid(a[:n] + b[:n]), _sigmoid(a[n : 2 * n] + b[n : 2 * n])
        candidate = np.tanh(a[2 * n :] + r * b[2 * n :])
        return (1 - z) * candidate + z * h, c
    s = a + b
    c = _sigmoid(s[n : 2 * n]) * c + _sigmoid(s[:n]) * np.tanh(s[2 * n : 3 * n])
    h = _sigmoid(s[3 * n :]) * np.tanh(c)
    return (w["weight_hr"] @ h if "weight_hr" in w else h), c


def network(kind, parameters, layers, directions, sequence, h0, c0):
    """Outputs [time, features] and last states of one sequence [time, features].

    ``h0``, ``c0`` [layers * directions, width]; ``parameters`` by PyTorch's names.
    """
    rows, hs, cs = list(sequence), [], []
    for depth in range(layers):
        columns = []
        for end in ["", "_reverse"][:directions]:
            tail = f"_l{depth}{end}"
            w = {k[: -len(tail)]: v for k, v in parameters.items() if k.endswith(tail)}
            h, c, made = h0[len(hs)], c0[len(hs)], []
            for x in rows[::-1] if end else rows:
                h, c = cell(kind, w, x, h, c)
                made.append(h)
            columns.append(made[::-1] if end else made)
            hs.append(h)
            cs.append(c)
        rows = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    return np.stack(rows), np.stack(hs), np.stack(cs)
