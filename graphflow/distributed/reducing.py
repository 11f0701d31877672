"""All-reduces of gradients: begun as soon as they are known, waited for as late as possible."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from graphflow.autograd.modes import no_grad
from graphflow.debugging.effects import ordered_effect
from graphflow.device import is_placed, put
from graphflow.dispatch import apply, assign
from graphflow.distributed.process_group import ProcessGroup
from graphflow.errors import TraceError
from graphflow.functions.creation import as_tensor
from graphflow.ir.ops.collectives import transport
from graphflow.mode import mode
from graphflow.tensor import Tensor


class GraphReduction:
    """A reduction in the trace under way; :meth:`wait` writes its parts back."""

    def __init__(self, tensors: Sequence[Tensor], flat: Tensor) -> None:
        self._tensors, self._flat = tensors, flat

    def wait(self, timeout: Any = None) -> bool:
        """Let the tensors be what was reduced from here on."""
        begin = 0
        with no_grad():
            for tensor in self._tensors:
                shape = tuple(tensor.shape)
                part = self._flat[begin : begin + prod(shape)].reshape(shape)
                assign(tensor, part)
                begin += prod(shape)
        return True


class EagerReduction:
    """A reduction under way outside a trace."""

    def __init__(self, tensors: Sequence[Tensor], ticket: int) -> None:
        self._tensors, self._ticket = tensors, ticket

    def wait(self, timeout: Any = None) -> bool:
        """Write the reduced parts over the tensors."""
        flat, begin = transport().wait(self._ticket), 0
        for tensor in self._tensors:
            array = tensor._eager()
            part = flat[begin : begin + prod(array.shape)].reshape(array.shape)
            if is_placed(array):
                with no_grad():
                    tensor.copy_(Tensor._of(type(tensor._cell)(put(np.array(part), tensor.device))))
            else:
                array[...] = part
                tensor._cell.version += 1
            begin += prod(array.shape)
        return True


def begin_in_graph(
    tensors: Sequence[Tensor], reduce: str, group: ProcessGroup, finite: bool = False
) -> GraphReduction:
    """Put the reduction of ``tensors`` into the trace under way."""
    flat = reduced(tensors, reduce, group, finite)
    return GraphReduction(tensors, flat)


def reduced(
    tensors: Sequence[Tensor], reduce: str, group: ProcessGroup, finite: bool = False
) -> Tensor:
    """The tensors laid end to end and reduced, with a gradient."""
    tracer = mode.tracer
    if tracer is not None and tracer.region is not None:
        raise TraceError(
            f"{tracer.region.what}: the body calls distributed.all_reduce; call it outside"
        )
    options = {"reduce": reduce, "group": group.number}
    if tracer is None:
        ticket = apply("all_reduce_start", _zero(), *(t.detach() for t in tensors),
                       finite=finite, **options)  # fmt: skip
    else:
        ticket = ordered_effect("all_reduce_start", *tensors, finite=finite, **options)
    return apply("all_reduce", ticket, *tensors, **options)


def _zero() -> Tensor:
    return as_tensor(np.zeros((), np.int64))


def begin(
    tensors: Sequence[Tensor], reduce: str, group: ProcessGroup, finite: bool = False
) -> GraphReduction | EagerReduction:
    """Begin to reduce ``tensors``, which have one dtype, as one message."""
    if mode.tracer is not None:
        return begin_in_graph(tensors, reduce, group, finite)
    arrays = [t.detach().numpy(force=True) for t in tensors]
    return EagerReduction(tensors, transport().start(arrays, reduce, group.number, finite))
