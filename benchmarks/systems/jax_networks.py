"""The sequence models as JAX functions of parameters by name, with Adam written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.networks import Language, Network, Recurrent
from benchmarks.systems import Prepared


def prepare(workload: Network) -> Prepared:
    """Training steps under ``jit``; a call waits for the parameters."""
    parameters: Any = {name: jnp.asarray(value) for name, value in workload.parameters().items()}
    inputs, targets = (jnp.asarray(a) for a in workload.data())
    forward = language if isinstance(workload, Language) else recurrent
    decay = workload.weight_decay if isinstance(workload, Language) else 0.0

    def loss_of(parameters: Any) -> Any:
        scores = jax.nn.log_softmax(forward(workload, parameters, inputs))
        return -jnp.mean(jnp.take_along_axis(scores, targets[:, None], 1))

    @jax.jit
    def step(parameters: Any, slots: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters)
        return *adam(parameters, slots, gradients, workload.lr, decay), loss

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = [parameters, (zeros, zeros, jnp.zeros(()))]

    def call() -> Any:
        state[0], state[1], loss = step(*state)
        jax.block_until_ready(state[0])
        return loss.block_until_ready()

    return Prepared(call, np.asarray)


def adam(parameters: Any, slots: Any, gradients: Any, lr: float, decay: float) -> tuple[Any, Any]:
    """Adam with decoupled weight decay: new parameters and slots."""
    first, second, count = slots
    count = count + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)

    def update(p: Any, m: Any, v: Any) -> Any:
        root = jnp.sqrt(v / (1 - 0.999**count)) + 1e-8
        return p * (1 - lr * decay) - lr * (m / (1 - 0.9**count)) / root

    return jax.tree.map(update, parameters, first, second), (first, second, count)


def _linear(p: Any, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _norm(p: Any, name: str, x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def language(workload: Any, p: Any, tokens: Any) -> Any:
    """Scores ``[batch * length, vocabulary]``."""
    batch, length, d, heads = *tokens.shape, workload.width, workload.heads
    mask = jnp.tril(jnp.ones((length, length), bool))
    x = p["tokens.weight"][tokens] + p["places.weight"]
    for layer in range(workload.layers):
        at = f"blocks.{layer}"
        z = _linear(p, f"{at}.qkv", _norm(p, f"{at}.norm1", x))
        q, k, v = z.reshape(batch, length, 3, heads, d // heads).transpose(2, 0, 3, 1, 4)
        scores = jnp.where(mask, q @ k.swapaxes(-1, -2) / math.sqrt(d // heads), -jnp.inf)
        y = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(batch, length, d)
        x = x + _linear(p, f"{at}.out", y)
        hidden = jax.nn.gelu(_linear(p, f"{at}.up", _norm(p, f"{at}.norm2", x)))
        x = x + _linear(p, f"{at}.down", hidden)
    return (_norm(p, "norm", x) @ p["head.weight"].T).reshape(batch * length, -1)


def recurrent(workload: Recurrent, p: Any, inputs: Any) -> Any:
    """Scores ``[batch, classes]``; the input product of all steps is one."""
    x = inputs.transpose(1, 0, 2)
    start = jnp.zeros((workload.batch, workload.hidden))
    for layer in range(workload.layers):
        weight, bias = p[f"lstm.weight_hh_l{layer}"], p[f"lstm.bias_hh_l{layer}"]
        gates = x @ p[f"lstm.weight_ih_l{layer}"].T + p[f"lstm.bias_ih_l{layer}"] + bias
        _, x = lax.scan(_cell(weight), (start, start), gates)
    return _linear(p, "head", x[-1])


def _cell(weight: Any) -> Callable[..., Any]:
    def cell(carry: Any, gates: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(gates + h @ weight.T, 4, 1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return cell
