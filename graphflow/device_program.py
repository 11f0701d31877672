"""A program whose tensors lie on a device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.carried_state import Carried, own_update
from graphflow.cell import Cell
from graphflow.codegen.schedule import Schedule
from graphflow.device import available
from graphflow.errors import IndexRangeError
from graphflow.ir.graph import Graph
from graphflow.on_device import (
    attention_switches,
    backend,
    copied,
    copy_into,
    part,
    ready,
    together,
    wanted,
)
from graphflow.program import Program
from graphflow.runtime.cuda.launch import CudaProgram
from graphflow.runtime.cuda.memory import DeviceArray
from graphflow.runtime.cuda.routines import Chosen
from graphflow.tensor import Tensor


class DeviceProgram(Program):
    """A program for CUDA: state and results are device arrays.

    State of a single number or a random generator's may lie on the CPU, see
    :mod:`graphflow.carried_state`.
    """

    def __init__(self, *args: Any, device: str | None = None, **options: Any) -> None:
        self.index = available(device or "cuda").index or 0
        self._stepping = threading.RLock()
        super().__init__(*args, **options)

    portable = True
    loaded: Any  # a CudaProgram

    @property
    def launching(self) -> str:
        """The device, and whether steps are replayed as CUDA graphs."""
        device = f"device: cuda:{self.index}; {self.loaded.replay}"
        lines = (device, str(self.loaded.products), str(self._chosen))
        return "\n".join(filter(None, lines))

    @property
    def simple(self) -> bool:
        """True when no result lies in other memory."""
        return not self._aliases

    def _schedule(self) -> Schedule:
        deterministic = backend(self.index).numerics.deterministic
        off, whole = attention_switches()
        self._chosen = Chosen(self.index, deterministic, off, whole, self._example)
        self._stays = self._chosen.stays
        self._placed = self._build()
        return self._placed

    def _lower(self, graph: Graph) -> Schedule:
        from graphflow.codegen.build_schedule import build_schedule

        return build_schedule(graph, 1, self._example, backend(self.index))

    def _prepare(self, graph: Graph) -> None:
        """Temporaries lie on the device."""

    def _load(self, scalars: frozenset[int], beside: Any) -> Any:
        from graphflow.backends import cuda

        return CudaProgram(
            self.schedule, scalars=scalars, beside=beside, device=self.index,
            replay=cuda.replay, library=wanted(),
        )  # fmt: skip

    def _bind(self) -> None:
        """Point every state at its memory, and read the run-time scalars."""
        self._carried: list[Carried] = []
        self._found: dict[int, DeviceArray] = {}  # the state that is bound, by position
        for position, cell in enumerate(self.cells):
            value = cell.value
            if isinstance(value, DeviceArray) or not _may_stay(value):
                self._together([value])
                if value.is_ready:
                    self.loaded.bind(position, value)
                    continue
            here = DeviceArray.empty(value.shape, value.dtype, self.index)
            advance = own_update(self.graph, self.graph.state[position])
            self._carried.append(Carried(position, cell, here, advance))
            self.loaded.bind(position, here)
        self.refresh()

    def _together(self, arrays: Sequence[Any]) -> list[DeviceArray]:
        return together(f"program {self.graph.name!r}", arrays, self.index)

    def run(self, inputs: Sequence[Any], bound: Sequence[tuple[int, Tensor]] = ()) -> list[Cell]:
        """One step on checked tensors and floats; the outputs as fresh memory."""
        arrays = iter(self._together([x._eager() for x in inputs if isinstance(x, Tensor)]))
        held = [ready(next(arrays)) if isinstance(x, Tensor) else x for x in inputs]
        made = self.step((*held, *self.scalar_values), bound)
        return list(map(Cell, made))

    def step(
        self, given: Sequence[Any], bound: Sequence[tuple[int, Tensor]] = ()
    ) -> list[DeviceArray]:
        """One step on arrays that are ready for kernels, and numbers; the outputs as fresh memory.

        Raises :class:`IndexRangeError` with the place in the user's code; state is then as it was.
        """
        with self._stepping:
            self._find_state()
            for number, tensor in bound:
                self._rebind(number, tensor)
            for carried in self._carried:
                carried.to_device()
            try:
                outputs = self.loaded.run(given)
            except BaseException as error:
                for carried in self._carried:
                    carried.forget()
                if not isinstance(error, IndexRangeError):
                    raise
                from graphflow.explain import with_places

                raise with_places(error, self.graph) from None
            self._give_back(bound)
            return [
                array if array is not None else self.alias(position, given)
                for position, array in enumerate(outputs)
            ]

    def _find_state(self) -> None:
        """Bind state again: its memory may have been replaced since the last run."""
        for position, cell in enumerate(self.cells):
            value = cell.value
            if value is self._found.get(position):
                continue
            direct = isinstance(value, DeviceArray) and value.is_ready
            if direct is any(carried.position == position for carried in self._carried):
                self._bind()  # it was ready for kernels, or has become so
                return
            if direct:
                self.loaded.bind(position, self._together([value])[0])
                self._found[position] = value

    def _give_back(self, bound: Sequence[tuple[int, Tensor]]) -> None:
        """Copy what the step changed to where it belongs."""
        for carried in self._carried:
            if carried.position in self._changing:
                carried.back()
        for number, tensor in bound:
            if number in self._changing:
                value = self._memory[self.graph.state[number]].value
                if value is not tensor._eager():
                    copy_into(tensor._eager(), value)
                tensor._cell.version += 1

    def _rebind(self, position: int, tensor: Tensor) -> Cell:
        """Let a state live in an argument's memory (a copy of it that kernels can take, if it is
        strided, or begins where no vector may)."""
        value = ready(self._together([tensor._eager()])[0])
        cell = Cell(value)
        self._memory[self.graph.state[position]] = cell
        self._found.pop(position, None)
        self.loaded.bind(position, value)
        return cell

    def alias(self, position: int, inputs: Sequence[Any]) -> Any:
        """A result that lies in an input or a state, copied out of it."""
        result, kind, index = self._aliases[position]
        base = inputs[index] if kind == "input" else self.loaded.state_array(index)
        return copied(part(base, result.type, result.offset, result.strides))


def _may_stay(value: np.ndarray[Any, Any]) -> bool:
    """Whether state on the CPU may be used by a program on a device."""
    return value.ndim == 0 or (value.shape == (2,) and value.dtype == np.int64)
