"""The call of a compiled function that has nothing to decide: one flat closure a program.

After a few milliseconds of other work neither this code nor what it touches is in
the processor's caches any more, and every object looked at costs a miss.  So the
usual call (the program of the call before, the same kinds of arguments, fresh
results) is one function over local variables: it compares counters and identities,
and everything it needs was looked up when the program was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphflow import pytree
from graphflow.cell import layout_of
from graphflow.mode import mode, structure
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.entry import Entry

MISS: Any = object()
"""What a quick call returns when it does not apply; nothing has happened then."""


def quick_call(entry: Entry) -> Callable[[tuple[Any, ...]], Any]:  # noqa: C901 - flat on purpose
    """``call(args)``: the program's results, or ``MISS`` when the slow path must decide."""
    program, count = entry.program, len(entry.specs)
    grad, uses_grads = entry.grad, entry.uses_grads
    reads = tuple((read.holder, read.key, read.value) for read in entry.reads)
    specs = tuple((layout_of(*spec[:2]), spec[2], spec) for spec in entry.specs)
    same, updated = entry.same, entry.capture.updated
    word, launch, tensor_over = entry.word, program.loaded.launcher(), Tensor._over
    nest, single = entry.capture.structure, entry.capture.structure == pytree.LEAF
    order = tuple(result.index for result in entry.capture.results)

    def call(args: tuple[Any, ...]) -> Any:  # noqa: C901 - flat on purpose
        if entry.version != (structure.version if uses_grads else structure.solid):
            return MISS
        if (structure.unusual or not grad) and (
            mode.tracer is not None or mode.grad is not grad or mode.guard is not None
        ):
            return MISS
        if len(args) != count:
            return MISS
        for holder, key, value in reads:
            if (holder.cell_contents if key is None else holder.get(key)) is not value:
                return MISS
        words: list[int | float] = []
        for arg, (layout, requires_grad, spec) in zip(args, specs):
            if arg.__class__ is Tensor and arg._cell.layout is layout:
                if arg._requires_grad is not requires_grad or arg._chain:
                    return MISS
                words.append(arg._cell._address)
            elif not word(arg, spec, words):
                return MISS
        for first, second in same:
            if args[first]._cell is not args[second]._cell:
                return MISS
        if entry.values != structure.values:
            program.refresh()
            entry.values = structure.values
        storages: Sequence[Any] = launch((*words, *program.scalar_values))
        for cell in updated:
            cell.version += 1
        if single:
            return tensor_over(storages[0])
        made = [tensor_over(storage) for storage in storages]
        return pytree.unflatten(nest, [made[index] for index in order])

    return call
