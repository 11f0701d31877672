"""Functions of the library that ONNX has an operator for.

``COMPOSITES[name]`` is a function and how a call of it is written: ``write(w, a)`` gets the
arguments by name and returns the name of the result (names, of several), or None where the
operator cannot say it: then the primitives are written.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from graphflow.functions import reductions
from graphflow.ir.dims import SymDim
from graphflow.ir.node import Node
from graphflow.nn.functional import recurrent
from graphflow.nn.sizes import per_dimension
from graphflow.onnx.exporting.primitives import reduced
from graphflow.onnx.exporting.writer import Writer
from graphflow.records import NamedTuple, dataclass

F: Any = import_module("graphflow.nn.functional")


class Arguments(dict[str, Any]):
    """Arguments by name, as attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


Writes = Callable[[Writer, Arguments], Any]


@dataclass(frozen=True)
class Composite:
    """A function, how it is written, since which version of the operators, and when."""

    function: Callable[..., Any]
    write: Writes
    since: int = 1
    when: Callable[[Arguments], bool] = lambda a: True


COMPOSITES: dict[str, Composite] = {}


def composite(
    *functions: Callable[..., Any], since: int = 1, name: str = "",
    when: Callable[[Arguments], bool] = lambda a: True,
) -> Callable[[Writes], Writes]:  # fmt: skip
    """Enter a function in the table, for one or several functions of the library.

    ``name`` is for one whose own name another function has.
    """

    def enter(write: Writes) -> Writes:
        for function in functions:
            COMPOSITES[name or function.__name__] = Composite(function, write, since, when)
        return write

    return enter


def _optional(*nodes: Any) -> list[Any]:
    return [n for n in nodes if n is not None]


# ---- products ------------------------------------------------------------------------


@composite(F.linear, when=lambda a: len(a.weight.shape) == 2)
def _linear(w: Writer, a: Arguments) -> Any:
    if len(a.input.shape) == 2:
        return w.add("Gemm", a.input, a.weight, *_optional(a.bias), transB=1)
    made = w.add("MatMul", a.input, w.add("Transpose", a.weight, perm=[1, 0]))
    return made if a.bias is None else w.add("Add", made, a.bias)


def _batched(dims: int) -> Callable[[Arguments], bool]:
    return lambda a: len(a.input.shape) == dims + 2


def _enter_convolution(dims: int) -> None:
    @composite(getattr(F, f"conv{dims}d"), when=_batched(dims))
    def conv(w: Writer, a: Arguments) -> Any:
        name = f"conv{dims}d"
        steps = per_dimension(name, "stride", a.stride, dims, 1)
        spacing = per_dimension(name, "dilation", a.dilation, dims, 1)
        if a.padding == "same":
            total = [d * (k - 1) for d, k in zip(spacing, a.weight.shape[2:])]
            pads = [*(t // 2 for t in total), *(t - t // 2 for t in total)]
        else:
            given = 0 if a.padding == "valid" else a.padding
            pads = [*per_dimension(name, "padding", given, dims, 0)] * 2
        return w.add(
            "Conv", a.input, a.weight, *_optional(a.bias), strides=list(steps), pads=pads,
            dilations=list(spacing), group=a.groups, kernel_shape=list(a.weight.shape[2:]),
        )  # fmt: skip

    @composite(getattr(F, f"conv_transpose{dims}d"), when=_batched(dims))
    def conv_transpose(w: Writer, a: Arguments) -> Any:
        name = f"conv_transpose{dims}d"
        return w.add(
            "ConvTranspose", a.input, a.weight, *_optional(a.bias), group=a.groups,
            strides=list(per_dimension(name, "stride", a.stride, dims, 1)),
            pads=[*per_dimension(name, "padding", a.padding, dims, 0)] * 2,
            dilations=list(per_dimension(name, "dilation", a.dilation, dims, 1)),
            output_padding=list(per_dimension(name, "output_padding", a.output_padding, dims, 0)),
            kernel_shape=list(a.weight.shape[2:]),
        )  # fmt: skip


# ---- pooling -------------------------------------------------------------------------


def _windows(name: str, a: Arguments, dims: int) -> dict[str, Any]:
    sizes = per_dimension(name, "kernel_size", a.kernel_size, dims, 1)
    given = a.stride is not None and a.stride not in ((), [])
    steps = per_dimension(name, "stride", a.stride, dims, 1) if given else sizes
    pads = per_dimension(name, "padding", a.padding, dims, 0)
    return {
        "kernel_shape": list(sizes), "strides": list(steps), "pads": [*pads, *pads],
        "ceil_mode": int(a.ceil_mode),
    }  # fmt: skip


def _enter_pooling(dims: int) -> None:
    name, batched = f"max_pool{dims}d", _batched(dims)

    @composite(getattr(F, name), when=lambda a: batched(a) and not a.return_indices)
    def max_pool(w: Writer, a: Arguments) -> Any:
        spacing = list(per_dimension(name, "dilation", a.dilation, dims, 1))
        return w.add("MaxPool", a.input, dilations=spacing, **_windows(name, a, dims))

    def plain(a: Arguments) -> bool:
        return batched(a) and a.get("divisor_override") is None and not a.ceil_mode

    @composite(getattr(F, f"avg_pool{dims}d"), when=plain)
    def avg_pool(w: Writer, a: Arguments) -> Any:
        windows = _windows(f"avg_pool{dims}d", a, dims)
        return w.add("AveragePool", a.input, count_include_pad=int(a.count_include_pad), **windows)

    def to_one(a: Arguments) -> bool:
        size = a.output_size
        return batched(a) and (size == 1 or (isinstance(size, (tuple, list)) and set(size) == {1}))

    @composite(getattr(F, f"adaptive_avg_pool{dims}d"), when=to_one)
    def global_average(w: Writer, a: Arguments) -> Any:
        return w.add("GlobalAveragePool", a.input)


for _dims in (1, 2, 3):
    _enter_convolution(_dims)
    _enter_pooling(_dims)

# ---- normalisation -------------------------------------------------------------------


def _channels(w: Writer, given: Node | None, like: Node, fill: float) -> str | Node:
    """A weight or bias of channels; ones or zeros if there is none."""
    if given is not None:
        return given
    return w.constant(np.full(like.shape[1], fill, like.dtype.numpy))


def _known_channels(a: Arguments) -> bool:
    return len(a.input.shape) >= 2 and not isinstance(a.input.shape[1], SymDim)


@composite(
    F.batch_norm,
    when=lambda a: not a.training and a.running_mean is not None and _known_channels(a),
)
def _batch_norm(w: Writer, a: Arguments) -> Any:
    scale, bias = _channels(w, a.weight, a.input, 1), _channels(w, a.bias, a.input, 0)
    return w.add("BatchNormalization", a.input, scale, bias, a.running_mean, a.running_var,
                 epsilon=a.eps)  # fmt: skip


@composite(F.layer_norm, since=17)
def _layer_norm(w: Writer, a: Arguments) -> Any:
    extents = a.normalized_shape
    shape = (extents,) if isinstance(extents, int) else tuple(extents)
    scale = a.weight
    if scale is None:
        scale = w.constant(np.ones(shape, a.input.dtype.numpy))
    return w.add("LayerNormalization", a.input, scale, *_optional(a.bias), axis=-len(shape),
                 epsilon=a.eps)  # fmt: skip


@composite(F.rms_norm, since=23, when=lambda a: a.weight is not None and a.eps is not None)
def _rms_norm(w: Writer, a: Arguments) -> Any:
    axis = -len(a.weight.shape)
    return w.add("RMSNormalization", a.input, a.weight, axis=axis, epsilon=a.eps)


@composite(F.group_norm, since=21, when=_known_channels)
def _group_norm(w: Writer, a: Arguments) -> Any:
    scale, bias = _channels(w, a.weight, a.input, 1), _channels(w, a.bias, a.input, 0)
    return w.add("GroupNormalization", a.input, scale, bias, num_groups=a.num_groups,
                 epsilon=a.eps)  # fmt: skip


@composite(F.instance_norm, when=lambda a: a.use_input_stats and _known_channels(a))
def _instance_norm(w: Writer, a: Arguments) -> Any:
    scale, bias = _channels(w, a.weight, a.input, 1), _channels(w, a.bias, a.input, 0)
    return w.add("InstanceNormalization", a.input, scale, bias, epsilon=a.eps)


# ---- activations ---------------------------------------------------------------------


@composite(F.gelu, since=20)
def _gelu(w: Writer, a: Arguments) -> Any:
    return w.add("Gelu", a.input, approximate=a.approximate)


@composite(F.mish, since=18)
def _mish(w: Writer, a: Arguments) -> Any:
    return w.add("Mish", a.input)


@composite(F.silu, since=24)
def _silu(w: Writer, a: Arguments) -> Any:
    return w.add("Swish", a.input)


@composite(F.leaky_relu)
def _leaky_relu(w: Writer, a: Arguments) -> Any:
    return w.add("LeakyRelu", a.input, alpha=float(a.negative_slope))


@composite(F.elu)
def _elu(w: Writer, a: Arguments) -> Any:
    return w.add("Elu", a.input, alpha=float(a.alpha))


@composite(F.celu)
def _celu(w: Writer, a: Arguments) -> Any:
    return w.add("Celu", a.input, alpha=float(a.alpha))


@composite(F.selu)
def _selu(w: Writer, a: Arguments) -> Any:
    return w.add("Selu", a.input)


@composite(F.hardsigmoid)
def _hardsigmoid(w: Writer, a: Arguments) -> Any:
    return w.add("HardSigmoid", a.input, alpha=1 / 6, beta=0.5)


@composite(F.hardswish, since=14)
def _hardswish(w: Writer, a: Arguments) -> Any:
    return w.add("HardSwish", a.input)


@composite(F.softplus, when=lambda a: a.beta == 1 and a.threshold >= 20)
def _softplus(w: Writer, a: Arguments) -> Any:
    return w.add("Softplus", a.input)


@composite(F.softsign)
def _softsign(w: Writer, a: Arguments) -> Any:
    return w.add("Softsign", a.input)


@composite(F.log_softmax, when=lambda a: isinstance(a.dim, int) and a.dtype is None)
def _log_softmax(w: Writer, a: Arguments) -> Any:
    return w.add("LogSoftmax", a.input, axis=a.dim)


def _plain_mean(a: Arguments) -> bool:
    one = isinstance(a.dim, int) and not isinstance(a.dim, bool)
    many = isinstance(a.dim, (tuple, list)) and len(a.dim) > 0
    floating = isinstance(a.input, Node) and a.input.dtype.is_floating_point
    return floating and a.dtype is None and (one or many)


@composite(reductions.mean, when=_plain_mean)
def _mean(w: Writer, a: Arguments) -> Any:
    axes = [a.dim] if isinstance(a.dim, int) else list(a.dim)
    return reduced(w, "ReduceMean", a.input, axes, int(bool(a.keepdim)))


# ---- recurrent layers ----------------------------------------------------------------


class Kind(NamedTuple):
    """An operator, the order of its gates in ours, and its further attributes."""

    operator: str
    gates: tuple[int, ...]
    attributes: dict[str, Any]


_KINDS = {
    "LSTM": Kind("LSTM", (0, 3, 1, 2), {}),
    "GRU": Kind("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "RNN_TANH": Kind("RNN", (0,), {"activations": ["Tanh"]}),
    "RNN_RELU": Kind("RNN", (0,), {"activations": ["Relu"]}),
}


def _is_layer(a: Arguments) -> bool:
    parts = [p for p in a.weights if p is not None]
    weights = all(isinstance(p, Node) and p.op.name == "state" for p in parts)
    return weights and a.sizes is None and a.weights.weight_hr is None


@composite(recurrent.layer, when=_is_layer)
def _layer(w: Writer, a: Arguments) -> Any:
    kind, parts = _KINDS[a.kind], a.weights
    matrices = [_gates_in_order(w, p, kind) for p in (parts.weight_ih, parts.weight_hh)]
    operands: list[Any] = [a.inputs, *matrices, ""]
    if parts.bias_ih is not None:
        biases = [w.values[p.attrs["name"]] for p in (parts.bias_ih, parts.bias_hh)]
        rows = [_in_order(b, kind) for b in biases]
        operands[-1] = w.constant(np.concatenate(rows)[None])
    states = [w.add("Unsqueeze", s, w.ints([0])) for s in a.state]
    direction = "reverse" if a.reverse else "forward"
    found = w.add(
        kind.operator, *operands, "", *states, outputs=1 + len(states), direction=direction,
        hidden_size=int(parts.weight_hh.shape[1]), **kind.attributes,
    )  # fmt: skip
    hs = w.add("Squeeze", found[0], w.ints([1]))
    return (hs, *(w.add("Squeeze", last, w.ints([0])) for last in found[1:]))


def _in_order(rows: np.ndarray[Any, Any], kind: Kind) -> np.ndarray[Any, Any]:
    """Blocks of rows in the order that ONNX has for gates."""
    blocks = np.split(rows, len(kind.gates))
    return np.concatenate([blocks[k] for k in kind.gates])


def _gates_in_order(w: Writer, weight: Node, kind: Kind) -> str:
    name = w.unique(weight.attrs["name"])
    w.initial[name] = _in_order(w.values[weight.attrs["name"]], kind)[None]
    return name
