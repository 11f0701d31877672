"""One step of a recurrent cell, and a whole layer of them over time.

The formulas are those of PyTorch's ``RNN``, ``GRU`` (Cho et al. 2014, with the reset gate
after the recurrent product) and ``LSTM`` (Hochreiter and Schmidhuber 1997; projections: Sak
et al. 2014); gates lie one after the other, r z n and i f g o.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphflow.eager_functions import as_a_whole
from graphflow.functions.control import scan
from graphflow.functions.creation import from_numpy
from graphflow.functions.elementwise import relu, sigmoid, tanh, where
from graphflow.functions.picking import index_select
from graphflow.functions.products import matmul
from graphflow.functions.shaping import t
from graphflow.nn.functional.linear import linear
from graphflow.promotion import cast
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor

__all__: list[str] = []

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3, "LSTM": 4}
"""Blocks of ``hidden_size`` rows in the weights of a kind of cell."""

Product = Callable[..., Tensor]
State = tuple[Tensor, ...]
"""(h,), or (h, c) of an LSTM."""


class Weights(NamedTuple):
    """The parameters of one direction of one layer, under PyTorch's names less ``_l<k>``.

    A weight may be a function, which multiplies rows by a weight and adds a bias if given.
    """

    weight_ih: Tensor | Product
    weight_hh: Tensor | Product
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    weight_hr: Tensor | Product | None


def _times(rows: Tensor, weight: Tensor | Product) -> Tensor:
    return matmul(rows, t(weight)) if isinstance(weight, Tensor) else weight(rows)


def input_product(kind: str, rows: Tensor, weights: Weights) -> Tensor:
    """What the input gives to every gate, [..., gates * hidden]: of all time steps at once."""
    bias = weights.bias_ih
    if bias is not None and weights.bias_hh is not None and kind != "GRU":
        bias = bias + weights.bias_hh
    if not isinstance(weights.weight_ih, Tensor):
        return weights.weight_ih(rows, bias)
    return linear(rows, weights.weight_ih, bias)


def step(kind: str, given: Tensor, state: State, weights: Weights) -> State:
    """The next state, from the input's product [batch, gates * hidden] and the state before."""
    h = state[0]
    own = _times(h, weights.weight_hh)
    if kind == "LSTM":
        made = _lstm(given, own, state[1], weights.weight_hr)
    elif kind == "GRU":
        made = (_gru(given, own, h, weights.bias_hh),)
    else:
        made = ((relu if kind == "RNN_RELU" else tanh)(given + own),)
    # In autocast products are halves; the state keeps its dtype from step to step.
    return tuple(cast(new, old.dtype) for new, old in zip(made, state, strict=True))


def _lstm(given: Tensor, own: Tensor, c: Tensor, weight_hr: Tensor | Product | None) -> State:
    i, f, g, o = (given + own).chunk(4, 1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return (h if weight_hr is None else _times(h, weight_hr)), c


def _gru(given: Tensor, own: Tensor, h: Tensor, bias: Tensor | None) -> Tensor:
    if bias is not None:
        own = own + bias
    (r, z, n), (own_r, own_z, own_n) = given.chunk(3, 1), own.chunk(3, 1)
    n = tanh(n + sigmoid(r + own_r) * own_n)
    made: Tensor = n + sigmoid(z + own_z) * (h - n)
    return made


@as_a_whole()
def layer(
    kind: str, inputs: Tensor, state: State, weights: Weights, reverse: bool,
    sizes: Sequence[int] | None,
) -> tuple[Tensor, State]:  # fmt: skip
    """One direction of one layer over time: every step's h, and the last state.

    ``inputs`` [time, batch, features]; with ``sizes`` (how many sequences reach each time
    step, never more than before) packed rows [sum of sizes, features].
    """
    given = input_product(kind, inputs, weights)
    if sizes is None or len(set(sizes)) == 1:
        steps = given if sizes is None else given.reshape(len(sizes), sizes[0], -1)
        last, hs = scan(lambda s, x: _unmasked(kind, x, s, weights), state, steps, reverse=reverse)
        return (hs if sizes is None else hs.reshape(-1, hs.shape[-1])), last
    padded, here = pad_rows(given, sizes, 0.0)

    def masked(state: State, x: tuple[Tensor, Tensor]) -> tuple[State, Tensor]:
        made = step(kind, x[0], state, weights)
        kept = tuple(where(x[1], new, old) for new, old in zip(made, state, strict=True))
        return kept, kept[0]

    last, hs = scan(masked, state, (padded, here), reverse=reverse)
    return take_rows(hs, sizes), last


def _unmasked(kind: str, given: Tensor, state: State, weights: Weights) -> tuple[State, Tensor]:
    made = step(kind, given, state, weights)
    return made, made[0]


# ---- packed rows ---------------------------------------------------------------------


def take_rows(padded: Tensor, sizes: Sequence[int]) -> Tensor:
    """The first ``sizes[t]`` rows of every time step of [time, batch, ...], one below the other."""
    batch = padded.shape[1]
    rows = np.concatenate([t * batch + np.arange(n) for t, n in enumerate(sizes)])
    flat = padded.reshape(padded.shape[0] * batch, *padded.shape[2:])
    return index_select(flat, 0, from_numpy(rows))


def pad_rows(
    packed: Tensor, sizes: Sequence[int], value: float, length: int | None = None
) -> tuple[Tensor, Tensor]:
    """[time, batch, ...] of packed rows, ``value`` where there is none; and where there is one.

    The second result is bool [time, batch, 1, ...], with as many dimensions as the first.
    """
    counts = np.zeros(length or len(sizes), np.int64)
    counts[: len(sizes)] = sizes
    place = np.arange(counts.max())
    here = place < counts[:, None]
    rows = np.where(here, (np.cumsum(counts) - counts)[:, None] + place, 0)
    ones = (1,) * (packed.ndim - 1)
    mask = from_numpy(here.reshape(*here.shape, *ones))
    padded = index_select(packed, 0, from_numpy(rows.reshape(-1)))
    return where(mask, padded.reshape(*here.shape, *packed.shape[1:]), value), mask
