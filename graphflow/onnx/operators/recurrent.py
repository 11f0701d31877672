"""LSTM, GRU and RNN layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.errors import GraphError
from graphflow.onnx.operators.table import F, gf, operator
from graphflow.promotion import cast
from graphflow.records import dataclass
from graphflow.tensor import Tensor

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Sigmoid": lambda x, a, b: gf.sigmoid(x), "Tanh": lambda x, a, b: gf.tanh(x),
    "Relu": lambda x, a, b: gf.relu(x), "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, b: F.leaky_relu(x, 0.01 if a is None else a),
    "ThresholdedRelu": lambda x, a, b: gf.where(x > (1.0 if a is None else a), x, 0.0 * x),
    "ScaledTanh": lambda x, a, b: a * gf.tanh(b * x), "Elu": lambda x, a, b: F.elu(x, a),
    "HardSigmoid": lambda x, a, b: gf.clamp(
        (0.2 if a is None else a) * x + (0.5 if b is None else b), 0.0, 1.0
    ),
    "Softsign": lambda x, a, b: F.softsign(x), "Softplus": lambda x, a, b: F.softplus(x),
}  # fmt: skip
_NUMBERS = {"Affine": 2, "LeakyRelu": 1, "ThresholdedRelu": 1, "ScaledTanh": 2, "HardSigmoid": 2,
            "Elu": 1}  # fmt: skip

Step = Callable[..., tuple[Any, ...]]
"""``step(given, state, weights, activations)``: the next state."""


@dataclass(frozen=True)
class Layer:
    """What the three layers have in common: their operands and options."""

    X: Tensor
    W: Tensor
    R: Tensor
    B: Tensor | None
    lengths: Tensor | None
    states: tuple[Any, ...]
    peepholes: Tensor | None
    options: dict[str, Any]

    def run(self, gates: int, step: Step) -> Any:
        """All outputs, of all directions."""
        x, options = self.X, self.options
        batch_first = bool(options.get("layout", 0))
        if batch_first:
            x = gf.transpose(x, 0, 1)
        direction = options.get("direction", "forward")
        if direction not in ("forward", "reverse", "bidirectional"):
            raise GraphError(f"direction {direction!r} is not known")
        made = [
            self._direction(x, k, gates, step, direction == "reverse" or k == 1)
            for k in range(self.W.shape[0])
        ]
        hs = gf.stack([m[0] for m in made], 1)  # [time, directions, batch, hidden]
        lasts = [gf.stack(list(parts)) for parts in zip(*(m[1] for m in made))]
        if batch_first:
            hs = gf.permute(hs, (2, 0, 1, 3))
            lasts = [gf.transpose(last, 0, 1) for last in lasts]
        return (hs, *lasts)

    def _direction(self, x: Tensor, k: int, gates: int, step: Step, reverse: bool) -> Any:
        time, batch = x.shape[:2]
        hidden = self.R.shape[-1]
        weights = {"W": self.W[k], "R": self.R[k], "P": None, "Wb": None, "Rb": None}
        if self.B is not None:
            weights["Wb"], weights["Rb"] = self.B[k][: gates * hidden], self.B[k][gates * hidden :]
        if self.peepholes is not None:
            weights["P"] = self.peepholes[k]
        first = tuple(
            gf.zeros((batch, hidden), dtype=x.dtype) if s is None else s[k] for s in self.states
        )
        given = F.linear(x, weights["W"], weights["Wb"])
        functions = _activations(self.options, k)
        steps = gf.arange(time)

        def body(state: Any, item: Any) -> Any:
            new = step(item[0], state, weights, functions, self.options)
            if self.lengths is None:
                return new, new[0]
            here = gf.lt(item[1], self.lengths).reshape(-1, 1)
            kept = tuple(gf.where(here, a, b) for a, b in zip(new, state, strict=True))
            return kept, gf.where(here, new[0], gf.zeros_like(new[0]))

        last, hs = gf.scan(body, first, (given, cast(steps, gf.int64)), reverse=reverse)
        return hs, last


def _activations(options: dict[str, Any], direction: int) -> list[Callable[[Any], Any]]:
    names = options.get("activations") or options["usual"] * 2
    alphas, betas = (
        list(options.get("activation_alpha") or ()),
        list(options.get("activation_beta") or ()),
    )
    found = []
    for name in names:
        count = _NUMBERS.get(name, 0)
        alpha = alphas.pop(0) if count >= 1 and alphas else None
        beta = betas.pop(0) if count == 2 and betas else None
        found.append(_activation(name, alpha, beta, options.get("clip")))
    each = len(options["usual"])
    return found[direction * each : (direction + 1) * each] or found[:each]


def _activation(name: str, alpha: Any, beta: Any, clip: float | None) -> Callable[[Any], Any]:
    function = next((f for key, f in _FUNCTIONS.items() if key.lower() == name.lower()), None)
    if function is None:
        raise GraphError(f"activation {name!r} is not known")
    if clip is None:
        return lambda x: function(x, alpha, beta)
    return lambda x: function(gf.clamp(x, -clip, clip), alpha, beta)


def _lstm(given: Any, state: Any, weights: Any, functions: Any, options: Any) -> Any:
    h, c = state
    own = F.linear(h, weights["R"], weights["Rb"])
    i, o, f, g = (a + b for a, b in zip(given.chunk(4, 1), own.chunk(4, 1)))
    if weights["P"] is not None:
        pi, po, pf = weights["P"].chunk(3)
        i, f = i + pi * c, f + pf * c
    i = functions[0](i)
    f = 1 - i if options.get("input_forget") else functions[0](f)
    c = f * c + i * functions[1](g)
    if weights["P"] is not None:
        o = o + po * c
    return functions[0](o) * functions[2](c), c


def _gru(given: Any, state: Any, weights: Any, functions: Any, options: Any) -> Any:
    (h,) = state
    hidden = h.shape[1]
    gz, gr, gn = given.chunk(3, 1)
    R, Rb = weights["R"], weights["Rb"]
    first = F.linear(h, R[: 2 * hidden], None if Rb is None else Rb[: 2 * hidden])
    z, r = functions[0](gz + first[:, :hidden]), functions[0](gr + first[:, hidden:])
    bias = None if Rb is None else Rb[2 * hidden :]
    if options.get("linear_before_reset"):
        n = functions[1](gn + r * F.linear(h, R[2 * hidden :], bias))
    else:
        n = functions[1](gn + F.linear(r * h, R[2 * hidden :], bias))
    return ((1 - z) * n + z * h,)


def _rnn(given: Any, state: Any, weights: Any, functions: Any, options: Any) -> Any:
    return (functions[0](given + F.linear(state[0], weights["R"], weights["Rb"])),)


@operator("LSTM")
def lstm(
    X: Tensor, W: Tensor, R: Tensor, B: Tensor | None = None,
    sequence_lens: Tensor | None = None, initial_h: Tensor | None = None,
    initial_c: Tensor | None = None, P: Tensor | None = None, *, activations: Any = None,
    activation_alpha: Any = None, activation_beta: Any = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int = 0, input_forget: int = 0, layout: int = 0,
) -> Any:  # fmt: skip
    """Long short-term memory; gates lie in the order i o f g."""
    options = {
        "activations": activations, "activation_alpha": activation_alpha,
        "activation_beta": activation_beta, "clip": clip, "direction": direction,
        "input_forget": input_forget, "layout": layout, "usual": ["Sigmoid", "Tanh", "Tanh"],
    }  # fmt: skip
    states = _first((initial_h, initial_c), layout)
    return Layer(X, W, R, B, sequence_lens, states, P, options).run(4, _lstm)


@operator("GRU")
def gru(
    X: Tensor, W: Tensor, R: Tensor, B: Tensor | None = None,
    sequence_lens: Tensor | None = None, initial_h: Tensor | None = None, *,
    activations: Any = None, activation_alpha: Any = None, activation_beta: Any = None,
    clip: float | None = None, direction: str = "forward", hidden_size: int = 0,
    layout: int = 0, linear_before_reset: int = 0,
) -> Any:  # fmt: skip
    """Gated recurrent units; gates lie in the order z r n."""
    options = {
        "activations": activations, "activation_alpha": activation_alpha,
        "activation_beta": activation_beta, "clip": clip, "direction": direction,
        "layout": layout, "linear_before_reset": linear_before_reset,
        "usual": ["Sigmoid", "Tanh"],
    }  # fmt: skip
    states = _first((initial_h,), layout)
    return Layer(X, W, R, B, sequence_lens, states, None, options).run(3, _gru)


@operator("RNN")
def rnn(
    X: Tensor, W: Tensor, R: Tensor, B: Tensor | None = None,
    sequence_lens: Tensor | None = None, initial_h: Tensor | None = None, *,
    activations: Any = None, activation_alpha: Any = None, activation_beta: Any = None,
    clip: float | None = None, direction: str = "forward", hidden_size: int = 0,
    layout: int = 0,
) -> Any:  # fmt: skip
    """A layer of one gate (Elman 1990)."""
    options = {
        "activations": activations, "activation_alpha": activation_alpha,
        "activation_beta": activation_beta, "clip": clip, "direction": direction,
        "layout": layout, "usual": ["Tanh"],
    }  # fmt: skip
    states = _first((initial_h,), layout)
    return Layer(X, W, R, B, sequence_lens, states, None, options).run(1, _rnn)


def _first(states: tuple[Any, ...], layout: int) -> tuple[Any, ...]:
    """First states, directions in front."""
    return tuple(gf.transpose(s, 0, 1) if layout and s is not None else s for s in states)
