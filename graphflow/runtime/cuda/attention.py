"""Attention by cuDNN, through NVIDIA's binding of its graphs of operations.

Memory is ours: the library gets addresses, and a workspace that each routine has.  Calls may be
captured in a CUDA graph.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

from graphflow.codegen.library import Routine, Strided
from graphflow.codegen.routines import ALIGNED
from graphflow.errors import GraphFlowError
from graphflow.runtime.cuda.current import on
from graphflow.runtime.cuda.memory import Block
from graphflow.runtime.cuda.routines import BINDING, Launch

TYPES = {"f16": "HALF", "bf16": "BFLOAT16", "f32": "FLOAT"}
WIDEST, FEATURES = 128, 8
"""Features of a head: at most so many, and a multiple of so many."""


def unfit(routine: Routine) -> str:
    """Why cuDNN's attention is not asked for ``routine``; empty if it is."""
    query, _, value = routine.arrays[:3]
    if query.dtype not in ("f16", "bf16"):
        return f"cuDNN attends in float16 and bfloat16, not {query.dtype}"
    for features in (query.shape[3], value.shape[3]):
        if features % FEATURES or features > WIDEST:
            return f"heads of {features} features, where cuDNN takes multiples of 8 up to {WIDEST}"
    if not all(map(prod, (x.shape for x in routine.arrays))):
        return "there is nothing to attend"
    return ""


class Cudnn:
    """cuDNN on one device: a handle, and the routines that were asked for and are alive."""

    def __init__(self, device: int) -> None:
        self.device, self.binding = device, importlib.import_module(BINDING)
        self.lock = threading.Lock()
        self._refusals: dict[Routine, str] = {}
        self._known: weakref.WeakValueDictionary[Routine, _Attention] = (
            weakref.WeakValueDictionary()
        )
        with on(device):
            self.handle: Any = self.binding.create_handle()
        version = int(self.binding.backend_version())
        self.name = f"cuDNN {version // 10000}.{version // 100 % 100}.{version % 100}"

    def refusal(self, routine: Routine) -> str:
        """See :class:`~graphflow.runtime.cuda.routines.Library`."""
        with self.lock:
            if routine not in self._refusals:
                self._refusals[routine] = unfit(routine) or self._asked(routine)
            return self._refusals[routine]

    def _asked(self, routine: Routine) -> str:
        try:
            with on(self.device):
                described(self.binding, self.handle, routine)
        except Exception as error:
            return self.said(error, routine)
        return ""

    def prepared(self, routine: Routine) -> Launch:
        """See :class:`~graphflow.runtime.cuda.routines.Library`."""
        with self.lock:
            found = self._known.get(routine)
            if found is None:
                try:
                    with on(self.device):
                        found = self._known[routine] = _Attention(self, routine)
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


class _Attention:
    """A graph of cuDNN's with its plan and workspace."""

    def __init__(self, library: Cudnn, routine: Routine) -> None:
        self._library, self._routine = library, routine
        self._graph, self._tensors = described(library.binding, library.handle, routine)
        self._graph.build_plans()
        self._workspace = Block(max(1, int(self._graph.get_workspace_size())), library.device)

    def start(self, addresses: Sequence[int], stream: Any) -> None:
        """Start it; raises :class:`GraphFlowError` if it cannot be."""
        library = self._library
        if any(address % ALIGNED for address in addresses):
            raise GraphFlowError(
                f"{library.name} takes arrays at multiples of {ALIGNED} bytes; give the program a "
                "copy (.clone()) of what begins elsewhere"
            )
        places = dict(zip(self._tensors, addresses, strict=True))
        try:
            with library.lock, on(library.device):
                library.binding.set_stream(handle=library.handle, stream=int(stream))
                self._graph.execute(places, self._workspace.address, handle=library.handle)
        except Exception as error:
            raise GraphFlowError(library.said(error, self._routine)) from error


def described(cudnn: Any, handle: Any, routine: Routine) -> tuple[Any, list[Any]]:
    """A graph that cuDNN says it can compute, and its tensors in the order of ``routine``."""
    types = cudnn.data_type
    graph = cudnn.pygraph(
        io_data_type=getattr(types, TYPES[routine.arrays[0].dtype]),
        intermediate_data_type=types.FLOAT, compute_data_type=types.FLOAT, handle=handle,
    )  # fmt: skip
    attrs = dict(routine.attrs)
    options: dict[str, Any] = {"name": routine.name, "attn_scale": attrs["scale"]}
    if attrs["causal"]:
        options["diagonal_alignment"] = cudnn.diagonal_alignment.TOP_LEFT
        options["diagonal_band_right_bound"] = 0
    count = 3 if routine.name == "attend" else 6
    given = [_tensor(graph, types, n, x) for n, x in enumerate(routine.arrays[:count])]
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
        tensor.set_data_type(getattr(types, TYPES[array.dtype]))
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A])
    graph.check_support()
    return graph, [*given, *results]


def _tensor(graph: Any, types: Any, number: int, array: Strided) -> Any:
    dim, stride = _four_axes(array)
    dtype = getattr(types, TYPES[array.dtype])
    return graph.tensor(name=f"x{number}", dim=dim, stride=stride, data_type=dtype)


def _four_axes(array: Strided) -> tuple[list[int], list[int]]:
    """Extents and strides; the logarithms of rows get a last axis of one element."""
    more = [1] * (4 - len(array.shape))
    return [*array.shape, *more], [*array.strides, *more]
