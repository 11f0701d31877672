"""State that belongs on the CPU, used by a program on a device: a generator's, or one number.
Also what lies on the device, but not as kernels take it.

The device has a copy.  Where a step's update of it needs nothing but the state itself, as a
generator's does, the host makes the same update, so that nothing is copied either way from one
step to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow.cell import Cell
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.on_device import copy_into
from graphflow.records import dataclass, field
from graphflow.runtime.cuda.memory import DeviceArray

Array = np.ndarray[Any, Any]
MOST_NODES = 8
"""A longer update is the device's alone."""


@dataclass(slots=True)
class Carried:
    """State number ``position``: its memory, mostly on the CPU, and ``here`` on the device.

    ``advance`` is what a step makes of it, if the host can tell.
    """

    position: int
    cell: Cell
    here: DeviceArray
    advance: Callable[[Array], Array] | None
    _known: Array | None = field(default=None)  # what the device's copy holds

    def to_device(self) -> None:
        """Before a step: the value, if the device does not have it."""
        if isinstance(self.cell.value, DeviceArray):
            copy_into(self.here, self.cell.value)
            return
        if self._known is None or not np.array_equal(self._known, self.cell.value):
            copy_into(self.here, self.cell.value)
            self._known = np.array(self.cell.value)

    def forget(self) -> None:
        """After a step that failed: what the device has is not known any more."""
        self._known = None

    def back(self) -> None:
        """After a step that changes the state: its new value where it belongs."""
        if isinstance(self.cell.value, DeviceArray):
            copy_into(self.cell.value, self.here)
            return
        if self.advance is None:
            copy_into(self.cell.value, self.here)
        else:
            np.copyto(self.cell.value, self.advance(self.cell.value))
        self._known = np.array(self.cell.value)


def own_update(graph: Graph, node: Node) -> Callable[[Array], Array] | None:
    """What a step makes of state ``node``, if it depends on that alone and is short."""
    new = dict(graph.updates).get(node)
    if new is None:
        return None
    update = Graph((), (), (node,), ((node, new),))
    leaves = {n for n in update.nodes if not n.inputs}
    if len(update.nodes) > MOST_NODES or update.has_control:
        return None
    if not leaves <= {node, *update.constants}:
        return None
    name = node.attrs["name"]
    return lambda value: interpret(update, (), {name: value}).state[name]
