"""The sequence models of the benchmark suite mean what they say."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from benchmarks.networks import Language
from benchmarks.systems import prepare
from benchmarks.workloads import WORKLOADS


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Benchmarks choose a thread count; put it back."""
    before = gf.get_num_threads()
    yield
    gf.set_num_threads(before)


SMALL = Language("small", layers=2, batch=3, length=5, width=12, heads=3, vocabulary=11)


def _norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def first_loss(w: Language) -> float:
    """Of the first parameters, by hand in float64 (weights of normalisations are 1)."""
    p = {name: value.astype(float) for name, value in w.parameters().items()}
    tokens, targets = w.data()
    x = p["tokens.weight"][tokens] + p["places.weight"]
    size = w.width // w.heads
    for at in (f"blocks.{layer}" for layer in range(w.layers)):
        q, k, v = np.split(_norm(x) @ p[f"{at}.qkv.weight"].T, 3, -1)
        y = np.empty_like(x)
        for b, h, i in np.ndindex(w.batch, w.heads, w.length):
            head = np.s_[h * size : (h + 1) * size]
            e = np.exp(k[b, : i + 1, head] @ q[b, i, head] / math.sqrt(size))
            y[b, i, head] = e / e.sum() @ v[b, : i + 1, head]
        x = x + y @ p[f"{at}.out.weight"].T
        u = _norm(x) @ p[f"{at}.up.weight"].T
        u = 0.5 * u * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        x = x + u @ p[f"{at}.down.weight"].T
    out = (_norm(x) @ p["head.weight"].T).reshape(len(targets), -1)
    chosen = out[np.arange(len(targets)), targets]
    return float((np.log(np.exp(out).sum(1)) - chosen).mean())


def test_language_model() -> None:
    found = {}
    for system in ("eager", "static"):
        prepared = prepare(system, SMALL, 2)
        found[system] = [float(prepared.read(prepared.call())) for _ in range(5)]
    np.testing.assert_allclose(found["eager"][0], first_loss(SMALL), rtol=1e-5)
    np.testing.assert_allclose(found["static"], found["eager"], rtol=1e-5)
    assert found["eager"][4] < found["eager"][0]


def test_floor_of_the_language_model() -> None:
    # Products of a token in a layer: 3 d² + d² + 4 d² + 4 d², and two with all positions.
    block, head = 12 * 128**2 + 2 * 64 * 128, 65 * 128
    assert WORKLOADS["gpt"].flops == 3 * 2 * 8 * 64 * (4 * block + head)
