"""Tiles of matrix products on a GPU."""

from __future__ import annotations

from graphflow.codegen.cuda.toolchain import is_simulated
from graphflow.records import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """A block computes ``rows`` by ``columns`` results, ``depth`` products at a time; a
    thread has ``height`` by ``width`` of them in registers."""

    rows: int
    columns: int
    depth: int
    height: int
    width: int

    @property
    def threads(self) -> int:
        """Threads a block."""
        return (self.rows // self.height) * (self.columns // self.width)


LARGE = Tile(64, 64, 16, 4, 4)
SMALL = Tile(8, 4, 16, 4, 4)
"""For the simulator, where every thread is one of Python's."""


def tile_for_device() -> Tile:
    """The tile that kernels are written with."""
    return SMALL if is_simulated() else LARGE
