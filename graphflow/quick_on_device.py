"""The quick call of a program on a device: what of :mod:`graphflow.quick` is different there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from graphflow.cell import Cell
from graphflow.quick import counted, has_word, returned
from graphflow.runtime.cuda.memory import DeviceArray
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.entry import Entry


def taken(i: int, spec: Sequence[Any], names: dict[str, Any]) -> Iterator[str]:
    """Argument ``i`` is a tensor as ``spec`` says, on the program's device: its array."""
    yield f"if arg{i}.__class__ is not Tensor or arg{i}._chain: return MISS"
    yield f"if arg{i}._requires_grad is not {bool(spec[2])}: return MISS"
    yield f"word{i} = arg{i}._cell.value"
    yield f"if not fits(word{i}, spec{i}, arg{i}._cell): return MISS"


def run(entry: Entry, names: dict[str, Any]) -> Iterator[str]:
    """The step, and tensors over its results."""
    program: Any = entry.program
    device, owned = program.index, entry.owned

    def fits(array: Any, spec: Sequence[Any], cell: Cell) -> bool:
        return (
            array.__class__ is DeviceArray
            and array.dtype is spec[0]
            and array.shape == spec[1]
            and array.block.device == device
            and array.is_ready
            and cell not in owned
        )

    names["fits"], names["tensor_over"], names["step"] = fits, _tensor_over, program.step
    given = "".join(f"word{i}, " for i, spec in enumerate(entry.specs) if has_word(spec))
    yield from counted(entry, names, [f"made = step(({given}*program.scalar_values,))"])
    yield from returned(entry, names, "made", "made[0]")


def _tensor_over(array: DeviceArray) -> Tensor:
    return Tensor._of(Cell(array))
