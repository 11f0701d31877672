"""Schedules kept between processes: a program seen before skips passes and lowering.

A plan is found by the traced graph's hash, the number of threads and a digest
of the compiler's own files.  It lies in the kernel cache, under the same rules:
only from the user's own folder, checked for damage, never needed.  What was
where in the user's code is not part of it (equal graphs share a plan), nor are
schedules with host operations, whose functions belong to the operation records.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from graphflow import flags
from graphflow.codegen.schedule import Branch, Call, Loop, Provenance, Schedule, Step, plain_steps
from graphflow.codegen.target import host_target
from graphflow.ir.graph import Graph
from graphflow.records import replace
from graphflow.runtime.folder import pack, read_file, usable_folder, warn_unwritable, write_file

_PACKAGE = Path(__file__).parent.parent
_COMPILER = ("ir", "passes", "codegen")


@cache
def _compiler_digest() -> bytes:
    """Changes when a file of the compiler does: by size and time, as reading all takes too long."""
    digest = hashlib.sha256()
    for path, facts in sorted((entry.path, entry.stat()) for entry in _sources()):
        digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.digest()


def _sources() -> Iterator[os.DirEntry[str]]:
    pending = [str(_PACKAGE / part) for part in _COMPILER]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                elif entry.name.endswith(".py"):
                    yield entry


def plan_key(graph: Graph, threads: int, example: Mapping[str, int]) -> bytes:
    """What a schedule depends on; ``example`` are sizes of symbolic dimensions it is tuned for."""
    digest = hashlib.sha256(_compiler_digest())
    tuned = sorted(example.items())
    digest.update(f"{graph.hash()} {threads} {host_target().identity} {tuned}".encode())
    return digest.digest()


def load_plan(key: bytes) -> Schedule | None:
    """The schedule stored under ``key``; None when there is none that can be trusted."""
    folder = usable_folder()
    if folder is None or flags.DISABLE_JIT.value:
        return None
    payload = read_file(_path(folder, key), key)
    if payload is None:
        return None
    schedule = pickle.loads(payload)
    return schedule if isinstance(schedule, Schedule) else None


def store_plan(key: bytes, schedule: Schedule) -> None:
    """Keep ``schedule`` for the next process."""
    folder = usable_folder()
    if folder is None or not all(isinstance(s, Call) for s in plain_steps(schedule.steps)):
        return
    payload = pickle.dumps(replace(schedule, steps=_bare(schedule.steps)))
    try:
        write_file(_path(folder, key), pack(key, payload))
    except OSError as error:
        warn_unwritable(folder, error)


def _bare(steps: Sequence[Step]) -> tuple[Step, ...]:
    """``steps`` without what they are for, those inside others too."""
    return tuple(map(_bare_step, steps))


def _bare_step(step: Step) -> Step:
    nothing = Provenance("")
    if isinstance(step, Loop):
        head, body = map(_bare, step.parts)
        return replace(step, provenance=nothing, head=head, body=body)
    if isinstance(step, Branch):
        then, otherwise = map(_bare, step.parts)
        return replace(step, provenance=nothing, then=then, otherwise=otherwise)
    return replace(step, provenance=nothing)


def _path(folder: Path, key: bytes) -> Path:
    return folder / f"program-{key.hex()[:24]}.plan"
