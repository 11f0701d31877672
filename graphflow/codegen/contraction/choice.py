"""Which blocks a product is cut into, where measurements choose and not the cost model.

A choice never changes the order in which an element's sum is added up, so any gives the
same bits.  :func:`asking` puts an adviser in charge of all that is lowered meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from graphflow.records import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """Columns and rows (or tiles, of Winograd's products) at a time, and whether the second
    operand is packed: -1 where there is nothing to choose."""

    columns: int = 0
    rows: int = 0
    pack_b: int = -1

    @property
    def words(self) -> tuple[int, int, int]:
        """As plain numbers."""
        return self.columns, self.rows, self.pack_b

    def __str__(self) -> str:
        parts = [f"{self.columns} columns"] if self.columns else []
        parts += [f"{self.rows} rows"] if self.rows else []
        packing = {0: ["in place"], 1: ["packed"]}
        return ", ".join([*parts, *packing.get(self.pack_b, [])])


USUAL = Choice()
"""What the cost model takes."""


class Adviser(Protocol):
    """Who chooses."""

    def choose(self, product: str, usual: Choice, others: Sequence[Choice]) -> Choice:
        """One of ``usual``, which the cost model takes, and ``others`` for ``product``."""


_advisers: list[Adviser] = []
"""The last one is in charge; programs are built one at a time."""


@contextmanager
def asking(adviser: Adviser) -> Iterator[None]:
    """Ask ``adviser`` about every product that is lowered."""
    _advisers.append(adviser)
    try:
        yield
    finally:
        _advisers.pop()


def advised() -> bool:
    """Whether anybody is to be asked."""
    return bool(_advisers)


def choose(product: str, usual: Choice, others: Sequence[Choice]) -> Choice:
    """What the adviser in charge chooses."""
    different = [one for one in dict.fromkeys(others) if one != usual]
    return _advisers[-1].choose(product, usual, different)
