"""The call of a compiled function that has nothing to decide: one flat function a program.

After a few milliseconds of other work neither this code nor what it touches is in
the processor's caches any more, and every object looked at costs a miss.  So the
usual call (the program of the call before, the same kinds of arguments, fresh
results) is a function written for this program: a straight line of comparisons of
counters and identities, then one native call.  Names that the compiled function
closes over are its own free variables too, and are read as cheaply.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from graphflow import pytree
from graphflow.cell import Cell, layout_of
from graphflow.errors import GraphFlowError
from graphflow.mode import mode, structure
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.autograd.compiled import CallHistory
    from graphflow.entry import Entry
    from graphflow.runtime.storage import Storage

MISS: Any = object()
"""What a quick call returns when it does not apply; nothing has happened then."""

_FEW = 8
"""Cells that are counted one by one; more of them in a loop."""


def quick_call(entry: Entry) -> Callable[[tuple[Any, ...]], Any]:
    """``call(args)``: the program's results, or ``MISS`` when the slow path must decide."""
    names: dict[str, Any] = {
        "MISS": MISS, "Tensor": Tensor, "entry": entry, "mode": mode, "program": entry.program,
        "structure": structure, "tensor_over": tensor_over, "word": entry.word,
    }  # fmt: skip
    closed = [read.holder for read in entry.reads if read.key is None]
    taken, run = _words, _run
    if entry.program.portable:
        from graphflow.quick_on_device import run, taken
    lines = [
        *_unchanged(entry),
        *_same_names(entry, names),
        *_arguments(entry, names, taken),
        *run(entry, names),
    ]
    body = "\n".join(f"  {line}" for line in lines)
    free = ", ".join(f"cell{i}" for i in range(len(closed)))
    exec(f"def make({free}):\n def call(args):\n{body}\n return call", names)
    made: FunctionType = names.pop("make")(*closed)
    order = [int(name[len("cell") :]) for name in made.__code__.co_freevars]
    cells: tuple[CellType, ...] = tuple(closed[i] for i in order)
    return FunctionType(made.__code__, names, made.__name__, None, cells)


def _unchanged(entry: Entry) -> Iterator[str]:
    """Nothing that guards look at has changed, and the modes are the usual ones."""
    counter = "version" if entry.uses_grads else "solid"
    yield f"if entry.version != structure.{counter}: return MISS"
    unusual = "structure.unusual and " if entry.grad else ""
    yield f"if {unusual}(mode.tracer is not None or mode.grad is not {entry.grad}"
    yield "  or mode.guard is not None or mode.autocast is not None): return MISS"


def _same_names(entry: Entry, names: dict[str, Any]) -> Iterator[str]:
    """What the function reads by name is what it was when it was traced."""
    tests, closed = [], 0
    for number, read in enumerate(entry.reads):
        names[f"value{number}"] = read.value
        if read.key is None:
            tests.append(f"cell{closed} is value{number}")
            closed += 1
        else:
            names[f"get{number}"], names[f"key{number}"] = read.holder.get, read.key
            tests.append(f"get{number}(key{number}) is value{number}")
    if tests:
        yield "try:"
        yield f"  if not ({' and '.join(tests)}): return MISS"
        yield "except NameError: return MISS"  # a variable that was deleted


def _arguments(
    entry: Entry, names: dict[str, Any], taken: Callable[..., Iterator[str]]
) -> Iterator[str]:
    """Arguments of the known kinds; ``word0`` and so on are what the program takes.

    ``taken`` tells how a tensor is looked at.
    """
    count = len(entry.specs)
    yield f"if len(args) != {count}: return MISS"
    if count:
        yield f"{', '.join(f'arg{i}' for i in range(count))}, = args"
    for i, spec in enumerate(entry.specs):
        names[f"spec{i}"] = spec
        if not has_word(spec):
            yield f"if not word(arg{i}, spec{i}, []): return MISS"
        elif spec[0] is float:
            yield f"if arg{i}.__class__ is not float: return MISS"
            yield f"word{i} = arg{i}"
        else:
            yield from taken(i, spec, names)
    for first, second in entry.same:
        yield f"if arg{first}._cell is not arg{second}._cell: return MISS"
    yield "if entry.values != structure.values:"
    yield "  program.refresh()"
    yield "  entry.values = structure.values"


def _words(i: int, spec: Sequence[Any], names: dict[str, Any]) -> Iterator[str]:
    """Argument ``i`` is a tensor as ``spec`` says: its address."""
    names[f"layout{i}"] = layout_of(*spec[:2])
    yield f"if arg{i}.__class__ is Tensor and arg{i}._cell.layout is layout{i}:"
    yield f"  if arg{i}._requires_grad is not {bool(spec[2])} or arg{i}._chain: return MISS"
    yield f"  word{i} = arg{i}._cell._address"
    yield "else:"
    yield "  found = []"
    yield f"  if not word(arg{i}, spec{i}, found): return MISS"
    yield f"  word{i}, = found"


def has_word(spec: Sequence[Any]) -> bool:
    """False for arguments that are no tensors and no run-time numbers: they are assumed."""
    return spec[0] is not None


def _run(entry: Entry, names: dict[str, Any]) -> Iterator[str]:
    """The native call, and tensors over its results."""
    loaded = entry.program.loaded
    given = [f"word{i}" for i, spec in enumerate(entry.specs) if has_word(spec)]
    given += [f"scalar{i}" for i in range(len(entry.program.scalar_values))]
    scalars = given[len(given) - len(entry.program.scalar_values) :]
    if scalars:
        yield f"{', '.join(scalars)}, = program.scalar_values"
    names["launch"] = loaded.launcher()
    launch = f"launch(({''.join(f'{name}, ' for name in given)}))"
    if loaded.is_brief and len(loaded.takes) == 1:
        names["take"], names["pack"], names["start"] = loaded.takes[0], loaded.pack, loaded.native
        names["errors"] = (struct.error, OverflowError)
        words = [*map(str, loaded.head), *given, "storage.address"]
        lines = [
            "storage = take()",
            f"try: packed = pack({', '.join(words)})",
            f"except errors: storage, = {launch}",
            "else: start(packed)",
        ]
        made, first = "(storage,)", "storage"
    else:
        lines = [f"storages = {launch}"]
        made, first = "storages", "storages[0]"
    yield from counted(entry, names, lines)
    if entry.history is None:
        yield from returned(entry, names, made, first)
    else:
        yield from _recorded(entry, entry.history, names, made)


def _recorded(
    entry: Entry, history: CallHistory, names: dict[str, Any], made: str
) -> Iterator[str]:
    """The results, of which some have a history."""
    names |= {"cell_over": cell_over, "tensor_of": tensor_of, "record": history.record, "none": {}}
    yield f"cells = [cell_over(storage) for storage in {made}]"
    leaves, live = [], []
    for number, result in enumerate(entry.capture.results):
        leaves.append(f"result{number}")
        if result.kind == "value":
            names[f"plain{number}"], made_of = result.value, f"plain{number}"
        elif result.chain:
            names["seen"], names[f"chain{number}"] = Tensor._of, result.chain
            made_of = f"seen(cells[{result.index}], chain{number})"
        else:
            made_of = f"tensor_of(cells[{result.index}])"
        yield f"result{number} = {made_of}"
        if result.differentiable is not None:
            live.append(f"result{number}, ")
    yield f"record(cells, ({''.join(live)}), args, (args, none))"
    yield from _nested(entry, names, leaves)


def _nested(entry: Entry, names: dict[str, Any], leaves: Sequence[str]) -> Iterator[str]:
    """What is returned, of expressions for its leaves."""
    if entry.capture.structure == pytree.LEAF:
        yield f"return {leaves[0]}"
        return
    names["unflatten"], names["nest"] = pytree.unflatten, entry.capture.structure
    yield f"return unflatten(nest, [{', '.join(leaves)}])"


def returned(entry: Entry, names: dict[str, Any], made: str, first: str) -> Iterator[str]:
    """What the function returns: tensors over the memory in ``made``, views and plain values.

    ``first`` is the first of that memory.
    """
    results = entry.capture.results
    alone = entry.capture.structure == pytree.LEAF
    if alone and results[0].kind == "new" and not results[0].chain:
        yield f"return tensor_over({first})"
        return
    leaves = []
    for number, result in enumerate(entry.capture.results):
        leaf = f"tensors[{result.index}]"
        if result.kind == "value":
            names[f"plain{number}"], leaf = result.value, f"plain{number}"
        elif result.chain:
            names["seen"], names[f"chain{number}"] = Tensor._of, result.chain
            leaf = f"seen({leaf}._cell, chain{number})"
        leaves.append(leaf)
    yield f"tensors = [tensor_over(storage) for storage in {made}]"
    yield from _nested(entry, names, leaves)


def counted(entry: Entry, names: dict[str, Any], step: Sequence[str]) -> Iterator[str]:
    """The lines of ``step``, then one more version of everything that it wrote to.

    Also if Ctrl-C comes after the last write: nobody may go by what the memory held before.
    """
    updated = tuple(entry.capture.updated)
    if not updated:
        yield from step
        return
    lines = [f"updated{number}.version += 1" for number in range(len(updated))]
    if len(updated) > _FEW:
        names["updated"], lines = updated, ["for cell in updated: cell.version += 1"]
    else:
        names |= {f"updated{number}": cell for number, cell in enumerate(updated)}
    names["Unchanged"] = GraphFlowError
    yield "try:"
    yield from (f"  {line}" for line in (*step, *lines))
    yield "except Unchanged: raise"
    yield "except BaseException:"
    yield from (f"  {line}" for line in (*lines, "raise"))


_new = object.__new__


def cell_over(storage: Storage) -> Cell:
    """A cell over fresh memory: ``Cell(…)`` without its call."""
    cell = _new(Cell)
    cell.value, cell._address = storage.array, storage.address
    cell.version, cell.shared = 0, False
    cell.tracer = cell.layout = cell.views = None
    return cell


def tensor_of(cell: Cell) -> Tensor:
    """The tensor over all of an eager cell: ``Tensor._of(cell)`` without its call."""
    self = _new(Tensor)
    self._cell, self._array, self._seen = cell, cell.value, cell.version
    self._base = self._grad = self._grad_fn = self._hooks = self.name = None
    self._requires_grad = self._weak = False
    self._origin, self._chain = 0, ()
    return self


def tensor_over(storage: Storage) -> Tensor:
    """A tensor over fresh memory: ``Tensor._of(Cell(…))`` in one function.

    After other work none of this is in the processor's caches, and what is called costs
    more than what is done.
    """
    cell, self = _new(Cell), _new(Tensor)
    self._cell, self._array = cell, storage.array
    cell.value, cell._address = self._array, storage.address
    cell.version = self._seen = self._origin = 0
    cell.shared = False
    cell.tracer = cell.layout = cell.views = None
    self._base = self._grad = self._grad_fn = self._hooks = self.name = None
    self._requires_grad = self._weak = False
    self._chain = ()
    return self
