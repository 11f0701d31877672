"""``gf.verify``: one step in every form the compiler knows, and the first difference.

The traced graph, interpreted in double precision, is what the others are held against:
the function run eagerly, the graph after every pass, and the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow import dispatch, pytree
from graphflow.capture import captured_memory
from graphflow.comparison import Snapshot, on_host
from graphflow.compiled import Compiled
from graphflow.debugging.differences import allowed, difference
from graphflow.debugging.findings import Compared, Finding, Verification
from graphflow.debugging.kernel_check import KernelCheck
from graphflow.debugging.pass_check import PassCheck
from graphflow.debugging.setting import Setting
from graphflow.device import CPU, Device
from graphflow.device import available as as_device
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node
from graphflow.ir.ops.effects import silence
from graphflow.ir.types import TensorType, from_numpy_dtype
from graphflow.mode import operation_by_operation
from graphflow.passes.base import Pass
from graphflow.passes.plugged import pipeline_steps
from graphflow.places import user_place
from graphflow.records import replace
from graphflow.tensor import Tensor

_EAGER = 1e-3
"""Eager and compiled floating-point results may differ by this, relative to the largest."""


def verify(
    target: Any, *args: Any, passes: Sequence[Pass] | None = None, device: str | None = None
) -> Verification:
    """Compare every form of ``target(*args)`` and find the first difference.

    ``target`` is a callable (compiled or not), or a graph whose inputs are ``args``; ``passes``
    are passes to plug in, as for ``gf.compile``.  One step is run by the interpreter in double,
    eagerly, after every pass, and by kernels.  The first form that differs is searched for the
    rule or kernel and the node that made the difference.  With ``device="cuda"`` the passes and
    kernels for CUDA are looked at as well, on the device or in Numba's simulator (a process
    that was started with ``NUMBA_ENABLE_CUDASIM=1``).  State that the function changes is
    put back.  Everything is kept in memory at once, so give a small batch.

    >>> print(gf.verify(step, images, labels))     # doctest: +SKIP
    >>> assert gf.verify(step, images, labels)     # doctest: +SKIP
    """
    if isinstance(target, Graph):
        captured = captured_memory(target)
        setting = Setting.of_graph(captured.graph if captured else target, args)
        return _verified(target.name, setting, passes or (), None, device)
    eager = target.original if isinstance(target, Compiled) else target
    if not callable(eager):
        raise TypeError(f"gf.verify takes a callable or a Graph, not {type(target).__name__}")
    chosen = passes or (target._options["passes"] if isinstance(target, Compiled) else None) or ()
    compiled = Compiled(eager, dynamic=False)
    entry = compiled.prepare(*args)
    snapshot = Snapshot(eager, entry.capture.cells)
    setting = Setting.of_capture(entry.capture, pytree.flatten((args, {}))[0])
    try:
        runs = _Runs(operation_by_operation(eager), compiled, args, snapshot)
        here = device or str(entry.capture.device)
        return _verified(compiled.__name__, setting, chosen, runs, here)
    finally:
        snapshot.restore()


def _verified(
    name: str, setting: Setting, passes: Sequence[Pass], runs: _Runs | None, device: str | None
) -> Verification:
    compared: list[Compared] = []
    finding: Finding | None = None
    with silence():
        for place in dict.fromkeys((CPU, as_device(device or "cpu"))):
            if finding is None:
                rows, finding = _lowered(setting, passes, place)
                compared += rows
    if finding is None and runs is not None:
        row = runs.compare(4 * max((c.difference for c in compared), default=0.0))
        compared.append(row)
        if not row.ok:
            finding = runs.first_difference(setting, row.difference)
    return Verification(name, tuple(compared), finding)


def _lowered(
    setting: Setting, passes: Sequence[Pass], device: Device
) -> tuple[list[Compared], Finding | None]:
    """The passes and kernels for a device, and the first difference."""
    elsewhere = device != CPU
    checked = PassCheck(setting, pipeline_steps(passes, elsewhere))
    rows = checked.compared
    if elsewhere:
        rows = [replace(row, form=f"{device.type}: {row.form}") for row in rows]
    if checked.finding is not None:
        return rows, checked.finding
    lowered = checked.stages[-1].graph
    kernels = KernelCheck(setting, setting.graph, lowered, checked.values, device)
    return [*rows, *_worst(kernels.compared)], kernels.finding


class _Runs:
    """The function called eagerly and compiled, each from the same state."""

    def __init__(
        self,
        eager: Callable[..., Any],
        compiled: Compiled,
        args: Sequence[Any],
        start: Snapshot,
    ) -> None:
        self._operations: list[tuple[str, str, list[np.ndarray[Any, Any]]]] = []
        start.restore()
        self._static = _numbers(compiled(*args)) + start.values()
        start.restore()
        inner = dispatch._values

        def watched(op: Any, reference: Any, inputs: Any, attrs: Any) -> Any:
            value = inner(op, reference, inputs, attrs)
            found = value if isinstance(value, tuple) else (value,)
            place = user_place(1)
            self._operations.append((op.name, str(place), list(map(on_host, found))))
            return value

        dispatch._values = watched
        try:
            self._eager = _numbers(eager(*args)) + start.values()
        finally:
            dispatch._values = inner

    def compare(self, rounding: float) -> Compared:
        """The row of eager beside compiled results, and of the memory both leave behind.

        ``rounding`` is what kernels were seen to differ by, which eager may too.
        """
        most = max(_EAGER, rounding)
        if len(self._eager) != len(self._static):
            return Compared("eager", "other results", float("inf"), most)
        rows = []
        for number, (one, other) in enumerate(zip(self._static, self._eager, strict=True)):
            limit = max(allowed(_type(one), one, one), most if one.dtype.kind in "fc" else 0.0)
            rows.append(Compared("eager", f"result {number}", difference(one, other), limit))
        return (_worst(rows) or [Compared("eager", "", 0.0, most)])[0]

    def first_difference(self, setting: Setting, gap: float) -> Finding:
        """The first eager operation whose value no node of its line in the graph has."""
        values = setting.values(double=False)
        traced: dict[str, list[Node]] = {}
        for node, place in setting.graph.locations.items():
            line = f"{place.file}:{place.line}"
            if isinstance(node.type, TensorType):
                traced.setdefault(line, []).append(node)
        for name, line, found in self._operations:
            nodes = [values.tensor(node) for node in traced.get(line, ())]
            known = [value for value in nodes if value is not None]
            if known and not any(difference(v, f) <= _EAGER for v in known for f in found):
                file, _, number = line.rpartition(":")
                return Finding("eager", name, "", "", Location(file, int(number)), gap)
        text = "what runs eagerly is not what was traced (a side effect, a value read elsewhere)"
        return Finding("eager", text, "", "", None, gap)


def _worst(rows: Sequence[Compared]) -> list[Compared]:
    """The row to show for many: what is wrong, or else the largest difference."""
    return sorted(rows, key=lambda row: (row.ok, -row.difference))[:1]


def _type(array: np.ndarray[Any, Any]) -> TensorType:
    return TensorType(from_numpy_dtype(array.dtype), array.shape)


def _numbers(result: Any) -> list[np.ndarray[Any, Any]]:
    leaves = pytree.flatten(result)[0]
    return [
        np.array(x.numpy(force=True) if isinstance(x, Tensor) else x)
        for x in leaves
        if isinstance(x, (Tensor, bool, int, float))
    ]
