"""Values between PyTorch, GraphFlow and NumPy; nothing shares memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

import graphflow as gf
from tests.conformance.compare import Array
from tests.conformance.outcome import Missing


def numpy_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy with the same strides (gaps, transposition and expansion included)."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor._is_zerotensor():  # a gradient that PyTorch knows to be zero has no memory
        tensor = torch.zeros(tensor.shape, dtype=tensor.dtype)
    if tensor.dtype is torch.bfloat16:
        return numpy_of(tensor.view(torch.uint16)).view(ml_dtypes.bfloat16)
    array = tensor.numpy(force=True)  # gradients may be zeros that have no memory
    if not array.size or tensor.is_contiguous():
        return np.array(array, order="C")
    step = tensor.element_size()
    extent = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride())) + 1
    memory = np.zeros(extent, array.dtype)
    copy = np.lib.stride_tricks.as_strided(
        memory, tuple(tensor.shape), tuple(s * step for s in tensor.stride())
    )
    np.copyto(copy, array)  # where elements overlap (expand), equal values are written twice
    return copy


def map_tree(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """``tree`` with every leaf replaced; knows tuples, lists, dicts, slices, namedtuples."""
    if isinstance(tree, torch.Size | gf.Size):
        return leaf(tree)
    if isinstance(tree, list):
        return [map_tree(item, leaf) for item in tree]
    if isinstance(tree, tuple):
        items = [map_tree(item, leaf) for item in tree]
        if isinstance(tree, PackedSequence) and not isinstance(items[0], torch.Tensor):
            return gf.nn.utils.rnn.PackedSequence(*items)
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    if isinstance(tree, dict):
        return {key: map_tree(item, leaf) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(map_tree(x, leaf) for x in (tree.start, tree.stop, tree.step)))
    return leaf(tree)


def to_graphflow(value: Any) -> Any:
    """One leaf: a tensor, dtype, device, layout or memory format, or a plain value."""
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        name = str(value).removeprefix("torch.")
        if not hasattr(gf, name):
            raise Missing(f"graphflow.{name}")
        return getattr(gf, name)
    if isinstance(value, torch.device):
        return gf.device(str(value))
    if isinstance(value, torch.Size):
        return gf.Size(value)
    if isinstance(value, torch.nn.Module):
        return _module(value)
    if getattr(value, "__module__", None) == "torch.nn.functional":
        return getattr(gf.nn.functional, value.__name__)
    return value


def _module(value: torch.nn.Module) -> gf.nn.Module:
    """A distance without options, or a layer of an encoder; its numbers are loaded later."""
    made = getattr(gf.nn, type(value).__name__)
    if not isinstance(value, torch.nn.TransformerEncoderLayer):
        return made()
    attention, first = value.self_attn, value.linear1
    return made(
        attention.embed_dim, attention.num_heads, first.out_features, attention.dropout,
        to_graphflow(value.activation), value.norm1.eps, attention.batch_first, value.norm_first,
        first.bias is not None,
    )  # fmt: skip


def _tensor(value: torch.Tensor) -> gf.Tensor:
    made = gf.from_numpy(numpy_of(value))
    return made.requires_grad_() if value.requires_grad else made


def from_torch(value: Any) -> Any:
    """One leaf of a result as what :func:`compare` takes."""
    if isinstance(value, torch.Tensor):
        return Array(numpy_of(value), str(value.dtype).removeprefix("torch."))
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return tuple(value) if isinstance(value, torch.Size) else value


def from_graphflow(value: Any) -> Any:
    """One leaf of a result as what :func:`compare` takes."""
    if isinstance(value, gf.Tensor):
        return Array(np.array(value.detach().numpy()), value.dtype.name)
    if isinstance(value, gf.dtype):
        return value.name
    return tuple(value) if isinstance(value, gf.Size) else value


def plain(tree: Any) -> Any:
    """A result of either side, as tuples, dicts, :class:`Array` and plain values."""

    def leaf(value: Any) -> Any:
        value = from_graphflow(from_torch(value))
        return value.item() if isinstance(value, np.generic) else value

    return map_tree(tree, leaf)


def tensors_of(tree: Any, kind: type = gf.Tensor) -> list[Any]:
    """The tensors in ``tree``, in order."""
    found: list[Any] = []
    map_tree(tree, lambda leaf: found.append(leaf) if isinstance(leaf, kind) else None)
    return found


def with_tensors(tree: Any, tensors: list[Any], kind: type = gf.Tensor) -> Any:
    """``tree`` with its tensors replaced, in order."""
    given = iter(tensors)
    return map_tree(tree, lambda leaf: next(given) if isinstance(leaf, kind) else leaf)


_DOUBLE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def copied(value: Any, dtype: torch.dtype | None) -> Any:
    """A leaf of PyTorch's with memory of its own; single precision as double when ``dtype`` is."""
    wider = _DOUBLE if dtype is torch.float64 else {}
    if isinstance(value, torch.dtype):
        return wider.get(value, value)
    if not isinstance(value, torch.Tensor):
        return value
    copy = value.detach().clone()
    return copy.to(wider.get(copy.dtype, copy.dtype)).requires_grad_(value.requires_grad)


def shown(value: Any) -> str:
    """Arguments for people: tensors by type."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, tuple | list):
        return ", ".join(shown(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={shown(item)}" for key, item in value.items())
    return repr(value)


def zeros_for_none(grads: Any, wrt: list[gf.Tensor]) -> list[Any]:
    """Gradients with zeros where there is none."""
    return [
        gf.from_numpy(np.zeros_like(t.detach().cpu().numpy())) if g is None else g
        for t, g in zip(wrt, grads, strict=True)
    ]
