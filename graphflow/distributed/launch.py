"""Starting a job: ``mpiexec`` around :mod:`graphflow.distributed.worker`, and how the job ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import IO

from graphflow.distributed.board import Board, Stage, read_board
from graphflow.distributed.process_group import is_mpi_available
from graphflow.distributed.worker import BOARD, FAILURE
from graphflow.errors import GraphFlowError

_DISTRIBUTIONS = ("mpich", "openmpi", "impi-rt")
_PID = re.compile(rb"PID (\d+) RUNNING AT")
_SIGNAL = re.compile(rb"\(signal (\d+)\)")
_RULE, _BANNER, _END = b"=====", b"BAD TERMINATION", b"Please see the FAQ"
_GRACE_SECONDS = 5.0
"""How long mpiexec may take to stop the other ranks."""
_ABORT = re.compile(rb"Abort\(\d+\) on node .*MPI_Abort\(MPI_COMM_WORLD")


def mpiexec() -> str:
    """The ``mpiexec`` of the installed MPI package, or else of the system."""
    if not is_mpi_available():
        raise GraphFlowError(
            "graphflow launch needs MPI; install it with: pip install 'graphflow[distributed]'"
        )
    for name in _DISTRIBUTIONS:
        try:
            listed = files(name) or []
        except PackageNotFoundError:
            continue
        for file in listed:
            if file.name == "mpiexec":
                return str(Path(str(file.locate())).resolve())
    import shutil

    found = shutil.which("mpiexec")
    if found is None:
        raise GraphFlowError(
            "no mpiexec found beside mpi4py; install one with: pip install 'graphflow[distributed]'"
        )
    return found


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
    program = mpiexec()
    with tempfile.TemporaryDirectory(prefix="graphflow-job-") as name:
        job = Path(name)
        Board.create(job / BOARD, ranks)
        command = [program, "-n", str(ranks)]
        command += ["-hosts", hosts] if hosts else []
        command += ["-prepend-rank"] if label else []
        command += [sys.executable, "-m", "graphflow.distributed.worker"]
        command += ["-" if hosts else name, script, *arguments]
        return _Job(job, ranks).run(command, _environment(ranks, threads))


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

    def __init__(self, folder: Path, ranks: int) -> None:
        self.folder, self.ranks = folder, ranks
        self.pid = self.signal = 0  # of the first rank that died, from mpiexec
        self.first_gone = -1  # the first rank that vanished, as we saw it
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
        watchers = [
            threading.Thread(target=self._watch, daemon=True),
            threading.Thread(target=self._stop_when_failed, args=(process,), daemon=True),
        ]
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
            for thread in pumps:
                thread.join(10)
        return 130 if interrupted else self._conclude(status)

    def _conclude(self, status: int) -> int:
        """Print the one line that says how the job failed, if it did; its exit status."""
        try:
            said = json.loads((self.folder / FAILURE).read_text())
        except (OSError, ValueError):
            said = None
        if said is not None:
            sys.stderr.write(said["trace"])
            return self._say(f"rank {said['rank']} {said['cause']}", int(said["code"]))
        entries = {entry.pid: entry for entry in read_board(self.folder / BOARD)}
        if self.signal or status < 0:
            number = self.signal or -status
            name = signal.Signals(number).name if number in signal.valid_signals() else "?"
            known = entries.get(self.pid)
            who = "a rank" if known is None else f"rank {known.rank}"
            where = f" (process {self.pid})" if self.pid else ""
            return self._say(f"{who}{where} was killed by signal {number}, {name}", 128 + number)
        if status:
            who = "a rank" if self.first_gone < 0 else f"rank {self.first_gone}"
            return self._say(f"{who} ended with exit status {status}", status)
        return 0

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

    def _watch(self) -> None:
        """Find out which rank vanishes first without having ended."""
        if not hasattr(os, "pidfd_open"):
            return
        descriptors: dict[int, int] = {}
        poll = select.poll()
        try:
            while not self.over.is_set() and self.first_gone < 0:
                self._open_missing(descriptors, poll)
                for descriptor, _ in poll.poll(200) if descriptors else ():
                    poll.unregister(descriptor)
                    self._gone(descriptors[descriptor])
                if not descriptors:
                    time.sleep(0.05)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _stop_when_failed(self, process: subprocess.Popen[bytes]) -> None:
        """Stop what mpiexec has not stopped in time after a rank has failed."""
        while not self.over.wait(0.2):
            if self.first_gone >= 0 or (self.folder / FAILURE).exists():
                if not self.over.wait(_GRACE_SECONDS):
                    for entry in read_board(self.folder / BOARD):
                        if entry.pid and entry.stage is not Stage.ENDED:
                            with contextlib.suppress(OSError):
                                os.kill(entry.pid, signal.SIGKILL)
                    process.kill()
                return

    def _open_missing(self, descriptors: dict[int, int], poll: select.poll) -> None:
        if len(descriptors) == self.ranks:
            return
        try:
            entries = read_board(self.folder / BOARD)
        except OSError:
            return
        for entry in entries:
            if entry.pid and entry.rank not in descriptors.values():
                try:
                    descriptor = os.pidfd_open(entry.pid)
                except OSError:
                    continue
                descriptors[descriptor] = entry.rank
                poll.register(descriptor, select.POLLIN)

    def _gone(self, rank: int) -> None:
        try:
            entry = read_board(self.folder / BOARD)[rank]
        except (OSError, IndexError):
            return
        if entry.stage is not Stage.ENDED and self.first_gone < 0:
            self.first_gone = rank


def _write(target: IO[str], line: bytes) -> None:
    raw = getattr(target, "buffer", None)
    if raw is None:
        target.write(line.decode(errors="replace"))
    else:
        raw.write(line)
    target.flush()
