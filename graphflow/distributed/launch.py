"""Starting a job: ``mpiexec`` around :mod:`graphflow.distributed.worker`, and how the job ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import IO

from graphflow.distributed.board import Board, Entry, Stage, read_board
from graphflow.distributed.ends import Ends
from graphflow.distributed.process_group import is_mpi_available
from graphflow.distributed.worker import BOARD, FAILURE, SEGMENTS
from graphflow.errors import GraphFlowError

_DISTRIBUTIONS = {"mpich": ["-disable-auto-cleanup"], "openmpi": [], "impi-rt": []}
"""Packages with an mpiexec, and how each is told to leave ranks alone when another one dies: it
does not know which was the first by the time it has stopped them, so we stop them."""
_PID = re.compile(rb"PID (\d+) RUNNING AT")
_SIGNAL = re.compile(rb"\(signal (\d+)\)")
_RULE, _BANNER, _END = b"=====", b"BAD TERMINATION", b"Please see the FAQ"
_FAILED = b"YOUR APPLICATION TERMINATED WITH THE EXIT STRING"
_GRACE_SECONDS = 5.0
"""How long the other ranks may take to end."""
_LOOK_SECONDS = 0.1
_ABORT = re.compile(rb"Abort\(\d+\) on node .*MPI_Abort\(MPI_COMM_WORLD")


def mpiexec() -> tuple[str, list[str]]:
    """The ``mpiexec`` of the installed MPI package, or else of the system.

    With it the options with which it leaves the stopping of ranks to us.
    """
    if not is_mpi_available():
        raise GraphFlowError(
            "graphflow launch needs MPI; install it with: pip install 'graphflow[distributed]'"
        )
    for name, patient in _DISTRIBUTIONS.items():
        try:
            listed = files(name) or []
        except PackageNotFoundError:
            continue
        for file in listed:
            if file.name == "mpiexec":
                return str(Path(str(file.locate())).resolve()), patient
    import shutil

    found = shutil.which("mpiexec")
    if found is None:
        raise GraphFlowError(
            "no mpiexec found beside mpi4py; install one with: pip install 'graphflow[distributed]'"
        )
    return found, []


def launch(
    script: str, arguments: Sequence[str], ranks: int, *, threads: int | None = None,
    hosts: str | None = None, label: bool = False,
) -> int:  # fmt: skip
    """Run ``script`` on ``ranks`` processes; the exit status, after one line if the job failed.

    ``threads`` a rank: by default the cores are divided.  ``hosts``: machines for ``mpiexec``,
    separated by commas.  ``label``: begin every line of output with its rank.
    """
    if ranks < 1:
        raise GraphFlowError(f"a job has at least one rank, not {ranks}")
    if not Path(script).is_file():
        raise GraphFlowError(f"{script}: no such file")
    program, patient = mpiexec()
    with tempfile.TemporaryDirectory(prefix="graphflow-job-") as name:
        job = Path(name)
        watched = not hosts and Ends.can_be_known()
        Board.create(job / BOARD, ranks, watched)
        command = [program, *(patient if watched else []), "-n", str(ranks)]
        command += ["-hosts", hosts] if hosts else []
        command += ["-prepend-rank"] if label else []
        command += [sys.executable, "-m", "graphflow.distributed.worker"]
        command += ["-" if hosts else name, script, *arguments]
        return _Job(job, ranks, watched).run(command, _environment(ranks, threads))


def _environment(ranks: int, threads: int | None) -> dict[str, str]:
    """The environment of a rank: cores are divided unless the user has said how many."""
    share = threads or max(1, len(os.sched_getaffinity(0)) // ranks)
    found = dict(os.environ)
    if threads:
        found["GRAPHFLOW_NUM_THREADS"] = str(threads)
    for name in ("GRAPHFLOW_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        found.setdefault(name, str(share))
    return found


class _Job:
    """A job under way, and what is known about its end."""

    def __init__(self, folder: Path, ranks: int, watched: bool) -> None:
        self.folder, self.ranks = folder, ranks
        self.pid = self.signal = 0  # of a rank that died, from mpiexec
        self.ends = Ends(folder / BOARD, ranks) if watched else None
        self.over = threading.Event()

    def run(self, command: Sequence[str], environment: dict[str, str]) -> int:
        """Start it, pass its output on, and return the exit status."""
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None and process.stderr is not None
        pumps = [
            threading.Thread(target=self._pump, args=(process.stdout, sys.stdout)),
            threading.Thread(target=self._pump, args=(process.stderr, sys.stderr)),
        ]
        watchers = [threading.Thread(target=self._stop_when_failed, args=(process,), daemon=True)]
        if self.ends is not None:
            watch = self.ends.watch
            watchers.append(threading.Thread(target=watch, args=(self.over,), daemon=True))
        for thread in (*pumps, *watchers):
            thread.start()
        interrupted = False
        held = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            while True:
                try:
                    status = process.wait()
                    break
                except KeyboardInterrupt:  # mpiexec gets it from the terminal, too
                    interrupted = True
                    process.send_signal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGTERM, held)
            self.over.set()
            for thread in (*pumps, *watchers):
                thread.join(10)
        code = 130 if interrupted else self._conclude(status)
        if code:
            self._clear()
        if self.ends is not None:
            self.ends.close()
        return code

    def _clear(self) -> None:
        """Remove shared memory that MPI would have removed in the end, which did not come."""
        with contextlib.suppress(OSError):
            for path in (self.folder / SEGMENTS).read_text().split():
                os.unlink(path)

    def _conclude(self, status: int) -> int:
        """Print the one line that says how the job failed, if it did; its exit status."""
        try:
            said = json.loads((self.folder / FAILURE).read_text())
        except (OSError, ValueError):
            said = None
        if said is not None:
            sys.stderr.write(said["trace"])
            return self._say(f"rank {said['rank']} {said['cause']}", int(said["code"]))
        if status == 0:
            return 0
        first, how = self._first()
        who = "a rank" if first is None else f"rank {first.rank}"
        if how is None:  # mpiexec's word, which is one for all ranks that it has stopped
            how = -self.signal if self.signal else status
        if how >= 0:
            return self._say(f"{who} ended with exit status {how}", how or 1)
        name = signal.Signals(-how).name if -how in signal.valid_signals() else "?"
        pid = self.pid if first is None else first.pid
        where = f" (process {pid})" if pid else ""
        return self._say(f"{who}{where} was killed by signal {-how}, {name}", 128 - how)

    def _first(self) -> tuple[Entry | None, int | None]:
        """The rank whose end ended the job, and how if that is known: as we saw it, else as
        mpiexec names its process."""
        found, how = self._failed()
        if found is not None:
            return found, how
        known = {entry.pid: entry for entry in read_board(self.folder / BOARD)}
        return known.get(self.pid), None

    def _failed(self) -> tuple[Entry | None, int | None]:
        """What :meth:`Ends.failed` says; nothing where ends are not watched."""
        return (None, None) if self.ends is None else self.ends.failed()

    def _say(self, what: str, status: int) -> int:
        others = "" if self.ranks == 1 else "; the other ranks were stopped"
        print(f"graphflow launch: {what}{others}", file=sys.stderr, flush=True)
        return status

    # ---- output and ends --------------------------------------------------------------------

    def _pump(self, source: IO[bytes], target: IO[str]) -> None:
        """Pass lines on, but for those in which mpiexec tells what we tell better."""
        held: bytes | None = None
        inside = False
        for line in source:
            if inside:
                self._learn(line)
                inside = not line.startswith(_END)
                continue
            if held is not None and _BANNER in line:
                held, inside = None, True
                continue
            if held is not None:
                _write(target, held)
                held = None
            if line.startswith(_RULE):
                held = line
            elif line.startswith(_FAILED):  # what it says of ranks that it did not have to stop
                self._learn(line)
                inside = True
            elif not _ABORT.match(line):
                _write(target, line)
        if held is not None:
            _write(target, held)

    def _learn(self, line: bytes) -> None:
        found = _PID.search(line)
        if found and not self.pid:
            self.pid = int(found[1])
        found = _SIGNAL.search(line)
        if found and not self.signal:
            self.signal = int(found[1])

    def _stop_when_failed(self, process: subprocess.Popen[bytes]) -> None:
        """Stop the other ranks after one has died, and what does not end in time after a failure.

        After an exit with status 0 they may be about to end, too.
        """
        while not self.over.wait(_LOOK_SECONDS):
            gone = self._failed()[0] is not None
            if gone or (self.folder / FAILURE).exists():
                self.over.wait(_LOOK_SECONDS)  # until mpiexec has asked how it ended
                died = gone and self._failed()[1] != 0
                if died or not self.over.wait(_GRACE_SECONDS):
                    self._stop_ranks()
                if not self.over.wait(_GRACE_SECONDS):
                    if self.ends is not None:
                        self.ends.stop()
                    if not self.over.wait(_LOOK_SECONDS):
                        process.kill()
                return

    def _stop_ranks(self) -> None:
        for entry in read_board(self.folder / BOARD):
            if entry.pid and entry.stage is not Stage.ENDED:
                with contextlib.suppress(OSError):
                    os.kill(entry.pid, signal.SIGKILL)


def _write(target: IO[str], line: bytes) -> None:
    raw = getattr(target, "buffer", None)
    if raw is None:
        target.write(line.decode(errors="replace"))
    else:
        raw.write(line)
    target.flush()
