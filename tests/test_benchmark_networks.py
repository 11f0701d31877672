"""The sequence models of the benchmark suite mean what they say."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from benchmarks.networks import Language, Recurrent
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


def first_recurrent_loss(w: Recurrent) -> float:
    """Of the first parameters, by hand in float64."""
    p = {name: value.astype(float) for name, value in w.parameters().items()}
    inputs, targets = w.data()
    x = inputs.astype(float).transpose(1, 0, 2)
    for layer in range(w.layers):
        h = c = np.zeros((w.batch, w.hidden))
        states = []
        for step in x:
            z = step @ p[f"lstm.weight_ih_l{layer}"].T + h @ p[f"lstm.weight_hh_l{layer}"].T
            z += p[f"lstm.bias_ih_l{layer}"] + p[f"lstm.bias_hh_l{layer}"]
            i, f, g, o = np.split(z, 4, 1)
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
            states.append(h)
        x = np.stack(states)
    out = x[-1] @ p["head.weight"].T + p["head.bias"]
    chosen = out[np.arange(len(targets)), targets]
    return float((np.log(np.exp(out).sum(1)) - chosen).mean())


def test_recurrent_model() -> None:
    small = Recurrent("small", batch=3, length=6, inputs=4, hidden=5)
    found = {}
    for system in ("eager", "static"):
        prepared = prepare(system, small, 2)
        found[system] = [float(prepared.read(prepared.call())) for _ in range(5)]
    np.testing.assert_allclose(found["eager"][0], first_recurrent_loss(small), rtol=1e-5)
    np.testing.assert_allclose(found["static"], found["eager"], rtol=1e-5)
    assert found["eager"][4] < found["eager"][0]
