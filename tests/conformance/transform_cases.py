"""Transforms of functions, written for both libraries: see :mod:`tests.conformance.transforms`.

A case is a function of a :class:`Side` and of tensors, and the arrays that those hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RNG = np.random.default_rng(20261201)


@dataclass(frozen=True)
class Side:
    """A library, its transforms, and three models of each kind with the same state in both."""

    lib: Any
    func: Any
    models: dict[str, list[Any]]

    @property
    def functional(self) -> Any:
        """``nn.functional``."""
        return self.lib.nn.functional

    def weights(self, name: str) -> dict[str, Any]:
        """Parameters of the first model, without history."""
        return {k: p.detach() for k, p in self.models[name][0].named_parameters()}

    def eye(self, size: int) -> Any:
        """The unit matrix in double precision."""
        return self.lib.eye(size, dtype=self.lib.float64)


def draw(*shape: int) -> np.ndarray:
    """Normal numbers."""
    return RNG.standard_normal(shape)


def whole(high: int, *shape: int) -> np.ndarray:
    """Whole numbers below ``high``."""
    return RNG.integers(0, high, shape)


MODELS: dict[str, Callable[[Any], Any]] = {
    "images": lambda m: m.nn.Sequential(
        m.nn.Conv2d(1, 4, 3), m.nn.ReLU(), m.nn.MaxPool2d(2), m.nn.GroupNorm(2, 4),
        m.nn.Flatten(), m.nn.Linear(100, 10),
    ),
    "rows": lambda m: m.nn.Sequential(m.nn.Linear(5, 7), m.nn.Tanh(), m.nn.Linear(7, 3)),
    "words": lambda m: m.nn.Sequential(m.nn.Embedding(9, 6), m.nn.LayerNorm(6), m.nn.Linear(6, 4)),
    "statistics": lambda m: m.nn.BatchNorm1d(3),
    "attending": lambda m: m.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
}  # fmt: skip


def _sample_loss(s: Side, name: str) -> Any:
    model = s.models[name][0]

    def loss(weights: Any, x: Any, label: Any) -> Any:
        scores = s.func.functional_call(model, weights, (x.unsqueeze(0),))
        return s.functional.cross_entropy(scores, label.unsqueeze(0))

    return loss


def _per_sample(s: Side, x: Any, labels: Any) -> Any:
    slope = s.func.grad(_sample_loss(s, "images"))
    return s.func.vmap(slope, in_dims=(None, 0, 0))(s.weights("images"), x, labels)


def _in_chunks(s: Side, x: Any, labels: Any) -> Any:
    both = s.func.grad_and_value(_sample_loss(s, "rows"))
    return s.func.vmap(both, in_dims=(None, 0, 0), chunk_size=4)(s.weights("rows"), x, labels)


def _per_sentence(s: Side, words: Any, labels: Any) -> Any:
    model = s.models["words"][0]

    def loss(weights: Any, words: Any, label: Any) -> Any:
        scores = s.func.functional_call(model, weights, (words,)).mean(0)
        return s.functional.cross_entropy(scores, label)

    return s.func.vmap(s.func.grad(loss), (None, 0, 0))(s.weights("words"), words, labels)


def _attending(s: Side, x: Any) -> Any:
    model = s.models["attending"][0]

    def total(weights: Any, x: Any) -> Any:
        return s.func.functional_call(model, weights, (x.unsqueeze(0),)).pow(2).sum()

    return s.func.vmap(s.func.grad(total), (None, 0))(s.weights("attending"), x)


def _ensemble(s: Side, x: Any) -> Any:
    weights, buffers = s.func.stack_module_state(s.models["rows"])
    weights = {k: p.detach() for k, p in weights.items()}
    model = s.models["rows"][0]

    def scores(weights: Any, buffers: Any, x: Any) -> Any:
        return s.func.functional_call(model, (weights, buffers), (x,))

    each = s.lib.stack([x, 2 * x, 3 * x])
    whole_batch = s.func.vmap(scores, in_dims=(0, 0, None))(weights, buffers, x)
    return whole_batch, s.func.vmap(scores)(weights, buffers, each)


def _statistics(s: Side, x: Any) -> Any:
    model = s.models["statistics"][0]
    weights = {k: s.lib.stack([p.detach()] * 3) for k, p in model.named_parameters()}
    buffers = {k: s.lib.stack([b.clone()] * 3) for k, b in model.named_buffers()}

    def normed(weights: Any, buffers: Any, x: Any) -> Any:
        return s.func.functional_call(model, (weights, buffers), (x,))

    found = s.func.vmap(normed)(weights, buffers, x)
    return found, buffers["running_mean"], buffers["running_var"]


def _tangent_kernel(s: Side, x: Any, y: Any) -> Any:
    """The empirical neural tangent kernel: products of Jacobians by all weights."""
    model, weights = s.models["rows"][0], s.weights("rows")

    def scores(weights: Any, x: Any) -> Any:
        return s.func.functional_call(model, weights, (x,))

    jacobians = [s.func.vmap(s.func.jacrev(scores), (None, 0))(weights, z) for z in (x, y)]
    parts = [
        s.lib.einsum("naf,mbf->nmab", jacobians[0][k].flatten(2), jacobians[1][k].flatten(2))
        for k in weights
    ]
    return sum(parts[1:], parts[0])


def _captured(s: Side, x: Any, w: Any) -> Any:
    w = w.clone().requires_grad_()
    doubled = w * 2

    def function(a: Any) -> Any:
        with s.lib.no_grad():
            scale = (a @ doubled).sum()
        return (a @ doubled) * scale + (a @ w).detach() * w.sum()

    return s.lib.autograd.grad(s.func.vmap(function)(x).pow(2).sum(), w)


def _written(s: Side, x: Any) -> Any:
    x = x.clone()
    s.func.vmap(lambda a: a.mul_(2)[0], in_dims=1)(x)
    return x


def _adapted(s: Side, x: Any, y: Any) -> Any:
    """A step of learning to learn: the gradient through a step of gradient descent."""
    model = s.models["rows"][0]

    def loss(weights: Any, x: Any, y: Any) -> Any:
        return (s.func.functional_call(model, weights, (x,)) - y).pow(2).mean()

    def after(weights: Any, x: Any, y: Any) -> Any:
        slopes = s.func.grad(loss)(weights, x[:3], y[:3])
        moved = {k: w - 0.1 * slopes[k] for k, w in weights.items()}
        return loss(moved, x[3:], y[3:])

    def total(weights: Any) -> Any:
        return s.func.vmap(after, (None, 0, 0))(weights, x, y).mean()

    return s.func.grad(total)(s.weights("rows"))


def _map(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``function(side, *entries)`` on all entries."""

    def case(s: Side, *operands: Any) -> Any:
        return s.func.vmap(lambda *own: function(s, *own), **options)(*operands)

    return case


SQUARE, ROWS = draw(4, 3, 3), draw(4, 5)
CASES: dict[str, tuple[Any, ...]] = {
    "gradients_of_samples": (_per_sample, draw(6, 1, 12, 12), whole(10, 6)),
    "in_chunks": (_in_chunks, draw(6, 5), whole(3, 6)),
    "gradients_of_sentences": (_per_sentence, whole(9, 5, 7), whole(4, 5)),
    "gradients_through_attention": (_attending, draw(3, 5, 8)),
    "ensemble": (_ensemble, draw(6, 5)),
    "statistics": (_statistics, draw(3, 5, 3)),
    "tangent_kernel": (_tangent_kernel, draw(4, 5), draw(3, 5)),
    "adapted": (_adapted, draw(4, 6, 5), draw(4, 6, 3)),
    "captured": (_captured, draw(4, 3), draw(3, 2)),
    "written": (_written, ROWS),
    "jacrev": (lambda s, x: s.func.jacrev(lambda a: s.lib.tanh(a).sum(0) * a)(x), SQUARE[0]),
    "jacfwd": (lambda s, x: s.func.jacfwd(lambda a: s.lib.tanh(a).sum(0) * a)(x), SQUARE[0]),
    "hessian": (lambda s, x: s.func.hessian(lambda a: (a.sin() * a.sum()).sum())(x), ROWS[0]),
    "jacobians_of_entries": (
        lambda s, x: s.func.vmap(s.func.jacrev(lambda a: a.sin() * a.sum()))(x),
        ROWS,
    ),
    "hessians_of_entries": (
        lambda s, x: s.func.vmap(s.func.hessian(lambda a: (a.sin() * a.prod()).sum()))(x),
        ROWS,
    ),
    "along_directions": (
        lambda s, x: s.func.vmap(lambda v: s.func.jvp(lambda z: z.sin() * z.sum(), (x[0],), (v,)))(
            x
        ),
        ROWS,
    ),
    "entries_of_entries": (
        lambda s, x, y: s.func.vmap(s.func.vmap(s.lib.dot, (None, 0)), (0, None))(x, y),
        ROWS,
        draw(3, 5),
    ),
    "through_entries": (
        lambda s, x, w: s.func.grad(
            lambda w: s.func.vmap(lambda a: s.lib.tanh(a @ w).sum())(x).pow(2).sum()
        )(w),
        draw(4, 3),
        draw(3, 2),
    ),
    "dimensions": (_map(lambda s, a: (a * 2, a.cumsum(0)), in_dims=-1, out_dims=(1, -1)), ROWS),
    "keywords": (lambda s, x, y: s.func.vmap(lambda a, b=None: a * b)(x, b=y), ROWS, ROWS),
    "constants": (_map(lambda s, a: (a, s.eye(2), a.new_ones(3))), ROWS),
    "embedding": (
        _map(lambda s, i, w: s.functional.embedding(i, w)),
        whole(6, 4, 3),
        draw(4, 6, 2),
    ),
    "index": (
        _map(lambda s, x, i: (x[i], x.gather(0, i.unsqueeze(1)))),
        draw(4, 5, 2),
        whole(5, 4, 3),
    ),
    "choices": (_map(lambda s, x: s.lib.where(x > 0, x.clamp(max=1), x.max(0).values)), SQUARE),
    "order": (_map(lambda s, x: (x.sort(0).values, x.topk(2).values, x.argmax(0))), ROWS),
    "in_place": (_map(lambda s, x: (x * 1).add_(x).mul_(2)), ROWS),
    "equations": (
        _map(lambda s, x: (s.lib.linalg.solve(x @ x.T + 3 * s.eye(3), x), s.lib.linalg.det(x))),
        SQUARE,
    ),
    "factorisations": (
        _map(
            lambda s, x: (
                s.lib.linalg.cholesky(x @ x.T + 2 * s.eye(3)),
                s.lib.linalg.eigvalsh(x + x.T),
                s.lib.linalg.svdvals(x),
                s.lib.linalg.pinv(x),
            )
        ),
        SQUARE,
    ),
    "products": (
        _map(lambda s, x, y: (s.lib.einsum("ij,kj->ki", x, y), x @ y[0], s.lib.outer(x[0], y[1]))),
        SQUARE,
        SQUARE[::-1].copy(),
    ),
    "layer_norm": (_map(lambda s, x: s.functional.layer_norm(x, (3,))), SQUARE),
    "own_kernels": (
        _map(lambda s, x, w: s.functional.conv1d(x, w, padding=1, stride=2)),
        draw(4, 2, 3, 9),
        draw(4, 5, 3, 3),
    ),
    "one_image": (
        _map(lambda s, x, w: s.functional.conv2d(x, w), in_dims=(None, 0)),
        draw(2, 3, 7, 7),
        draw(4, 5, 3, 3, 3),
    ),
    "groups": (
        _map(lambda s, x, w: s.functional.conv2d(x, w, groups=3), in_dims=(None, 0)),
        draw(2, 3, 7, 7),
        draw(4, 6, 1, 3, 3),
    ),
    "attention": (
        _map(lambda s, x: s.functional.scaled_dot_product_attention(x, x, x, is_causal=True)),
        draw(4, 2, 5, 3),
    ),
    "resizing": (
        _map(
            lambda s, x: s.functional.interpolate(
                s.functional.avg_pool2d(x, 2), scale_factor=2, mode="bilinear"
            )
        ),
        draw(4, 1, 2, 6, 6),
    ),
    "spectra": (_map(lambda s, x: s.lib.fft.rfft(x).abs()), draw(4, 8)),
    "joined": (
        _map(lambda s, x, y: s.lib.cat([x, y, s.lib.stack([x[0], y[0]])])),
        SQUARE,
        SQUARE * 2,
    ),
    "losses": (
        _map(
            lambda s, a: (
                s.functional.mse_loss(a, a * 2),
                s.functional.binary_cross_entropy_with_logits(a, (a > 0).double()),
                s.functional.kl_div(a.log_softmax(0), a.softmax(0), reduction="sum"),
            )
        ),
        ROWS,
    ),
    "spreads": (
        _map(lambda s, x: (x.var(), x.std(0), x.norm(), s.lib.linalg.vector_norm(x, dim=1))),
        SQUARE,
    ),
}
