"""The convolution networks as JAX functions of parameters by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.images import STAGES, Digits, Images, Residual
from benchmarks.systems import Prepared


def prepare(workload: Images) -> Prepared:
    """Steps of SGD, or scores, under ``jit``; a call waits for its results."""
    parameters: Any = {
        name: jnp.asarray(value)
        for name, value in workload.parameters().items()
        if value.dtype == np.float32
    }
    inputs, targets = (jnp.asarray(a) for a in workload.data())
    forward: Callable[..., Any] = digits if isinstance(workload, Digits) else residual
    if isinstance(workload, Residual) and not workload.training:
        scores = jax.jit(lambda parameters, x: forward(workload, parameters, x))
        return Prepared(lambda: scores(parameters, inputs).block_until_ready(), np.asarray)

    def loss_of(parameters: Any) -> Any:
        scores = jax.nn.log_softmax(forward(workload, parameters, inputs))
        return -jnp.mean(jnp.take_along_axis(scores, targets[:, None], 1))

    @jax.jit
    def step(parameters: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters)
        return jax.tree.map(lambda p, g: p - workload.lr * g, parameters, gradients), loss

    state = [parameters]

    def call() -> Any:
        state[0], loss = step(state[0])
        jax.block_until_ready(state[0])
        return loss.block_until_ready()

    return Prepared(call, np.asarray)


def _convolve(x: Any, weight: Any, stride: int = 1) -> Any:
    side = weight.shape[-1] // 2
    form = ("NCHW", "OIHW", "NCHW")
    return lax.conv_general_dilated(
        x, weight, (stride, stride), [(side, side)] * 2, dimension_numbers=form
    )


def _pool(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def _linear(p: Any, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def digits(workload: Any, p: Any, x: Any) -> Any:
    """Scores ``[batch, classes]``."""
    for name in ("conv1", "conv2"):
        bias = p[f"{name}.bias"][:, None, None]
        x = _pool(jax.nn.relu(_convolve(x, p[f"{name}.weight"]) + bias))
    return _linear(p, "head", jax.nn.relu(_linear(p, "hidden", x.reshape(len(x), -1))))


def residual(workload: Any, p: Any, x: Any) -> Any:
    """Scores ``[batch, classes]``; training normalises by the batch and keeps no statistics."""

    def layer(name: str, x: Any, stride: int = 1) -> Any:
        x = _convolve(x, p[f"{name}.weight"], stride)
        norm = name.replace("conv", "norm")
        if workload.training:
            mean = x.mean((0, 2, 3))
            variance = ((x - mean[:, None, None]) ** 2).mean((0, 2, 3))
        else:
            mean, variance = p[f"{norm}.running_mean"], p[f"{norm}.running_var"]
        scale = lax.rsqrt(variance + 1e-5) * p[f"{norm}.weight"]
        shift = p[f"{norm}.bias"] - mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    x = jax.nn.relu(layer("stem.conv", x))
    for block, (_, stride) in enumerate(STAGES):
        at = f"blocks.{block}"
        y = jax.nn.relu(layer(f"{at}.conv1", x, stride))
        short = f"{at}.short.conv"
        x = jax.nn.relu(
            layer(f"{at}.conv2", y) + (layer(short, x, stride) if f"{short}.weight" in p else x)
        )
    return _linear(p, "head", x.mean((2, 3)))
