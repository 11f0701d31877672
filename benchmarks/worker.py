"""One system in a process of its own, driven line by line in JSON.

Every system has its own threads and memory, and sleeps while another has its
turn.  ``Worker`` is the driver's end; ``python -m benchmarks.worker`` the other.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from benchmarks.changes import STEPS

CHECKED_STEPS = 5
SAMPLED = 1000


LIMITS = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "GRAPHFLOW_CPU_FEATURES": "-avx512f",
    }
}
"""Variables that keep every system from using more than a set of instructions."""


def environment(threads: int) -> dict[str, str]:
    """Thread counts for every system, which must be set before it is imported."""
    chosen = {**os.environ, "JAX_PLATFORMS": "cpu", "GRAPHFLOW_NUM_THREADS": str(threads)}
    if "PYTENSOR_FLAGS" not in chosen:
        chosen["PYTENSOR_FLAGS"] = "cxx="  # compiled by Numba; no C++ compiler is looked for
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        chosen[name] = str(threads)
    if threads == 1:
        alone = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        chosen["XLA_FLAGS"] = f"{chosen.get('XLA_FLAGS', '')} {alone}".strip()
    return chosen


def answer_of(command: list[str], env: dict[str, str]) -> Any:
    """What a command prints as JSON in its last line; a ``RuntimeError`` with its last words."""
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def parser_of(module: str, systems: Collection[str], threads: int = 2) -> argparse.ArgumentParser:
    """What programs share that run themselves once for each system, as ``--system``."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=threads, help="of the systems' own")
    parser.add_argument("--system", choices=systems, help=argparse.SUPPRESS)
    return parser


class Worker:
    """A system's process; ``ask`` sends one command and waits for the answer."""

    def __init__(self, system: str, threads: int, python: str) -> None:
        self.system = system
        self.process: subprocess.Popen[str] | None = None
        if shutil.which(python):
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", system, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(threads),
            )

    def ask(self, **command: Any) -> Any:
        """The answer; a ``RuntimeError`` with what went wrong in the worker."""
        if self.process is None:
            raise RuntimeError(f"{self.system}: Unavailable: its interpreter is not there")
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it is over, and so is its output
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.system}: its process ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.system}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


SETTLE_SECONDS = 0.25
"""Other systems' threads spin for up to 200 ms after their turn; their heat is not ours."""

WARM_SECONDS = 0.1
"""Untimed calls before a block: what is timed is the steady step."""


class Session:
    """What the worker does for each command."""

    def __init__(self, system: str, threads: int) -> None:
        self.system, self.threads = system, threads
        self.prepared: Any = None

    def prepare(self, workload: str, sizes: dict[str, Any] | None = None) -> dict[str, Any]:
        """Build a workload, run it a few times; seconds of the first call and results.

        ``sizes`` replaces fields of the workload.
        """
        from benchmarks.systems import prepare
        from benchmarks.workloads import WORKLOADS, Expression

        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in (sizes or {}).items()}
        begin = time.perf_counter()
        self.prepared = None  # the last workload's memory goes first
        chosen: Any = dataclasses.replace(WORKLOADS[workload], **fields)
        self.prepared = prepare(self.system, chosen, self.threads)
        results = [self.prepared.read(self.prepared.call()).copy()]
        first = time.perf_counter() - begin
        if not isinstance(chosen, Expression):
            for _ in range(CHECKED_STEPS - 1):
                results.append(self.prepared.read(self.prepared.call()).copy())
        flat = np.concatenate([np.atleast_1d(r).ravel() for r in results])
        every = max(1, flat.size // SAMPLED)
        return {"first": first, "sample": flat[::every].astype(float).tolist()}

    def change(self) -> list[float]:
        """The losses of the calls that follow each change, in the program that was timed."""
        losses = []
        for change in self.prepared.changes:
            change()
            losses += [float(self.prepared.read(self.prepared.call())) for _ in range(STEPS)]
        return losses

    def time(self, count: int, pause: float) -> list[float]:
        """Seconds of ``count`` calls, each after ``pause`` seconds of busy Python."""
        call = self.prepared.call
        time.sleep(SETTLE_SECONDS)
        awake = time.perf_counter() + WARM_SECONDS
        while not pause and time.perf_counter() < awake:
            call()  # the scheduler takes tens of milliseconds to spread threads that slept
        seconds = []
        clock = time.perf_counter
        for _ in range(count):
            if pause:
                until = clock() + pause
                while clock() < until:
                    pass
            begin = clock()
            call()
            seconds.append(clock() - begin)
        return seconds


def serve(system: str, threads: int) -> None:
    """Answer commands on standard input until it ends."""
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        # JAX's own settings leave it a second thread for large products.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    session = Session(system, threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a system prints must not mix with the answers
    commands: dict[str, Callable[..., Any]] = {
        "prepare": session.prepare,
        "time": session.time,
        "change": session.change,
    }
    for line in sys.stdin:
        command = json.loads(line)
        try:
            value: Any = {"value": commands[command.pop("do")](**command)}
        except Exception as error:
            value = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(value) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
