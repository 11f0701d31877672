"""The tape engine behind ``backward()`` and ``autograd.grad``.

It walks recorded histories from the latest operation to the earliest and asks
each operation's own rule for cotangents.  Inside a trace the same engine runs
on traced tensors, so the gradient becomes part of the graph at that very point
of the program: hooks, ``retain_graph`` and ``create_graph`` need nothing else.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from graphflow import dispatch
from graphflow.autograd.aims import Aims
from graphflow.autograd.history import ALONE, NEW, SHARED, Edge, GradNode, edge_of
from graphflow.autograd.modes import in_grad_mode
from graphflow.autograd.several import TOKEN
from graphflow.autograd.views import add_part, shows_a_part
from graphflow.device import CPU, devices, place
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.mode import mode
from graphflow.promotion import cast
from graphflow.stale_gradient import StaleGradient
from graphflow.tensor import Tensor


class _Sweep:
    """Cotangents on their way: per history, per leaf, and what was asked for."""

    def __init__(self, create_graph: bool, retain_graph: bool) -> None:
        self.create_graph = create_graph
        self.retain_graph = retain_graph
        self.pending: dict[GradNode, Tensor] = {}
        self.heap: list[tuple[int, GradNode]] = []
        self.leaves: dict[int, tuple[Tensor, Tensor]] = {}
        self.owned: dict[int, int] = {}
        self.captured: dict[GradNode, Tensor] = {}
        self.parts: dict[GradNode, Tensor] = {}
        """Of what is pending: what this sweep has made of parts, and may write to."""

    def send(self, edge: Edge, ct: Tensor, owned: int) -> None:
        """Add ``ct`` to what has arrived at ``edge``; ``owned`` tells who has its memory."""
        node = edge.node
        if node is not None:
            held = self.pending.get(node)
            if held is TOKEN:
                return
            self._hold(node, ct if held is None else _added(node.module, held, ct))
            return
        assert edge.leaf is not None
        key = id(edge.leaf)
        entry = self.leaves.get(key)
        if entry is None:
            self.leaves[key], self.owned[key] = (edge.leaf, ct), owned
        else:
            self.leaves[key] = (edge.leaf, dispatch.apply("add", entry[1], ct))
            self.owned[key] = NEW

    def _hold(self, node: GradNode, ct: Tensor) -> None:
        """``ct`` is all that has arrived at ``node`` so far."""
        if node not in self.pending:
            heapq.heappush(self.heap, (-node.serial, node))
        self.pending[node] = ct

    def run(self, aims: Aims | None = None) -> None:
        """Walk every pending history, or what leads to the ``aims``."""
        while self.heap:
            _, node = heapq.heappop(self.heap)
            ct = self.pending.pop(node)
            self.parts.pop(node, None)
            if aims is None or not aims.stops(node):
                if node.hooks:
                    ct = _hooked(node.hooks, ct)
                if node.retain is not None:
                    _retain(node, ct)
            if aims is not None and not self._is_on_the_way(aims, node, ct):
                continue
            if not self._sent_in_place(node, ct):
                edges = node.edges if aims is None else aims.along(node)
                results = self._cotangents(node, edges, ct)
                for edge, result in zip(edges, results, strict=True):
                    if edge is not None and result is not None:
                        same = result is ct or result._chain
                        self.send(edge, result, SHARED if same else node.passes_on)
            if not self.retain_graph:
                node.release()

    def _is_on_the_way(self, aims: Aims, node: GradNode, ct: Tensor) -> bool:
        """Whether what ``node`` passes on is wanted; keeps ``ct`` if that is."""
        if node in aims.nodes:
            self.captured[node] = ct
        return aims.passes(node)

    def is_postponed(self) -> bool:
        """Whether the whole pass is left open, in a trace that may: gradients are placeholders."""
        tracer = mode.tracer
        if tracer is None or tracer.sweeps is None or self.create_graph or self.leaves:
            return False
        from graphflow.autograd.postponed import postpone

        found = postpone(tracer, tracer.sweeps, self.pending, self.retain_graph)
        if found is None:
            return False
        for leaf, ct in found:
            self.leaves[id(leaf)], self.owned[id(leaf)] = (leaf, ct), NEW
        return True

    def _sent_in_place(self, node: GradNode, ct: Tensor) -> bool:
        """Whether ``ct`` was added where ``node`` shows a part of its operand, eagerly."""
        if self.create_graph or mode.tracer is not None or not shows_a_part(node):
            return False
        edge = node.edges[0]
        if edge is None or edge.node is None:
            return False
        target = edge.node
        held = self.pending.get(target)
        made = add_part(node, held, ct, held is not None and self.parts.get(target) is held)
        if made is None:
            return False
        self._hold(target, made)
        self.parts[target] = made
        return True

    def _cotangents(
        self, node: GradNode, edges: Sequence[Edge | None], ct: Tensor
    ) -> list[Tensor | None]:
        """What ``node`` passes on; in a trace that is work of the module it was recorded in."""
        cotangents = node.cotangents
        if edges is not node.edges and node.__class__ is GradNode:
            cotangents = partial(node.cotangents_along, edges)
        tracer = mode.tracer
        if tracer is None and devices.used and node.op is not None:
            with place(None if ct.device == CPU else ct.device):
                return cotangents(dispatch.TENSORS, ct, self.create_graph)
        if tracer is None or not node.module:
            return cotangents(dispatch.TENSORS, ct, self.create_graph)
        tracer.modules.append(node.module)
        try:
            return cotangents(dispatch.TENSORS, ct, self.create_graph)
        finally:
            tracer.modules.pop()


def _added(module: str, held: Tensor, ct: Tensor) -> Tensor:
    """The sum of what has arrived; in a trace that is work of the module that reads it."""
    if mode.tracer is None or not module:
        return dispatch.apply("add", held, ct)
    mode.tracer.modules.append(module)
    try:
        return dispatch.apply("add", held, ct)
    finally:
        mode.tracer.modules.pop()


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate into ``.grad`` of the leaves that ``tensors`` depend on.

    ``grad_tensors`` are the cotangents of the tensors (None: 1, for scalars only); with
    ``inputs`` only those collect a gradient, leaves or not.
    """
    outs, given = _paired(tensors, grad_tensors)
    chosen = None if inputs is None else [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if chosen is not None and not chosen:
        raise GraphFlowError("backward(): inputs cannot be empty")

    def accumulate() -> None:
        inner = [] if chosen is None else [(t, t.grad_fn) for t in chosen]
        sweep = _start(outs, given, retain_graph, create_graph)
        if chosen is not None:
            ends = [Edge(node, t if node is None else None) for t, node in inner]
            sweep.run(Aims(map(edge_of, outs), ends))
        elif not sweep.is_postponed():
            sweep.run()
        leaves = None if chosen is None else {id(t) for t, node in inner if node is None}
        for key, (leaf, ct) in sweep.leaves.items():
            if leaf._requires_grad and (leaves is None or key in leaves):
                hooked = _hooked(leaf._hooks, ct)
                owned = sweep.owned[key] if hooked is ct else SHARED
                _accumulate(leaf, hooked, owned, create_graph)
        for tensor, node in inner:
            if node in sweep.captured:
                _accumulate(tensor, sweep.captured[node], SHARED, create_graph)

    with _afterwards:
        in_grad_mode(create_graph, accumulate)


class _Afterwards(threading.local):
    """What is to be called when the backward pass under way is over, each thread's own.

    A pass that a hook begins within another one has its own.
    """

    def __init__(self) -> None:
        self.calls: dict[Hashable, Callable[[], None]] = {}
        self._outer: list[dict[Hashable, Callable[[], None]]] = []

    def __enter__(self) -> None:
        self._outer.append(self.calls)
        self.calls = {}

    def __exit__(self, failed: object, *_: object) -> None:
        try:
            while self.calls and failed is None:
                self.calls.pop(next(iter(self.calls)))()
        finally:
            self.calls = self._outer.pop()


_afterwards = _Afterwards()


def call_afterwards(key: Hashable, function: Callable[[], None]) -> bool:
    """From a hook: call ``function`` when this pass is over, once for each ``key``.

    False if ``key`` is waiting for that already.
    """
    return _afterwards.calls.setdefault(key, function) is function


def _paired(
    tensors: Tensor | Sequence[Tensor], cts: Tensor | Sequence[Tensor | None] | None
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Tensors and their cotangents, as lists of one length."""
    outs = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if cts is None:
        return outs, [None] * len(outs)
    given: list[Tensor | None] = [cts] if isinstance(cts, Tensor) else list(cts)
    if len(given) != len(outs):
        raise GraphFlowError(f"got {len(outs)} tensors and {len(given)} gradients")
    return outs, given


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of ``outputs`` with respect to ``inputs``, returned, not accumulated.

    Inputs that are not used are an error, None with ``allow_unused``, or zeros with
    ``materialize_grads``.  With ``is_grads_batched`` each of ``grad_outputs`` has a first
    dimension more, as have the gradients: one backward pass for each entry, all at once.
    """
    if not only_inputs:
        raise ValueError(
            "only_inputs=False is not supported; backward() accumulates into .grad of all leaves"
        )
    if materialize_grads and allow_unused is False:
        raise ValueError("allow_unused=False does not go with materialize_grads=True")
    if is_grads_batched:
        rest = (retain_graph, create_graph, only_inputs, allow_unused, False, materialize_grads)
        return _batched(outputs, inputs, grad_outputs, rest)
    outs, given = _paired(outputs, grad_outputs)
    wrt = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    edges = [edge_of(t) for t in wrt]
    if any(edge is None for edge in edges):
        raise GraphFlowError("one of the tensors to differentiate by does not require grad")
    ends = [edge for edge in edges if edge is not None]
    results: list[Tensor | None] = []
    with _afterwards:
        sweep = in_grad_mode(create_graph, _run, outs, given, retain_graph, create_graph, ends)
        arrived = [_arrived(sweep, *pair) for pair in zip(wrt, edges, strict=True)]
    for tensor, found in zip(wrt, arrived, strict=True):
        if found is None and materialize_grads:
            found = _zeros(tensor)
        elif found is None and not allow_unused:
            raise GraphFlowError(
                "one of the tensors to differentiate by was not used in the graph; "
                "pass allow_unused=True to get None for it"
            )
        results.append(found)
    return tuple(results)


def _arrived(sweep: _Sweep, tensor: Tensor, edge: Edge | None) -> Tensor | None:
    """What has come to a tensor that was asked for, after its hooks."""
    assert edge is not None
    if edge.node is not None:
        return sweep.captured.get(edge.node)
    entry = sweep.leaves.get(id(tensor))
    return None if entry is None else _hooked(tensor._hooks, entry[1])


def _batched(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None,
    rest: tuple[Any, ...],
) -> tuple[Tensor | None, ...]:
    """:func:`grad` for each entry of the cotangents; ``rest`` are its further arguments."""
    from graphflow.vectorised import of_all, on_entries

    outs, cts = _paired(outputs, grad_outputs)
    given = [ct for ct in cts if ct is not None]
    sizes = {ct.shape[0] if ct.ndim else None for ct in given}
    if not given or len(given) < len(cts) or len(sizes) > 1 or None in sizes:
        raise ValueError(
            "is_grads_batched=True needs grad_outputs: for each output a batch of one size"
        )
    used: list[bool] = []

    def of_entry(entry: Sequence[Tensor]) -> list[Tensor]:
        found = grad(outs, inputs, entry, *rest)
        used[:] = [g is not None for g in found]
        return [g for g in found if g is not None]

    size = given[0].shape[0]
    found = iter(on_entries(of_entry, given, size, "error"))
    return tuple(of_all(*next(found), size) if there else None for there in used)


def arriving(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cts: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients of ``inputs`` before their hooks, which are for who passes them on; no
    history is let go of, and none that an input has is walked."""
    ends = [Edge(t.grad_fn, None if t.grad_fn is not None else t) for t in inputs]
    sweep = in_grad_mode(False, _run, outputs, cts, True, False, ends, True)
    leaves = {key: ct for key, (_, ct) in sweep.leaves.items()}
    return [
        leaves.get(id(t)) if t.grad_fn is None else sweep.captured.get(t.grad_fn) for t in inputs
    ]


def _zeros(tensor: Tensor) -> Tensor:
    return dispatch.full(tuple(tensor.shape), 0, tensor.dtype, tensor.device)


def _run(
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    retain_graph: bool | None,
    create_graph: bool,
    ends: Sequence[Edge],
    closed: bool = False,
) -> _Sweep:
    """A sweep that has been run to the ``ends``; see :class:`Aims`."""
    sweep = _start(tensors, gradients, retain_graph, create_graph)
    sweep.run(Aims(map(edge_of, tensors), ends, closed))
    return sweep


def _start(
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    retain_graph: bool | None,
    create_graph: bool,
) -> _Sweep:
    """A sweep to be run, in the mode that it is to record in."""
    sweep = _Sweep(create_graph, create_graph if retain_graph is None else retain_graph)
    for tensor, ct in zip(tensors, gradients, strict=True):
        edge = edge_of(tensor)
        if edge is None:
            raise GraphFlowError(
                "backward() on a tensor that does not require grad and has no history"
            )
        if ct is None:
            if tensor.numel() != 1:
                raise GraphFlowError(
                    "backward() without a gradient needs a scalar; this tensor has shape "
                    f"{list(tensor.shape)}: pass gradient=, or reduce it first"
                )
            ct = dispatch.full(tuple(tensor.shape), 1, tensor.dtype, tensor.device)
        elif ct.shape != tensor.shape:
            raise ShapeError(
                f"the gradient has shape {list(ct.shape)}, the tensor {list(tensor.shape)}"
            )
        sweep.send(edge, cast(ct, tensor.dtype), SHARED)
    return sweep


class AfterAccumulation:
    """A hook of a leaf that is called with the leaf once its ``.grad`` is complete."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function


def _hooked(hooks: list[Any] | None, ct: Tensor) -> Tensor:
    for hook in list(hooks or ()):
        if isinstance(hook, AfterAccumulation):
            continue
        changed = hook(ct)
        if changed is not None:
            _need_alike(changed, ct)
            ct = changed
    return ct


def _need_alike(changed: Tensor, ct: Tensor) -> None:
    """Refuse a gradient that a hook has made of another shape or dtype."""
    for what in ("shape", "dtype"):
        before, after = getattr(ct, what), getattr(changed, what)
        if before != after:
            raise GraphFlowError(f"a hook changed the {what} of a gradient: {before} to {after}")


def _retain(node: GradNode, ct: Tensor) -> None:
    tensor = node.retain()
    if tensor is not None:
        tensor.grad = ct if tensor.grad is None else tensor.grad + ct


def _own(leaf: Tensor, ct: Tensor, owned: int) -> Tensor:
    """``ct`` in memory that nobody else has; it is row-major if the leaf's is, as in PyTorch."""
    if mode.tracer is not None:
        return ct if owned else ct.clone()
    array = ct._eager()
    if leaf._eager().flags.c_contiguous and not array.flags.c_contiguous:
        return ct.contiguous()  # type: ignore[no-any-return]
    alone = owned == ALONE or (owned == NEW and array.base is None)
    return ct if alone else ct.clone()


def _accumulate(leaf: Tensor, ct: Tensor, owned: int, create_graph: bool) -> None:
    held = leaf._held_grad()
    if held.__class__ is StaleGradient:
        leaf._set_grad(held)
    elif held is None:
        leaf._set_grad(ct.clone() if create_graph else _own(leaf, ct, owned))
    elif create_graph or mode.grad:
        leaf._set_grad(dispatch.apply("add", held, ct))
    else:
        dispatch.assign(held, dispatch.apply("add", held, ct))
    for hook in list(leaf._hooks or ()):
        if isinstance(hook, AfterAccumulation):
            hook.function(leaf)
