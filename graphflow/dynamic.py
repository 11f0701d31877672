"""Which dimensions of a compiled function's arguments are symbolic, and its programs for them.

``gf.compile(fn, dynamic=...)`` names dimensions; without it a dimension becomes symbolic
by itself when its size changes for the second time.  Dimensions that always had equal
sizes are taken to be one.  A trace that needs the size of a dimension (``range(n)``, an
operation that works for known sizes only) is made again with that dimension fixed, and
the reason is kept for ``explain()``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphflow.argument_memory import shared_cells
from graphflow.errors import GraphFlowError
from graphflow.guards import Described
from graphflow.records import dataclass, field
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.backward_program import BackwardProgram
    from graphflow.capture import Capture
    from graphflow.program import Program
    from graphflow.traced_sizes import Assumption

SIZES_BEFORE_DYNAMIC = 2
"""Sizes of one dimension that get programs of their own; the next makes it symbolic."""
_SPECIAL = (0, 1)
"""Sizes at which operations behave otherwise: no reason to fix a dimension for good."""


@dataclass(frozen=True)
class Place:
    """A dimension of an argument: leaf number, axis, the argument's name and the size now."""

    index: int
    axis: int
    label: str
    size: int


@dataclass(frozen=True)
class Dynamic:
    """The symbolic dimensions of a call: leaf number → axis → name."""

    dims: Mapping[int, Mapping[int, str]]
    largest: Mapping[str, int] = field(default_factory=dict)
    """The largest size seen of each: what kernels are tuned for."""

    def sizes_of(self, leaves: Sequence[Any]) -> dict[str, int]:
        """The size of every symbol in these arguments."""
        return {
            name: leaves[index]._eager().shape[axis]
            for index, axes in self.dims.items()
            for axis, name in axes.items()
        }

    def sized(
        self, leaves: Sequence[Any], labels: Sequence[str], names: frozenset[str]
    ) -> list[Place]:
        """Where the dimensions called ``names`` are, with their sizes."""
        sizes = self.sizes_of(leaves)
        return [
            Place(index, axis, labels[index], sizes[name])
            for index, axes in self.dims.items()
            for axis, name in axes.items()
            if name in names
        ]

    def without(self, names: frozenset[str]) -> Dynamic | None:
        """The rest when the dimensions called ``names`` are fixed; None if nothing is left."""
        kept = {
            index: {axis: name for axis, name in axes.items() if name not in names}
            for index, axes in self.dims.items()
        }
        kept = {index: axes for index, axes in kept.items() if axes}
        return Dynamic(kept, self.largest) if kept else None

    @property
    def names(self) -> frozenset[str]:
        """The symbols."""
        return frozenset(name for axes in self.dims.values() for name in axes.values())


@dataclass(eq=False)
class Family:
    """A program with symbolic dimensions, and what a call must look like to be served by it."""

    dynamic: Dynamic
    capture: Capture
    program: Program
    shapes: tuple[tuple[int, ...] | None, ...]
    backward: BackwardProgram | None = None

    def sizes(self, leaves: Sequence[Any]) -> dict[str, int] | None:
        """The sizes of the symbols for a call, None if its fixed dimensions are others."""
        found: dict[str, int] = {}
        for index, shape in enumerate(self.shapes):
            if shape is None:
                continue
            axes = self.dynamic.dims.get(index, {})
            for axis, extent in enumerate(leaves[index]._eager().shape):
                name = axes.get(axis)
                wanted = shape[axis] if name is None else found.setdefault(name, extent)
                if extent != wanted:
                    return None
        return found

    def broken(self, sizes: Mapping[str, int]) -> Assumption | None:
        """The first assumption about sizes that does not hold for these."""
        return next((a for a in self.capture.assumptions if not a.holds(sizes)), None)


@dataclass
class Dimensions:
    """What is known of the arguments' dimensions of one compiled function, by kind of call."""

    asked: Any = None
    """``gf.compile(dynamic=...)``: None, a bool, or names by parameter and axis."""
    seen: dict[Any, list[list[tuple[int, ...] | None]]] = field(default_factory=dict)
    families: dict[Any, list[Family]] = field(default_factory=dict)
    fixed: dict[tuple[Any, int, int], str] = field(default_factory=dict)
    """Dimensions that could not be symbolic: (kind of call, leaf, axis), and why."""
    notes: dict[str, None] = field(default_factory=dict)
    """What ``explain()`` says."""

    def family(self, kind: Any, leaves: Sequence[Any]) -> tuple[Family, dict[str, int]] | None:
        """The latest program with symbolic dimensions that serves these arguments."""
        for family in reversed(self.families.get(kind, ())):
            sizes = family.sizes(leaves)
            if sizes is not None and family.broken(sizes) is None:
                return family, sizes
        return None

    def broken(self, kind: Any, leaves: Sequence[Any]) -> tuple[str, Any, Any] | None:
        """The assumption about sizes that keeps a program from serving these arguments."""
        for family in reversed(self.families.get(kind, ())):
            sizes = family.sizes(leaves)
            found = family.broken(sizes) if sizes is not None else None
            if found is not None and sizes is not None:
                names = sorted(found.dim.symbols)
                now = ", ".join(f"{name} = {sizes[name]}" for name in names)
                return f"the size of {', '.join(names)}", Described(str(found)), Described(now)
        return None

    def choose(self, kind: Any, leaves: Sequence[Any], labels: Sequence[str]) -> Dynamic | None:
        """The dimensions to make symbolic in a new trace for these arguments."""
        shapes = shapes_of(leaves)
        history = [*self.seen.get(kind, []), shapes]
        if self.asked is False or shared_cells(leaves):
            return None
        places = self._asked(leaves, labels)
        named = dict(places)
        if not places and self.asked is None:
            places = {
                place: ""
                for place in _places(shapes)
                if len({_size(before, place) for before in history}) > SIZES_BEFORE_DYNAMIC
            }
        dims: dict[int, dict[int, str]] = {}
        names: dict[tuple[int, ...], str] = {}
        for index, axis in places:
            if (kind, index, axis) in self.fixed:
                continue
            name = named.get((index, axis))
            if not name:
                sizes = tuple(_size(before, (index, axis)) for before in history)
                name = names.get(sizes)
                if name is None:
                    name = names[sizes] = _fresh(axis, {*names.values(), *named.values()})
            dims.setdefault(index, {})[axis] = name
        largest = {
            name: max(_size(before, (index, axis)) for before in history)
            for index, axes in dims.items()
            for axis, name in axes.items()
        }
        return _consistent(Dynamic(dims, largest), leaves) if dims else None

    def _asked(self, leaves: Sequence[Any], labels: Sequence[str]) -> dict[tuple[int, int], str]:
        """The dimensions that ``dynamic=`` asks for, with their names if they have one."""
        if self.asked in (None, False):
            return {}
        if self.asked is True:
            return {(i, 0): "" for i, shape in enumerate(shapes_of(leaves)) if shape}
        found: dict[tuple[int, int], str] = {}
        for label, axes in self.asked.items():
            matching = [i for i, own in enumerate(labels) if own == label]
            nested = [i for i, own in enumerate(labels) if re.fullmatch(rf"{label}_\d+", own)]
            if not matching and not nested:
                raise GraphFlowError(
                    f"dynamic names the argument {label!r}; this call has {', '.join(labels)}"
                )
            for index in matching or [i for i in nested if isinstance(leaves[i], Tensor)]:
                for axis, name in axes.items():
                    found[index, _axis(leaves[index], label, axis)] = name
        return found

    def remember(self, kind: Any, leaves: Sequence[Any]) -> None:
        """A program was made for these sizes."""
        self.seen.setdefault(kind, []).append(shapes_of(leaves))

    def fix(self, kind: Any, places: Sequence[Place], why: str, always: bool) -> None:
        """Fix these dimensions, for this call or ``always`` (never because of a special size).

        Whoever named them as symbolic is told that they are not.
        """
        always = always and not any(place.size in _SPECIAL for place in places)
        for place in places:
            if always:
                self.fixed[kind, place.index, place.axis] = why
            note = f"fixed: {place.label}[{place.axis}] = {place.size}: {why}"
            if always and isinstance(self.asked, Mapping) and note not in self.notes:
                warnings.warn(f"a dimension named as dynamic is {note}", stacklevel=2)
            self.notes[note] = None

    def note(self, dynamic: Dynamic, labels: Sequence[str]) -> None:
        """Say which dimensions are symbolic."""
        for name in sorted(dynamic.names):
            places = [
                f"{labels[index]}[{axis}]"
                for index, axes in dynamic.dims.items()
                for axis, own in axes.items()
                if own == name
            ]
            why = "asked for" if self.asked else "its size changed more than once"
            self.notes[f"dynamic: {name} = {', '.join(places)} ({why})"] = None

    def clear(self) -> None:
        """Forget everything but what was asked for."""
        for known in (self.seen, self.families, self.fixed, self.notes):
            known.clear()


def check_asked(asked: Any) -> None:
    """Refuse a ``dynamic=`` that says nothing."""
    if asked is None or isinstance(asked, bool):
        return
    if isinstance(asked, Mapping) and all(
        isinstance(label, str)
        and isinstance(axes, Mapping)
        and all(isinstance(a, int) and str(n).isidentifier() for a, n in axes.items())
        for label, axes in asked.items()
    ):
        return
    raise TypeError(
        "dynamic must be True, False or names of dimensions by parameter and axis, such as "
        f'{{"images": {{0: "batch"}}}}, not {asked!r}'
    )


def shapes_of(leaves: Sequence[Any]) -> list[tuple[int, ...] | None]:
    """The shape of every tensor, None for other leaves."""
    return [leaf._eager().shape if isinstance(leaf, Tensor) else None for leaf in leaves]


def _places(shapes: Sequence[tuple[int, ...] | None]) -> list[tuple[int, int]]:
    return [(i, axis) for i, shape in enumerate(shapes) for axis in range(len(shape or ()))]


def _size(shapes: Sequence[tuple[int, ...] | None], place: tuple[int, int]) -> int:
    shape = shapes[place[0]]
    return -1 if shape is None else shape[place[1]]


def _fresh(axis: int, taken: set[str]) -> str:
    stem = "batch" if axis == 0 else f"dim{axis}"
    name, count = stem, 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name


def _consistent(dynamic: Dynamic, leaves: Sequence[Any]) -> Dynamic:
    """Raise if one name stands for two sizes."""
    sizes = dynamic.sizes_of(leaves)
    for index, axes in dynamic.dims.items():
        for axis, name in axes.items():
            extent = leaves[index]._eager().shape[axis]
            if extent != sizes[name]:
                raise GraphFlowError(
                    f"the dimension '{name}' has size {extent} in one argument and "
                    f"{sizes[name]} in another"
                )
    return dynamic


def _axis(leaf: Any, label: str, axis: int) -> int:
    rank = leaf._eager().ndim if isinstance(leaf, Tensor) else 0
    if not -rank <= axis < rank:
        raise GraphFlowError(f"dynamic names dimension {axis} of {label!r}, which has {rank}")
    return axis % rank
