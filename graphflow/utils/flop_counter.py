"""Counts of the operations in products and convolutions, by the names of PyTorch's counter.

An addition and a multiplication are two.  What the records of operations say of themselves is
counted, so a gradient is counted as what it is made of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import numpy as np

from graphflow import compiled, dispatch
from graphflow.backends import cpu
from graphflow.errors import GraphFlowError, TraceError
from graphflow.ir import build
from graphflow.ir.node import Node
from graphflow.ir.op import Application, Kind, OpDef
from graphflow.ir.products import depth_of
from graphflow.mode import mode, operation_by_operation
from graphflow.profiling.eager_modules import EagerModules
from graphflow.tables import table

__all__ = ["FlopCounterMode"]

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_GLOBAL = "Global"


class _Modules(EagerModules):
    """Modules by the names of their classes, which is how tables of counts call them."""

    def root_name(self, module: Any) -> str:
        """The class's name."""
        return type(module).__name__


class FlopCounterMode:
    """``with FlopCounterMode() as counter: …`` counts what the block adds and multiplies.

    In products and convolutions, forwards and backwards, by module; ``display`` prints the table,
    down to ``depth`` modules within each other, at the end.  Compiled functions run operation by
    operation in the block, so that theirs are counted, too; programs without their function
    (``load_program``) are not.
    """

    def __init__(
        self, mods: Any = None, depth: int = 2, display: bool = True,
        custom_mapping: Mapping[Any, Any] | None = None,
    ) -> None:  # fmt: skip
        if custom_mapping:
            raise ValueError(
                "FlopCounterMode counts what operations say of themselves: there is no "
                "custom_mapping"
            )
        self.depth, self.display = depth, display
        self._modules = _Modules()
        self._counts: dict[str, dict[str, int]] = {}
        self._known: dict[Any, int] = {}
        self._open: ExitStack | None = None

    def __enter__(self) -> FlopCounterMode:
        if mode.tracer is not None:
            raise TraceError(
                "FlopCounterMode inside a compiled function counts nothing; use it around the call"
            )
        if self._open is not None:
            raise GraphFlowError("this FlopCounterMode is counting already")
        self._modules, self._counts = _Modules(), {}
        with ExitStack() as stack:
            stack.enter_context(_operation_by_operation())
            stack.enter_context(self._modules.watched())
            stack.enter_context(_replaced(dispatch, "_values", self._counted(dispatch._values)))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._open is not None
        opened, self._open = self._open, None
        opened.close()
        if self.display and exc[0] is None:
            print(self.get_table(self.depth))

    def get_total_flops(self) -> int:
        """All of them."""
        return sum(sum(counts.values()) for counts in self._counts.values())

    def get_flop_counts(self) -> dict[str, dict[str, int]]:
        """By module and operation: "Global" is all, and a module has what is in it, too."""
        found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for path, counts in self._counts.items():
            for name, count in counts.items():
                for owner in (_GLOBAL, *_enclosing(path, self._modules.entered)):
                    found[owner][name] += count
        return {owner: dict(counts) for owner, counts in found.items()}

    def get_table(self, depth: int | None = None) -> str:
        """A row a module, and below it a row an operation."""
        depth = self.depth if depth is None else depth
        counts, total = self.get_flop_counts(), self.get_total_flops()
        rows: list[Sequence[str]] = []
        for owner in (_GLOBAL, *sorted(counts.keys() - {_GLOBAL})):
            level = 0 if owner == _GLOBAL else owner.count(".") + 1
            if level > depth:
                continue
            own = counts.get(owner, {})
            rows.append(_row(owner, level, sum(own.values()), total))
            rows += [_row(f"- {name}", level, own[name], total) for name in sorted(own)]
        return table(["Module", "FLOP", "% Total"], rows)

    def _counted(self, values: Any) -> Any:
        """``dispatch._values``, counting."""

        def counting(op: OpDef, reference: Any, inputs: Any, attrs: Any) -> Any:
            found = values(op, reference, inputs, attrs)
            if op.kind is Kind.CONTRACTION or op.decompose is not None:
                count = self._count(op, inputs, attrs)
                if count:
                    counts = self._counts.setdefault(self._modules.path, defaultdict(int))
                    counts[op.name] += count
            return found

        return counting

    def _count(self, op: OpDef, inputs: Any, attrs: Mapping[str, Any]) -> int:
        types = tuple(t._type_now() for t in inputs)
        key = (op.name, types, repr(sorted(attrs.items(), key=lambda item: item[0])))
        found = self._known.get(key)
        if found is None:
            leaves = tuple(build.input_node(f"x{i}", t) for i, t in enumerate(types))
            found = self._known[key] = _flops(op, leaves, attrs)
        return found


def _flops(op: OpDef, inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> int:
    """Of one operation: its own, or those of what it is made of."""
    if op.contraction is not None:
        node = build.emit(op, *inputs, **attrs)
        return 2 * depth_of(node) * prod(node.tensor_type.static_shape)
    if op.slides:
        return _flops_of_taps(build.emit(op, *inputs, **attrs))
    if op.decompose is None:
        return 0
    made = op.decompose(build.NODES, Application(inputs, None, attrs))
    return _flops_above(made if isinstance(made, tuple) else (made,), set(inputs))


def _flops_of_taps(node: Node) -> int:
    """Of taps that slide over images: padding counts, zeros between elements do not."""
    image, taps = (n.tensor_type.static_shape for n in node.inputs)
    first = len(image) - len(node.attrs["steps"])
    pairs = [
        _pairs(extent, places, count, *geometry)
        for extent, places, count, *geometry in zip(
            image[first:], node.tensor_type.static_shape[first:], taps[first:],
            *(node.attrs[name] for name in ("steps", "low", "spread", "dilations")),
        )
    ]  # fmt: skip
    groups, outputs, inputs = taps[:3]
    return 2 * image[0] * groups * outputs * inputs * prod(pairs)


def _pairs(
    extent: int, places: int, taps: int, step: int, low: int, spread: int, dilation: int
) -> int:
    """Along one axis, how often a tap meets an element of the image."""
    if spread == 1:
        return places * taps
    at = np.arange(places)[:, None] * step + np.arange(taps) * dilation - low
    return int(((at % spread == 0) & (at >= 0) & (at < extent * spread)).sum())


def _flops_above(results: tuple[Any, ...], below: set[Node]) -> int:
    """Of all nodes that ``results`` are made of, down to those ``below``."""
    total, waiting = 0, [r for r in results if isinstance(r, Node)]
    while waiting:
        node = waiting.pop()
        if node in below:
            continue
        below.add(node)
        total += _flops(node.op, node.inputs, node.attrs)
        waiting += node.inputs
    return total


def _enclosing(path: str, entered: set[str]) -> list[str]:
    """The modules that were called and have ``path`` in them, and itself."""
    parts = path.split(".") if path else []
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return [name for name in names if name in entered or name == path]


def _row(name: str, level: int, count: int, total: int) -> Sequence[str]:
    share = count / total if total else 0.0
    return [" " * level + name, _shown(count), f"{share:.2%}"]


def _shown(count: int) -> str:
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.3f}{unit}"
    return str(count)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _operation_by_operation() -> Iterator[None]:
    """Everything runs as single operations: what is compiled, and what eager code compiles."""

    def original(made: Any, *args: Any, **kwargs: Any) -> Any:
        return operation_by_operation(made.original)(*args, **kwargs)

    with (
        _replaced(cpu, "eager_kernels", False),
        _replaced(compiled.Compiled, "__call__", original),
        _replaced(mode, "one_by_one", True),
    ):
        yield
