"""Helpers of the front's tests: one program run eagerly and compiled, and traces counted."""

from __future__ import annotations

import numpy as np

import graphflow as gf
from graphflow import nn


def numbers(value):
    """Any nest of tensors and numbers as a flat list of arrays."""
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in numbers(item)]
    if isinstance(value, dict):
        return numbers(list(value.values()))
    if isinstance(value, gf.Tensor):
        return [value.detach().numpy().copy()]
    return [np.asarray(value)]


def agree(program, rtol=2e-6, atol=1e-6):
    """``program(jit)`` gives the same numbers with ``jit`` doing nothing and with gf.compile."""
    gf.manual_seed(11)
    expected = numbers(program(lambda f: f))
    gf.manual_seed(11)
    got = numbers(program(gf.compile))
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    return got


class Counted:
    """A function that counts how often Python runs it: once a trace when compiled."""

    def __init__(self, function):
        self.function, self.runs = function, 0
        self.__name__ = function.__name__

    def __call__(self, *args, **kwargs):
        self.runs += 1
        return self.function(*args, **kwargs)


def ramp(*shape, scale=1.0, offset=0.0, dtype=gf.float32):
    """Fixed, uneven numbers in [-1, 1) times ``scale`` plus ``offset``."""
    count = int(np.prod(shape))
    values = np.sin(np.arange(count) * 1.7 + 0.3) * scale + offset
    return gf.tensor(values.reshape(shape), dtype=dtype)


def linear(inputs=4, outputs=3):
    """A linear layer whose parameters are always the same."""
    layer = nn.Linear(inputs, outputs)
    with gf.no_grad():
        layer.weight.copy_(ramp(outputs, inputs, scale=0.5))
        layer.bias.copy_(ramp(outputs, scale=0.1))
    return layer


def training_step(model, optimizer, jit, loss=None, **options):
    """The usual step over ``model(x)``; the loss is the mean square unless given."""
    measure = loss or (lambda out: (out * out).mean())

    def step(x):
        optimizer.zero_grad()
        value = measure(model(x))
        value.backward()
        optimizer.step()
        return value

    return jit(step, **options)
