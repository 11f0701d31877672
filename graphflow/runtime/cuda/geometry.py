"""How many blocks of how many threads a kernel is started with."""

from __future__ import annotations

from graphflow.codegen.cuda.simulator import SIMULATED_THREADS
from graphflow.codegen.cuda.toolchain import is_simulated
from graphflow.codegen.schedule import Launch

MOST_BLOCKS = (1 << 31) - 1
"""A thread for every portion of work is faster than a few that stride; beyond so many they do."""
SIMULATED_BLOCKS = 2


def geometry(launch: Launch, items: int) -> tuple[int, int]:
    """Blocks and threads a block for ``items`` portions of work.

    A kernel without a shared loop has one portion and gets one thread: its work is not
    to be done twice.
    """
    most = SIMULATED_BLOCKS if is_simulated() else MOST_BLOCKS
    threads = launch.block
    if is_simulated():
        threads = min(threads, max(SIMULATED_THREADS, launch.least))
    if launch.by_block:
        return max(1, min(items, most)), threads
    threads = max(1, min(threads, items))
    return max(1, min(-(-items // threads), most)), threads
