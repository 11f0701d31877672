"""A tensor's attributes, conversions and the functions about types, in words both sides share.

A row is an expression over ``t``, the library (``torch`` or ``graphflow``); what it
yields is reduced to plain Python and must be equal.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import graphflow as gf
from tests.conformance.outcome import Outcome

Row = Callable[[Any], Any]


def _grid(t: Any) -> Any:
    return t.arange(6.0).reshape(2, 3)


def _leaf(t: Any) -> Any:
    return t.tensor([1.0, -2.0], requires_grad=True)


def _backward(t: Any) -> Any:
    x = _leaf(t)
    (x * x).sum().backward()
    return x


def _hooked(t: Any) -> Any:
    x, seen = _leaf(t), []
    handle = x.register_hook(lambda g: seen.append(g.tolist()) or g * 2)
    (x * 3).sum().backward()
    handle.remove()
    (x * 3).sum().backward()
    return seen, x.grad


def _retained(t: Any) -> Any:
    x = _leaf(t)
    y = x * 2
    y.retain_grad()
    y.sum().backward()
    return y.grad, y.is_leaf, x.is_leaf, y.grad_fn is not None, x.grad_fn


def _detached(t: Any) -> Any:
    y = _leaf(t) * 2
    z = y.detach()
    y.detach_()
    return z.requires_grad, y.requires_grad, y.is_leaf


def _data(t: Any) -> Any:
    x = _leaf(t)
    x.data.mul_(3)
    return x, x.data.requires_grad


def _mapped(t: Any) -> Any:
    x, y = t.tensor([1.0, 2.0]), t.tensor([5.0, 7.0])
    applied = x.clone().apply_(lambda v: v + 1)
    return applied, x.clone().map_(y, lambda a, b: a * b)


def _packed(t: Any) -> Any:
    x, seen = _leaf(t), []
    mask, weight = t.tensor([True, False]), t.tensor([2.0, 3.0])

    def pack(v: Any) -> Any:
        seen.append((tuple(v.shape), v.requires_grad, v.is_leaf, t.is_grad_enabled()))
        return v.detach().clone()

    def unpack(v: Any) -> Any:
        seen.append(v)
        return v

    with t.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = (x * 3 + weight).exp() * weight - x / 2
        z = t.where(mask, y, x).tanh()
        with t.no_grad():
            x * x
        with t.autograd.graph.save_on_cpu():
            z = z * z
    (slope,) = t.autograd.grad(z.sum(), x, create_graph=True)
    slope.sum().backward()
    return sorted(map(repr, map(plain, seen))), slope.detach(), x.grad


def _saved_by_function(t: Any) -> Any:
    seen = []

    class Cube(t.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            out = x * x * x
            ctx.save_for_backward(out, x)
            return out

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            out, x = ctx.saved_tensors
            return ct * 3 * out / x

    def pack(v: Any) -> Any:
        seen.append((v.requires_grad, v.is_leaf))
        return v.detach()

    x = _leaf(t)
    with t.autograd.graph.saved_tensors_hooks(pack, lambda v: v):
        y = Cube.apply(x)
    (slope,) = t.autograd.grad(y.sum(), x, create_graph=True)
    (again,) = t.autograd.grad(slope.sum(), x)
    return seen, y.detach(), slope.detach(), again


def _averaged(t: Any) -> Any:
    swa = t.optim.swa_utils
    numbers, found = (3.0, 7.0, 2.0, 10.0), []
    for options in (
        {}, {"avg_fn": swa.get_swa_avg_fn()}, {"avg_fn": swa.get_ema_avg_fn(0.5)},
        {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.5)},
    ):  # fmt: skip
        model = t.nn.BatchNorm1d(2)
        average = swa.AveragedModel(model, use_buffers=True, **options)
        for number in numbers:
            with t.no_grad():
                for value in (*model.parameters(), *model.buffers()):
                    value.fill_(number)
            average.update_parameters(model)
        state = average.state_dict()
        found.append([state[key].tolist() for key in sorted(state)])
    lists = t.zeros(2), t.zeros(1)
    for i, number in enumerate(numbers):
        swa.get_swa_multi_avg_fn()(lists, [t.full_like(a, number) for a in lists], t.tensor(i))
    return found, lists


def _default(t: Any) -> Any:
    t.set_default_dtype(t.float64)
    try:
        return t.tensor(1.5), t.get_default_dtype() is t.float64
    finally:
        t.set_default_dtype(t.float32)


def _printed(t: Any) -> Any:
    t.set_printoptions(precision=2)
    try:
        return repr(t.tensor([1.23456, 2.0]))
    finally:
        t.set_printoptions(profile="default")


ROWS: dict[str, Row] = {
    "item": lambda t: (t.tensor(3.5).item(), t.tensor([7]).item(), t.tensor(True).item()),
    "tolist": lambda t: (_grid(t).tolist(), t.tensor(2).tolist()),
    "numpy": lambda t: (_grid(t).numpy(), np.asarray(_grid(t)), t.from_numpy(np.arange(3))),
    "size": lambda t: (tuple(_grid(t).size()), _grid(t).size(-1), tuple(_grid(t).shape)),
    "Size": lambda t: (t.Size([2, 3]).numel(), len(t.Size((4,))), t.Size([2, 3]) == (2, 3)),
    "dim": lambda t: (_grid(t).dim(), _grid(t).ndim, t.tensor(1).dim()),
    "numel": lambda t: (_grid(t).numel(), _grid(t).nelement(), t.numel(_grid(t))),
    "element_size": lambda t: [t.zeros(1, dtype=d).element_size() for d in (t.float64, t.bool)],
    "stride": lambda t: (_grid(t).t().stride(), _grid(t).stride(0), _grid(t)[:, 1:].stride()),
    "storage_offset": lambda t: (_grid(t)[1].storage_offset(), _grid(t).storage_offset()),
    "is_contiguous": lambda t: (_grid(t).is_contiguous(), _grid(t).t().is_contiguous()),
    "contiguous": lambda t: _grid(t).t().contiguous().stride(),
    "device": lambda t: (str(_grid(t).device), _grid(t).device.type, str(t.device("cpu"))),
    "dtype": lambda t: [x.dtype for x in (_grid(t), t.tensor(1), t.tensor(True), t.tensor(1j))],
    "layout": lambda t: _grid(t).layout == t.strided,
    "is_leaf": _retained,
    "grad": lambda t: (_backward(t).grad, _leaf(t).grad),
    "requires_grad": lambda t: (_leaf(t).requires_grad, _grid(t).requires_grad_().requires_grad),
    "register_hook": _hooked,
    "saved_tensors_hooks": _packed,
    "saved_by_function": _saved_by_function,
    "swa_utils": _averaged,
    "detach": _detached,
    "data": _data,
    "to": lambda t: (_grid(t).to(t.int64), _grid(t).to("cpu").dtype, _grid(t).to(_leaf(t)).dtype),
    "type": lambda t: (_grid(t).type(t.int32), _grid(t).type_as(t.tensor(1))),
    "conversions": lambda t: [
        getattr(t.tensor([1, 0]), n)().dtype
        for n in ("float", "double", "half", "bfloat16", "int", "long", "short", "char", "byte")
    ],
    "cpu": lambda t: _grid(t).cpu(),
    "new": lambda t: (
        _grid(t).new_tensor([1, 2]), _grid(t).new_zeros(2), _grid(t).new_ones((1, 2)),
        _grid(t).new_full((2,), 3), tuple(_grid(t).new_empty(2).shape),
    ),
    "copy_": lambda t: t.zeros(2, 3).copy_(t.arange(3)),
    "apply_": _mapped,
    "len": lambda t: (len(_grid(t)), [row.tolist() for row in _grid(t)], 4.0 in _grid(t)),
    "number": lambda t: (
        bool(t.tensor(0)), int(t.tensor(2.7)), float(t.tensor([1])), complex(t.tensor(2)),
    ),
    "index": lambda t: [10, 20, 30][t.tensor(1)],
    "pickle": lambda t: pickle.loads(pickle.dumps(_grid(t))),
    "deepcopy": lambda t: copy.deepcopy(_leaf(t)),
    "repr": lambda t: [repr(x) for x in (t.tensor([1.5, 2.0]), t.arange(3), _leaf(t), t.zeros(0))],
    "set_printoptions": _printed,
    "set_default_dtype": _default,
    "is_tensor": lambda t: (t.is_tensor(_grid(t)), t.is_tensor([1])),
    "is_floating_point": lambda t: (t.is_floating_point(_grid(t)), t.tensor(1).is_floating_point()),
    "is_complex": lambda t: (t.is_complex(t.tensor(1j)), _grid(t).is_complex()),
    "result_type": lambda t: [
        t.result_type(t.tensor([1], dtype=t.int32), 1.0), t.result_type(_grid(t), t.tensor(1)),
        t.result_type(t.tensor([1], dtype=t.uint8), t.tensor([1], dtype=t.int8)),
    ],
    "promote_types": lambda t: [
        t.promote_types(t.int32, t.float16), t.promote_types(t.uint8, t.bool),
    ],
    "can_cast": lambda t: (t.can_cast(t.float64, t.int64), t.can_cast(t.int64, t.float16)),
    "iinfo": lambda t: [
        (t.iinfo(d).min, t.iinfo(d).max, t.iinfo(d).bits) for d in (t.int8, t.int64)
    ],
    "finfo": lambda t: [
        (t.finfo(d).eps, t.finfo(d).max, t.finfo(d).tiny) for d in (t.float32, t.float64)
    ],
    "dtypes": lambda t: [
        (d.is_floating_point, d.is_complex, d.itemsize)
        for d in (t.float32, t.int8, t.bool, t.complex64, t.bfloat16)
    ],
    "Variable": lambda t: t.autograd.Variable(_grid(t), requires_grad=True).requires_grad,
    "version": lambda t: isinstance(t.__version__, str),
    "T": lambda t: (_grid(t).T, _grid(t).mT, _grid(t).H),
    "views_share": lambda t: (lambda x: (x[0].fill_(9), x)[1])(_grid(t)),
    "operators": lambda t: (
        t.tensor(5) & 3, t.tensor(5) | 2, t.tensor(5) ^ 1, ~t.tensor(5), t.tensor(5) << 1,
        t.tensor(5) >> 1, 7 // t.tensor(2), 7 % t.tensor(4), 2 ** t.tensor(3), -t.tensor(1),
    ),
    "bincount": lambda t: t.bincount(t.tensor([0, 2, 2]), minlength=4),
    "unravel_index": lambda t: t.unravel_index(t.tensor([1, 5]), (2, 3)),
    "triangles": lambda t: (t.tril_indices(3, 3), t.triu_indices(2, 3, 1)),
}  # fmt: skip


def entries() -> list[str]:
    """Every row, as ``surface.<name>``."""
    return [f"surface.{name}" for name in ROWS]


def run(key: str, mode: str, verbose: bool = False) -> Outcome:
    """Both sides' answers to one row; eager only."""
    outcome, name = Outcome(), key.removeprefix("surface.")
    if mode == "eager":
        outcome.check(name, lambda: _differs(ROWS[name]), verbose)
    return outcome


def _differs(row: Row) -> str:
    ours, theirs = plain(row(gf)), plain(row(torch))
    return "" if ours == theirs else f"{ours} where PyTorch has {theirs}"


def plain(value: Any) -> Any:
    """``value`` as plain Python: tensors and arrays with their dtype and shape."""
    if isinstance(value, (torch.Tensor, gf.Tensor)):
        return ("tensor", plain(value.dtype), tuple(value.shape), value.tolist())
    if isinstance(value, np.ndarray):
        return ("array", str(value.dtype), value.shape, value.tolist())
    if isinstance(value, (torch.dtype, gf.dtype)):
        return str(value).split(".")[-1]
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value
