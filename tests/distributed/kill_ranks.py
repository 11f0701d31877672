"""Jobs that are killed again and again, and must end as if nothing had happened.

    python -m tests.distributed.kill_ranks --kills 20

A job with a checkpoint after every step loses a random rank, all of its processes at once, a
rank in the middle of writing a checkpoint, or its launcher alone, at random moments, all by
SIGKILL.  It is started again each time; at the end parameters, the optimiser's state and random
numbers are compared, bit by bit, with those of a job that nobody killed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KINDS = ("rank", "job", "write", "launcher")
END_SECONDS = 100.0
"""How long a job may take to end once one of its processes was killed."""
START_SECONDS = 300.0
STEPS_A_KILL = 6
_BEGINS = re.compile(r"begins after (\d+), process (\d+) is rank (\d+)")


@dataclass
class Life:
    """What a job did until it ended."""

    begun: int
    done: int
    status: int
    digests: dict[int, str]
    errors: str
    seconds: float


def living() -> dict[int, int]:
    """The parent of every process that has not ended, by what Linux says now."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            state, parent = text.rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(entry.name)] = int(parent)
    return parents


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    parents, found = living(), [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def end(pids: list[int]) -> None:
    """SIGKILL for all of them."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Job:
    """A job under way, whose output is read as it comes."""

    def __init__(self, ranks: int, folder: Path, steps: int, die: str = "") -> None:
        script = [str(HERE / "kill_job.py"), str(folder), str(steps)]
        launcher = ["-m", "graphflow", "launch", "-n", str(ranks)] if ranks > 1 else []
        environment = {**os.environ, **({"KILL_JOB_DIE": die} if die else {})}
        self.ranks = ranks
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, *launcher, *script], stdout=subprocess.PIPE, stderr=self.errors,
            text=True, env=environment,
        )  # fmt: skip
        self.pids: dict[int, int] = {}
        self.orphans: list[int] = []
        self.begun = self.done = 0
        self.digests: dict[int, str] = {}
        self.started = threading.Event()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            begins = _BEGINS.match(line)
            if begins:
                self.begun, pid, rank = map(int, begins.groups())
                self.pids[rank] = pid
            elif line.startswith("step "):
                self.done = max(self.done, int(line.split()[1]))
                if len(self.pids) == self.ranks:
                    self.started.set()
            elif line.startswith("digest"):
                rank, found = re.findall(r"rank (\d+): (\w+)", line)[0]
                self.digests[int(rank)] = found
        self.started.set()

    def kill(self, kind: str, rank: int, after: float) -> None:
        """Kill a rank, or everything, so many seconds after the first step was done."""
        self.started.wait(START_SECONDS)
        time.sleep(after)
        if kind == "job":
            end(descendants(self.process.pid))
        elif kind == "launcher":
            self.orphans = descendants(self.process.pid)
            end([self.process.pid])
        elif kind == "rank" and rank in self.pids and self.process.poll() is None:
            end([self.pids[rank]])

    def finish(self, seconds: float) -> Life:
        """How it ended; an error if it has not in so many seconds."""
        began = time.monotonic()
        hung = False
        while self.process.poll() is None or not living().keys().isdisjoint(self.orphans):
            time.sleep(0.05)
            hung = time.monotonic() - began > seconds
            if hung:
                end([*self.orphans, *descendants(self.process.pid)])
                break
        self.process.wait()
        self.reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if hung:
            raise AssertionError(f"the job hung for {seconds:g} s:\n{self._said()}")
        return Life(
            self.begun, self.done, self.process.returncode, self.digests, self._said(),
            time.monotonic() - began,
        )  # fmt: skip

    def _said(self) -> str:
        self.errors.seek(0)
        with self.errors:
            return self.errors.read()


def whole(ranks: int, folder: Path, steps: int) -> Life:
    """A job that runs to its end."""
    life = Job(ranks, folder, steps).finish(START_SECONDS)
    if life.status or len(life.digests) != ranks:
        raise AssertionError(f"the job did not end well: status {life.status}\n{life.errors}")
    return life


def killed(ranks: int, folder: Path, steps: int, kind: str, rng: random.Random) -> Life:
    """A job that is killed on its way."""
    rank = rng.randrange(ranks)
    # A checkpoint is about thirty calls that write; the first steps of the job fall into it.
    die = f"{rank},{rng.randrange(1, 120)}" if kind == "write" else ""
    job = Job(ranks, folder, steps, die)
    job.kill(kind, rank, rng.uniform(0.0, 0.15))
    life = job.finish(START_SECONDS if die else END_SECONDS)
    if kind in ("rank", "write") and ranks > 1 and life.status:
        last = (life.errors.splitlines() or [""])[-1]
        if not re.search(rf"rank {rank} \(process \d+\) was killed by signal 9", last):
            raise AssertionError(f"rank {rank} was killed, but what was said is:\n{life.errors}")
    return life


def torture(ranks: int, kills: int, seed: int, talk: bool = False) -> str:
    """Kill and compare; raises AssertionError, or says what happened."""
    rng = random.Random(seed)
    kinds = [KINDS[i % len(KINDS)] for i in range(kills)]
    if ranks == 1:
        kinds = [kind if kind == "write" else "job" for kind in kinds]
    rng.shuffle(kinds)
    steps, slowest, late = STEPS_A_KILL * kills + 10, 0.0, 0
    notes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = whole(ranks, folder / "whole", steps).digests
        reached = 0
        for number, kind in enumerate(kinds, 1):
            life = killed(ranks, folder / "killed", steps, kind, rng)
            notes.append(f"{kind} {life.begun}-{life.done}")
            if talk:
                print(f"{number:3} {notes[-1]:16} status {life.status}, ended after "
                      f"{life.seconds:.1f} s: {(life.errors.splitlines() or [''])[-1]}",
                      flush=True)  # fmt: skip
            if life.status not in (0, -signal.SIGKILL, 128 + signal.SIGKILL):
                raise AssertionError(f"seed {seed}, {kind}: {life.status}\n{life.errors}")
            if life.begun < reached - 1 and life.done:
                raise AssertionError(f"seed {seed}: step {reached} was lost: {', '.join(notes)}")
            reached, late = max(reached, life.done), late + (life.status == 0)
            slowest = max(slowest, life.seconds if kind != "write" else 0.0)
        last = whole(ranks, folder / "killed", steps)
        if last.digests != expected:
            raise AssertionError(f"seed {seed}: other bits after {', '.join(notes)}")
        left = {p.name for p in (folder / "killed").iterdir()}
        good = {".lock", *(f"step-{steps - i:08d}" for i in range(2))}
        if last.begun == steps:  # killed after the last was there, and before another went
            left.discard(f"step-{steps - 2:08d}")
        if left != good:
            raise AssertionError(f"seed {seed}: left behind: {left ^ good}")
    return (
        f"{ranks} ranks, seed {seed}: killed {kills - late} times ({', '.join(notes)}); the same "
        f"bits at step {steps}; a job ended {slowest:.1f} s after a kill at the latest"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(torture(options.ranks, options.kills, options.seed, talk=True))


if __name__ == "__main__":
    main()
