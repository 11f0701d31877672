"""Schedules kept between processes: a program seen before skips passes and lowering.

A plan is found by the traced graph's hash, the number of threads and a digest
of the compiler's own files, with what this process has changed about it.  It
lies in the kernel cache, under the same rules: only from the user's own folder,
checked for damage, never needed.  The machine code of its kernels lies beside it,
linked, for it takes longer to look up and link a hundred than to copy all of them.
What was where in the user's code is not part of it (equal graphs share a plan).
"""

from __future__ import annotations

import marshal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow import flags
from graphflow.codegen.schedule import Schedule
from graphflow.codegen.schedule_form import from_bytes, to_bytes
from graphflow.codegen.target import chosen_target
from graphflow.digests import new_digest
from graphflow.ir.graph import Graph
from graphflow.records import NamedTuple
from graphflow.runtime.cache import LinkedCode, adopt_linked, linked_code
from graphflow.runtime.compiler_files import compiler_digest
from graphflow.runtime.folder import read_file, store, usable_folder
from graphflow.runtime.preparation import companions
from graphflow.runtime.walk import Walk

if TYPE_CHECKING:
    from graphflow.autograd.postponed import Draft


class Plan(NamedTuple):
    """A schedule, and the walk through it if its sizes are fixed."""

    schedule: Schedule
    walk: Walk | None


def plan_key(
    graph: Graph | Draft,
    threads: int,
    example: Mapping[str, int],
    keep: bool = False,
    limit: int | None = None,
    measured: bool = False,
    amended: bytes = b"",
    hidden: frozenset[int] = frozenset(),
) -> bytes:
    """What a schedule depends on; ``example`` are sizes of symbolic dimensions it is tuned for,
    ``limit`` bytes of memory all that it may need; ``measured`` says that blocks were chosen
    by timing them, ``amended`` how the compiler was not what its files are
    (:data:`~graphflow.digests.amendments`), ``hidden`` which outputs may lie in any order."""
    digest = new_digest(compiler_digest())
    facts = graph.hash(), _where(threads, amended), sorted(example.items()), keep, limit, measured
    digest.update(" ".join(map(str, (*facts, sorted(hidden)))).encode())
    return digest.digest()


def text_key(text: str, threads: int, amended: bytes) -> bytes:
    """The key of a program by the text of a file; only who has read the text stores under it."""
    digest = new_digest(compiler_digest())
    digest.update(f"{_where(threads, amended)} {len(text)} {text}".encode())
    return digest.digest()


def _where(threads: int, amended: bytes) -> str:
    """The machine that a plan is for, the version of Python, in whose own form it is kept, and
    what was changed about the compiler."""
    return f"{threads} {chosen_target().identity} {sys.implementation.cache_tag} {amended.hex()}"


def load_plan(key: bytes) -> Plan | None:
    """What was stored under ``key``; None when there is nothing that can be trusted."""
    folder = usable_folder()
    if folder is None or flags.DISABLE_JIT.value:
        return None
    payload = read_file(_path(folder, key), key)
    if payload is None:
        return None
    found, row, code = marshal.loads(payload)
    schedule = from_bytes(found)
    if code is not None:
        adopt_linked(LinkedCode(*code), schedule.kernels)
    return Plan(schedule, None if row is None else Walk.from_row(row))


def is_stored(key: bytes) -> bool:
    """Whether something was stored under ``key``."""
    folder = usable_folder()
    return folder is not None and not flags.DISABLE_JIT.value and _path(folder, key).exists()


def store_plan(key: bytes, plan: Plan) -> None:
    """Keep ``plan`` for the next process."""
    folder = usable_folder()
    if folder is None or flags.DISABLE_JIT.value:
        return
    schedule, walk = plan
    try:
        payload = to_bytes(schedule)
    except TypeError:
        return  # a host operation that only this process knows
    row = None if walk is None else walk.to_row()
    code = linked_code([*schedule.kernels, *companions()])
    parts: list[Any] | None = None if code is None else [*code]
    store(_path(folder, key), key, marshal.dumps((payload, row, parts)))


def _path(folder: Path, key: bytes) -> Path:
    return folder / f"program-{key.hex()[:24]}.plan"
