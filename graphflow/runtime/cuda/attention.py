"""Attention by cuDNN, through NVIDIA's binding of its graphs of operations.

Memory is ours: the library gets addresses, and a workspace that each routine has.  Calls may be
captured in a CUDA graph.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

from graphflow.codegen.library import Routine, Strided
from graphflow.codegen.routines import ALIGNED
from graphflow.errors import GraphFlowError
from graphflow.ir.types import dtype_named
from graphflow.runtime.cuda.cudnn import Handle
from graphflow.runtime.cuda.current import on
from graphflow.runtime.cuda.library import Launch
from graphflow.runtime.cuda.memory import Block

WIDEST, FEATURES = 128, 8
"""Features of a head: at most so many, and a multiple of so many."""


def unfit(dtype: str, widths: Sequence[int]) -> str:
    """Why cuDNN's attention is not asked for heads of ``widths`` features; empty if it is."""
    if dtype not in ("f16", "bf16"):
        return f"cuDNN attends in float16 and bfloat16, not in {dtype_named(dtype).name}"
    for width in widths:
        if width % FEATURES or width > WIDEST:
            return f"heads have {width} features, cuDNN takes multiples of {FEATURES} to {WIDEST}"
    return ""


def unasked(routine: Routine) -> str:
    """Why cuDNN is not asked for a routine; empty if it is."""
    if not all(map(prod, (x.shape for x in routine.arrays))):
        return "there is nothing to attend"
    query, _, value = routine.arrays[:3]
    return unfit(query.dtype, (query.shape[3], value.shape[3]))


class Attention:
    """cuDNN on one device: a handle, and the routines that were asked for and are alive."""

    def __init__(self, device: int) -> None:
        self.device = device
        with on(device):
            self.handle = Handle()
        self.name = self.handle.name
        self._refusals: dict[Routine, str] = {}
        self._known: weakref.WeakValueDictionary[Routine, _Planned] = weakref.WeakValueDictionary()

    def refusal(self, routine: Routine) -> str:
        """See :class:`~graphflow.runtime.cuda.routines.Library`."""
        with self.handle.lock:
            if routine not in self._refusals:
                self._refusals[routine] = unasked(routine) or self._asked(routine)
            return self._refusals[routine]

    def _asked(self, routine: Routine) -> str:
        try:
            with on(self.device):
                described(self.handle, routine)
        except Exception as error:
            return self.said(error, routine)
        return ""

    def prepared(self, routine: Routine) -> Launch:
        """See :class:`~graphflow.runtime.cuda.routines.Library`."""
        with self.handle.lock:
            found = self._known.get(routine)
            if found is None:
                try:
                    with on(self.device):
                        found = self._known[routine] = _Planned(self, routine)
                except Exception as error:
                    raise GraphFlowError(
                        f"{self.said(error, routine)}; gf.backends.cuda.enable_cudnn_sdp(False) "
                        "does without"
                    ) from error
        return found.start

    def said(self, error: Exception, routine: Routine) -> str:
        """What went wrong with a routine, for people."""
        query, key = routine.arrays[:2]
        shape = f"{routine.name} of queries {list(query.shape)} and keys {list(key.shape)}"
        return f"{self.name}: {' '.join(str(error).split()) or type(error).__name__} ({shape})"


class _Planned:
    """A graph of cuDNN's with its plan and workspace."""

    def __init__(self, library: Attention, routine: Routine) -> None:
        self._library, self._routine = library, routine
        self._graph, self._tensors = described(library.handle, routine)
        self._graph.build_plans()
        self._workspace = Block(max(1, int(self._graph.get_workspace_size())), library.device)

    def start(self, addresses: Sequence[int], stream: Any) -> None:
        """Start it; raises :class:`GraphFlowError` if it cannot be."""
        library, handle = self._library, self._library.handle
        if any(address % ALIGNED for address in addresses):
            raise GraphFlowError(
                f"{library.name} takes arrays at multiples of {ALIGNED} bytes; give the program a "
                "copy (.clone()) of what begins elsewhere"
            )
        places = dict(zip(self._tensors, addresses, strict=True))
        try:
            with handle.lock, on(library.device):
                handle.follow(stream)
                self._graph.execute(places, self._workspace.address, handle=handle.number)
        except Exception as error:
            raise GraphFlowError(library.said(error, self._routine)) from error


def described(handle: Handle, routine: Routine) -> tuple[Any, list[Any]]:
    """A graph that cuDNN says it can compute, and its tensors in the order of ``routine``."""
    cudnn, single = handle.module, handle.type("f32")
    graph = cudnn.pygraph(
        io_data_type=handle.type(routine.arrays[0].dtype), intermediate_data_type=single,
        compute_data_type=single, handle=handle.number,
    )  # fmt: skip
    attrs = dict(routine.attrs)
    options: dict[str, Any] = {"name": routine.name, "attn_scale": attrs["scale"]}
    if attrs["causal"]:
        options["diagonal_alignment"] = cudnn.diagonal_alignment.TOP_LEFT
        options["diagonal_band_right_bound"] = 0
    count = 3 if routine.name == "attend" else 6
    given = []
    for number, array in enumerate(routine.arrays[:count]):
        dim, stride = _four_axes(array)
        dtype = handle.type(array.dtype)
        given.append(graph.tensor(name=f"x{number}", dim=dim, stride=stride, data_type=dtype))
    if routine.name == "attend":
        q, k, v = given
        made = graph.sdpa(q=q, k=k, v=v, generate_stats=True, **options)
    else:
        q, k, v, out, logs, ct = given
        if routine.deterministic:
            options["use_deterministic_algorithm"] = True
        made = graph.sdpa_backward(q=q, k=k, v=v, o=out, dO=ct, stats=logs, **options)
    results = list(made)
    for tensor, array in zip(results, routine.arrays[count:], strict=True):
        dim, stride = _four_axes(array)
        tensor.set_output(True).set_dim(dim).set_stride(stride)
        tensor.set_data_type(handle.type(array.dtype))
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A])
    graph.check_support()
    return graph, [*given, *results]


def _four_axes(array: Strided) -> tuple[list[int], list[int]]:
    """Extents and strides; the logarithms of rows get a last axis of one element."""
    more = [1] * (4 - len(array.shape))
    return [*array.shape, *more], [*array.strides, *more]
