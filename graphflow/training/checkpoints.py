"""Checkpoints of a training run: written beside the training, whole or not at all, verified."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.records import dataclass
from graphflow.serialization.safetensors import Array
from graphflow.serialization.structure import described, restored
from graphflow.training import checkpoint_files as files
from graphflow.training.checkpoint_files import DamagedCheckpoint, Manifest
from graphflow.training.ranks import busy, decided, place
from graphflow.training.state import RANDOM, captured, classes, differences, put_back

try:
    import fcntl
except ImportError:  # Windows: two jobs in one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_LOCK_SECONDS = 20.0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in its folder: which step, the metrics given with it, and where it lies."""

    step: int
    metrics: dict[str, float]
    path: Path


class CheckpointManager:
    """Saves the whole state of a run while it goes on, and finds its way back.

    ``folder`` holds the checkpoints and nothing else.  ``parts``: what has a state, by name:
    modules, optimisers, schedules, a ``GradScaler``, a :class:`ResumableLoader`, generators,
    anything with ``state_dict`` and ``load_state_dict``.  The global random numbers of
    GraphFlow, Python and NumPy are always saved.  ``keep``: how many of the newest stay; with
    ``best="val_loss"`` the best by that metric (``mode``: ``"min"`` or ``"max"``) stays as well.

    :meth:`save` copies the state and returns; a thread writes it (unless ``asynchronous`` is
    False).  What goes wrong there, a full disk for example, is raised by the next :meth:`save`
    or :meth:`wait`.  A folder takes its name when all of it is on the disk.  On several ranks every
    rank calls the same methods in the same order, and writes its share of the state;
    ``timeout``: seconds without a sign of life after which another rank's share is missed.
    """

    def __init__(
        self, folder: Any, parts: Mapping[str, Any], *, keep: int = 3, best: str | None = None,
        mode: str = "min", asynchronous: bool = True, timeout: float = 30.0,
    ) -> None:  # fmt: skip
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"keep should be a positive integer, got {keep!r}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode should be 'min' or 'max', got {mode!r}")
        if RANDOM in parts or not parts:
            raise ValueError(f"parts are named things with a state, and none is {RANDOM!r}")
        self.folder, self.parts = Path(folder), dict(parts)
        self.keep, self.best_metric, self.mode = keep, best, mode
        self.asynchronous, self.timeout = asynchronous, timeout
        self._rank, self._size = place()
        self._copies: dict[str, Array] = {}
        self._writer = _Writer()
        self._begun = False
        self._release: Callable[[], Any] = lambda: None
        self._job = decided(self._open)

    def _open(self) -> str:
        """Make the folder this job's (on rank 0); the name that its unfinished files have."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        self._release = weakref.finalize(self, os.close, lock)
        if fcntl is not None:
            _lock(lock, self.folder)
        files.forget_parts(self.folder)
        return secrets.token_hex(4)

    # ---- saving -----------------------------------------------------------------------------

    def save(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Begin to save the state as it is now, under ``step``.

        ``metrics``: numbers to keep beside it.  Waits for the checkpoint before to be written,
        and raises what went wrong with it.  Checkpoints of later steps belong to a history that
        was left by :meth:`restore`, and are removed.
        """
        self.wait()
        if not self._begun:
            self._begin()
        shared, own = captured(self.parts)
        arrays, structure = described(shared)
        own_arrays, own_structure = described(own)
        mine = {name: arrays[name] for name in _share(arrays, self._rank, self._size)}
        mine.update({files.OWN + name: array for name, array in own_arrays.items()})
        snapshot = self._copied(mine)
        manifest = {
            "step": int(step),
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "classes": classes(self.parts),
            "structure": structure,
        }
        self._writer.start(
            lambda: self._write(manifest, snapshot, own_structure, set(arrays)),
            f"checkpoint {int(step)}", self.asynchronous,
        )  # fmt: skip

    def _begin(self) -> None:
        """Before the first save: nobody's checkpoints are mixed with those of another run."""
        there = files.listed(self.folder)
        if decided(lambda: bool(there)):
            raise GraphFlowError(
                f"{self.folder} holds checkpoints already; call restore() to go on from them, "
                "or save into another folder"
            )
        self._begun = True

    def _copied(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Copies, in the memory of those made for the checkpoint before where they fit."""
        made = {}
        for name, array in arrays.items():
            old = self._copies.get(name)
            if old is None or old.shape != array.shape or old.dtype != array.dtype:
                old = np.empty(array.shape, array.dtype)
            np.copyto(old, array)
            made[name] = old
        self._copies = made
        return made

    def _write(
        self, manifest: dict[str, Any], arrays: dict[str, Array], own: str, names: set[str]
    ) -> None:
        name = files.folder_name(manifest["step"])
        part = self.folder / f".{name}.{self._job}{files.PART}"
        try:
            files.write_shard(part, self._rank, self._size, arrays, own)
            if self._rank == 0:
                notes = files.gather_notes(part, self._size, self.timeout)
                files.publish(part, self.folder / name, manifest, notes, names)
                self._prune(manifest["step"])
        except OSError as error:
            raise _cannot_write(self.folder, error, self._who()) from error
        except GraphFlowError as error:
            raise GraphFlowError(f"{self.folder / name} was not saved: {error}") from error

    def _who(self) -> str:
        return f"rank {self._rank}: " if self._size > 1 else ""

    def _prune(self, step: int) -> None:
        """Remove what is not kept after ``step`` was saved."""
        there = files.listed(self.folder)
        known = [s for s in there if s <= step]
        kept = set(known[-self.keep :])
        best = self._best(there[s] for s in known) if self.best_metric else None
        kept |= set() if best is None else {best.step}
        for number, path in there.items():
            if number not in kept:
                files.remove(path)

    def wait(self) -> None:
        """Return when the last checkpoint is on the disk; raise what went wrong with it."""
        if self._writer.under_way():
            with busy():
                self._writer.finish()
        self._writer.raise_error()

    def close(self) -> None:
        """:meth:`wait`, and let another process use the folder."""
        try:
            self.wait()
        finally:
            self._release()

    def __enter__(self) -> CheckpointManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if error is None:
            self.close()
        else:
            with contextlib.suppress(GraphFlowError):  # the first error is the one to see
                self.close()

    # ---- looking ----------------------------------------------------------------------------

    def all(self) -> list[Checkpoint]:
        """The checkpoints there are, the oldest first; damaged ones are left out."""
        self.wait()
        return _readable(files.listed(self.folder).values())

    def latest(self) -> Checkpoint | None:
        """The newest one."""
        return next(reversed(self.all()), None)

    def best(self) -> Checkpoint | None:
        """The best one by the metric that the manager was told of."""
        self.wait()
        return self._best(files.listed(self.folder).values())

    def _best(self, paths: Iterable[Path]) -> Checkpoint | None:
        name, sign = self.best_metric, -1.0 if self.mode == "max" else 1.0
        rated = [c for c in _readable(paths) if not math.isnan(c.metrics.get(name or "", math.nan))]
        return min(rated, key=lambda c: sign * c.metrics[name or ""], default=None)

    # ---- restoring --------------------------------------------------------------------------

    def restore(
        self, step: int | None = None, only: Iterable[str] | None = None
    ) -> Checkpoint | None:
        """Give all parts the state of the newest checkpoint; None if there is none.

        Every file is held against its checksum.  Is the newest damaged, a warning names it and
        the one before is taken; with ``step`` exactly that one is wanted, and damage is an error.
        ``only``: names of parts; the others, and random numbers, stay as they are.  A checkpoint of
        another model, or of a newer version, is an error, and nothing has changed then.
        """
        self.wait()
        chosen = decided(lambda: self._choose(step))
        if only is None:
            self._begun = True
        if chosen is None:
            return None
        manifest = files.read_manifest(files.listed(self.folder)[chosen])
        self._load(manifest, None if only is None else list(only))
        return Checkpoint(manifest.step, manifest.metrics, manifest.path)

    def _choose(self, step: int | None) -> int | None:
        """The newest intact checkpoint's step, or ``step`` once it is known to be intact."""
        there = files.listed(self.folder)
        if step is not None:
            if step not in there:
                known = ", ".join(map(str, there)) or "none"
                raise GraphFlowError(f"{self.folder}: no checkpoint of step {step}; there: {known}")
            files.verify(files.read_manifest(there[step]))
            return step
        for number in reversed(there):
            try:
                files.verify(files.read_manifest(there[number]))
                return number
            except DamagedCheckpoint as error:
                warnings.warn(f"{error}; the one before is used", stacklevel=5)
        if there:
            raise GraphFlowError(
                f"{self.folder}: all checkpoints are damaged (steps {', '.join(map(str, there))}); "
                "start anew in another folder"
            )
        return None

    def _load(self, manifest: Manifest, only: list[str] | None) -> None:
        whole, own_arrays, own_structure = files.read_shards(manifest, self._rank)
        file = str(manifest.path)
        shared = restored(whole, manifest.structure, file)
        own = restored(own_arrays, own_structure, file)
        parts = self.parts if only is None else {name: self.parts[name] for name in only}
        wrong = differences(parts, manifest.classes, shared, own, everything=only is None)
        if wrong:
            raise GraphFlowError(f"{manifest.path}: a checkpoint of another run: {wrong}")
        new = self._rank if self._rank >= len(manifest.files) else 0
        put_back(parts, shared, own, new=new, numbers=only is None)


class _Writer:
    """One thing at a time that is done by a thread, and how it ended."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []
        weakref.finalize(self, _tell, self._errors)

    def start(self, task: Any, name: str, apart: bool) -> None:
        """Run ``task``, on a thread of its own if ``apart``."""
        errors = self._errors

        def run() -> None:
            try:
                task()
            except BaseException as error:
                errors.append(error)

        if apart:
            self._thread = threading.Thread(target=run, name=name)
            self._thread.start()
        else:
            with busy():
                task()

    def under_way(self) -> bool:
        """Whether the last task has still to be waited for."""
        return self._thread is not None

    def finish(self) -> None:
        """Return when the last task has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def raise_error(self) -> None:
        """Raise what it raised, once."""
        if self._errors:
            raise self._errors.pop()


def _tell(errors: list[BaseException]) -> None:
    """At the end of a process that never asked how its last checkpoint went."""
    for error in errors:
        warnings.warn(f"{error} (and nobody waited for it)", stacklevel=1)


def _lock(file: int, folder: Path) -> None:
    """Let no other process write here; one that is just being ended is waited for."""
    began = time.monotonic()
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks
            if time.monotonic() - began > _LOCK_SECONDS:
                raise GraphFlowError(
                    f"another process writes checkpoints into {folder}; "
                    "a run has a folder of its own"
                ) from None
            time.sleep(0.05)


def _cannot_write(folder: Path, error: OSError, who: str = "") -> GraphFlowError:
    return GraphFlowError(f"{who}cannot write checkpoints to {str(folder)!r}: {error}")


def _readable(paths: Iterable[Path]) -> list[Checkpoint]:
    found = []
    for path in paths:
        with contextlib.suppress(DamagedCheckpoint):
            manifest = files.read_manifest(path)
            found.append(Checkpoint(manifest.step, manifest.metrics, path))
    return found


def _share(arrays: Mapping[str, Array], rank: int, size: int) -> list[str]:
    """The names that ``rank`` writes: the largest first, each to whom has least so far."""
    held, mine = [0] * size, set()
    for name in sorted(arrays, key=lambda n: (-arrays[n].nbytes, n)):
        least = held.index(min(held))
        held[least] += arrays[name].nbytes
        if least == rank:
            mine.add(name)
    return [name for name in arrays if name in mine]
