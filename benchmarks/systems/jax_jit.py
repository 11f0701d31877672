"""The workloads as JAX functions under ``jit``; a call waits for its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.convolutions import Convolution
from benchmarks.images import Images
from benchmarks.systems import Prepared, jax_images, jax_networks
from benchmarks.workloads import Expression, Training, Workload


def _layernorm(x: Any, w: Any, b: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return jax.nn.gelu((x - mean) * jax.lax.rsqrt(variance + 1e-5) * w + b, approximate=False)


EXPRESSIONS: dict[str, Callable[..., Any]] = {
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)) * 0.5 + 1,
    "softmax": lambda x: jax.nn.softmax(x * 0.125),
    "layernorm": _layernorm,
    "matmul": lambda a, b: a @ b,
}


def prepare(workload: Workload, threads: int) -> Prepared:
    """The workload under ``jit`` (the thread count is the process's, see ``environment``)."""
    if isinstance(workload, Expression):
        function = jax.jit(EXPRESSIONS[workload.kind])
        inputs = [jnp.asarray(a) for a in workload.inputs()]
        return Prepared(lambda: function(*inputs).block_until_ready(), np.asarray)
    if isinstance(workload, Convolution):
        raise NotImplementedError("single convolutions are measured beside PyTorch")
    if isinstance(workload, Training):
        return _training(workload)
    if isinstance(workload, Images):
        return jax_images.prepare(workload)
    return jax_networks.prepare(workload)


def _training(workload: Training) -> Prepared:
    parameters = [(jnp.asarray(w), jnp.asarray(b)) for w, b in workload.parameters()]
    slots = jax.tree.map(jnp.zeros_like, parameters) if workload.momentum else ()
    inputs, targets = (jnp.asarray(a) for a in workload.data())

    def loss_of(parameters: Any) -> Any:
        x = inputs
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = parameters[-1]
        x = x @ weight + bias
        if workload.loss == "mse":
            return jnp.mean((x - targets) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), targets[:, None], 1))

    @jax.jit
    def step(parameters: Any, slots: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters)
        if workload.momentum:
            slots = jax.tree.map(lambda m, g: workload.momentum * m + g, slots, gradients)
            gradients = slots
        updated = jax.tree.map(lambda p, g: p - workload.lr * g, parameters, gradients)
        return updated, slots, loss

    state = [parameters, slots]

    def call() -> Any:
        state[0], state[1], loss = step(*state)
        jax.block_until_ready(state[0])
        return loss.block_until_ready()

    return Prepared(call, np.asarray)
