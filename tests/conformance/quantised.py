"""``python -m tests.conformance.quantised``: layers of 8-bit integers beside PyTorch's.

Each row makes the same model on both sides, with the same weights, and says how far the results
are apart, as a part of the largest number, and how far each is from the model of numbers: ours must
not be further.  Observers are given, so that scales are the same, but PyTorch rounds what comes
into dynamic layers to 7 bits and what comes out of static ones once more.  Then the functions of
integers, which must agree but where two integers are equally near.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

import graphflow as gf

SEED = 3


class Row(NamedTuple):
    """A model in words that both sides share, what it is given, and how near they must be."""

    name: str
    make: Callable[[Any], Any]
    given: tuple[Any, ...]
    apart: float


def _numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)


def _static(layer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Calibrated by least and greatest numbers."""

    def make(t: Any) -> Any:
        q = t.ao.quantization
        model = q.QuantWrapper(t.nn.Sequential(layer(t))).eval()
        model.qconfig = q.QConfig(
            activation=q.MinMaxObserver.with_args(dtype=t.quint8),
            weight=q.PerChannelMinMaxObserver.with_args(
                dtype=t.qint8, qscheme=t.per_channel_symmetric
            ),
        )
        return model

    return make


def _branches(t: Any) -> Any:
    """Two layers side by side, whose results are added up."""

    class Branches(t.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = t.nn.Conv2d(4, 6, 3, padding=1), t.nn.Conv2d(4, 6, 1)
            self.own = t.ao.nn.quantized.FloatFunctional()

        def forward(self, x: Any) -> Any:
            return self.own.add_relu(self.one(x), self.two(x))

    return Branches()


def _dynamic(layer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda t: t.nn.Sequential(layer(t)).eval()


def rows() -> Iterator[Row]:
    """All comparisons."""
    index = np.random.default_rng(SEED).integers(0, 20, (4, 6))
    table = _dynamic(lambda t: t.nn.Embedding(20, 8))
    yield Row("tables: embedding", table, (index,), 1e-6)
    bag = _dynamic(lambda t: t.nn.EmbeddingBag(20, 8, mode="sum"))
    yield Row("tables: embedding bag", bag, (index,), 1e-6)
    linear = lambda t: t.nn.Linear(24, 10)  # noqa: E731
    yield Row("dynamic: linear", _dynamic(linear), (_numbers(5, 24),), 0.03)
    for name in ("LSTMCell", "GRUCell", "RNNCell"):
        cell = _dynamic(lambda t, n=name: getattr(t.nn, n)(24, 16))
        yield Row(f"dynamic: {name}", cell, (_numbers(5, 24),), 0.03)
    wide = _dynamic(lambda t: t.nn.Linear(257, 130))
    yield Row("dynamic: linear of packed weights", wide, (_numbers(64, 257),), 0.03)
    lstm = _dynamic(lambda t: t.nn.LSTM(24, 64))
    yield Row("dynamic: LSTM", lstm, (_numbers(7, 5, 24),), 0.04)
    yield Row("static: linear", _static(linear), (_numbers(64, 24),), 0.03)
    conv = lambda t: t.nn.Conv2d(4, 6, 3, 2, 1, groups=2)  # noqa: E731
    images = (_numbers(8, 4, 9, 9),)
    yield Row("static: convolution", _static(conv), images, 0.03)
    yield Row("static: a sum of branches", _static(_branches), images, 0.03)
    pools = {
        "windows": lambda t: t.nn.AvgPool2d(3, 2, 1),
        "all": lambda t: t.nn.AdaptiveAvgPool2d(1),
    }
    for name, pool in pools.items():
        both = lambda t, p=pool: t.nn.Sequential(conv(t), p(t))  # noqa: E731
        yield Row(f"static: averages of {name}", _static(both), images, 0.03)


def _quantised(t: Any, how: str, model: Any, given: Any) -> Any:
    q, nn = t.ao.quantization, t.nn
    if how == "static":
        prepared = q.prepare(model)
        prepared(*given)
        return q.convert(prepared)
    tables = q.float_qparams_weight_only_qconfig
    spec = {nn.Embedding: tables, nn.EmbeddingBag: tables} if how == "tables" else None
    return q.quantize_dynamic(model, spec)


def apart(row: Row) -> tuple[float, float, float]:
    """How far we are from PyTorch, we from the model of numbers, and PyTorch is."""
    results = []
    theirs = row.make(torch)
    ours = row.make(gf)
    ours.load_state_dict({k: gf.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    for t, model in ((torch, theirs), (gf, ours)):
        given = [t.tensor(x) for x in row.given]
        made = _quantised(t, row.name.partition(":")[0], model, given)
        for each in (made, model):
            with t.no_grad():
                found = each(*given)
            found = found[0] if isinstance(found, tuple) else found
            results.append(np.asarray(found.detach().numpy()))
    quantised, exact, own, _ = results
    pairs = ((own, quantised), (own, exact), (quantised, exact))
    one, two, three = (float(np.abs(a - b).max() / np.abs(exact).max()) for a, b in pairs)
    return one, two, three


FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "linear": lambda f, x, w: f.linear(x(6, 12), w(5, 12), None, 0.2, 100),
    "conv1d": lambda f, x, w: f.conv1d(
        x(2, 4, 9), w(6, 4, 3), None, 2, 1, scale=0.2, zero_point=90
    ),
    "conv2d": lambda f, x, w: f.conv2d(
        x(2, 4, 8, 9), w(6, 2, 3, 3), None, 1, (1, 2), 2, 2, scale=0.2, zero_point=90
    ),
    "max_pool1d": lambda f, x, w: f.max_pool1d(x(2, 3, 9), 3, 2, 1),
    "max_pool2d": lambda f, x, w: f.max_pool2d(x(2, 3, 9, 8), 3, 2, 1),
    "avg_pool2d": lambda f, x, w: f.avg_pool2d(x(2, 3, 9, 8), 3, 2, 1),
    "avg_pool2d of members": lambda f, x, w: f.avg_pool2d(x(2, 3, 9, 8), 3, 2, 1, True, False),
    "avg_pool3d": lambda f, x, w: f.avg_pool3d(x(2, 3, 4, 6, 4), 2),
    "adaptive_avg_pool2d": lambda f, x, w: f.adaptive_avg_pool2d(x(2, 3, 8, 6), (2, 3)),
    "adaptive_avg_pool2d, uneven": lambda f, x, w: f.adaptive_avg_pool2d(x(2, 3, 8, 7), (3, 3)),
    "clamp": lambda f, x, w: f.clamp(x(4, 5), -0.7, 1.1),
    "hardtanh": lambda f, x, w: f.hardtanh(x(4, 5)),
    "threshold": lambda f, x, w: f.threshold(x(4, 5), 0.3, -0.4),
    "leaky_relu": lambda f, x, w: f.leaky_relu(x(4, 5), 0.1),
    "leaky_relu, another range": lambda f, x, w: f.leaky_relu(x(4, 5), 0.1, False, 0.05, 40),
    "hardswish": lambda f, x, w: f.hardswish(x(4, 5), 0.03, 20),
    "elu": lambda f, x, w: f.elu(x(4, 5), 0.03, 50, 0.7),
    "celu": lambda f, x, w: f.celu(x(4, 5), 0.03, 50, 0.7),
    "hardsigmoid": lambda f, x, w: f.hardsigmoid(x(4, 5)),
    "interpolate": lambda f, x, w: f.interpolate(x(2, 3, 4, 5), scale_factor=2),
    "upsample_bilinear": lambda f, x, w: f.upsample_bilinear(x(2, 3, 4, 5), (7, 9)),
}


def functions() -> Iterator[tuple[str, int, float]]:
    """Of ``nn.quantized.functional``: the name, steps apart, and the part that is apart."""
    for name, call in FUNCTIONS.items():
        found = []
        for t in (torch, gf):

            def x(*shape: int, t: Any = t) -> Any:
                return t.quantize_per_tensor(t.tensor(_numbers(*shape)), 0.031, 110, t.quint8)

            def w(*shape: int, t: Any = t) -> Any:
                return t.quantize_per_tensor(t.tensor(_numbers(*shape)), 0.02, 0, t.qint8)

            made = call(t.ao.nn.quantized.functional, x, w)
            found.append((made.int_repr().numpy().astype(int), made.q_scale(), made.q_zero_point()))
        (theirs, *own), (ours, *same) = found
        assert own == same, f"{name}: of range {same}, not {own}"
        apart = np.abs(theirs - ours)
        yield name, int(apart.max()), float((apart > 0).mean())


def main() -> int:
    """Print every row; 1 when one is too far apart."""
    warnings.simplefilter("ignore")
    torch.manual_seed(SEED)
    failed = 0
    for row in rows():
        between, own, theirs = apart(row)
        wrong = not (between <= row.apart and 0 < own < 1.2 * theirs)
        failed += wrong
        text = f"{between:.1e} apart; {own:.1e} from numbers, PyTorch's {theirs:.1e}"
        print(f"{row.name}: {text}{' FAILED' if wrong else ''}")
    for name, steps, part in functions():
        wrong = steps > 1 or part > 0.1
        failed += wrong
        print(f"{name}: {steps} steps apart at most, {part:.0%} apart{' FAILED' if wrong else ''}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
