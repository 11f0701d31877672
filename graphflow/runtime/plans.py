"""Schedules kept between processes: a program seen before skips passes and lowering.

A plan is found by the traced graph's hash, the number of threads and a digest
of the compiler's own files.  It lies in the kernel cache, under the same rules:
only from the user's own folder, checked for damage, never needed.  What was
where in the user's code is not part of it (equal graphs share a plan).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphflow import flags
from graphflow.codegen.schedule import Schedule
from graphflow.codegen.schedule_form import from_bytes, to_bytes
from graphflow.codegen.target import host_target
from graphflow.digests import new_digest
from graphflow.ir.graph import Graph
from graphflow.runtime.compiler_files import compiler_digest
from graphflow.runtime.folder import read_file, store, usable_folder


def plan_key(
    graph: Graph,
    threads: int,
    example: Mapping[str, int],
    keep: bool = False,
    limit: int | None = None,
    measured: bool = False,
) -> bytes:
    """What a schedule depends on; ``example`` are sizes of symbolic dimensions it is tuned for,
    ``limit`` bytes of memory all that it may need; ``measured`` says that blocks were chosen
    by timing them."""
    digest = new_digest(compiler_digest())
    facts = graph.hash(), threads, host_target().identity, sorted(example.items()), keep, limit
    digest.update(" ".join(map(str, (*facts, measured))).encode())
    return digest.digest()


def text_key(text: str, threads: int) -> bytes:
    """The key of a program by the text of a file; only who has read the text stores under it."""
    digest = new_digest(compiler_digest())
    digest.update(f"{threads} {host_target().identity} {len(text)} {text}".encode())
    return digest.digest()


def load_plan(key: bytes) -> Schedule | None:
    """The schedule stored under ``key``; None when there is none that can be trusted."""
    folder = usable_folder()
    if folder is None or flags.DISABLE_JIT.value:
        return None
    payload = read_file(_path(folder, key), key)
    if payload is None:
        return None
    return from_bytes(payload)


def store_plan(key: bytes, schedule: Schedule) -> None:
    """Keep ``schedule`` for the next process."""
    folder = usable_folder()
    if folder is None:
        return
    try:
        payload = to_bytes(schedule)
    except TypeError:
        return  # a host operation that only this process knows
    store(_path(folder, key), key, payload)


def _path(folder: Path, key: bytes) -> Path:
    return folder / f"program-{key.hex()[:24]}.plan"
