"""A run of ``Trainer`` that is killed in the middle of epochs ends with the bits of a whole one."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / "tests" / "trainer_to_kill.py"
SEED = 9
KILLED = (3, 6)
"""After which update of each run it is killed, at a random moment in an epoch of four updates."""


def _started(folder: pathlib.Path, *last: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(folder), *map(str, last)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _killed(folder: pathlib.Path, after: int, pause: float) -> list[int]:
    """The updates of a run that is killed ``pause`` seconds after it said ``after``."""
    with _started(folder, after + 4) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(int(line))
            if said[-1] == after:
                break
        time.sleep(pause)
        process.kill()
        said += [int(line) for line in process.stdout if line.endswith("\n")]
    assert process.returncode == -9, "it was killed, and did not end by itself"
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path: pathlib.Path) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    with _started(tmp_path / "whole") as whole:
        runs = [_killed(tmp_path / "broken", after, rng.uniform(0, 0.004)) for after in KILLED]
        assert whole.stdout is not None
        *updates, wanted = whole.stdout.read().splitlines()
    with _started(tmp_path / "broken") as last:
        assert last.stdout is not None
        *rest, found = last.stdout.read().splitlines()
    assert (whole.returncode, last.returncode) == (0, 0)
    assert updates == [str(k + 1) for k in range(12)] and int(wanted.split()[0]) > 8
    for before, after in zip(runs, (*runs[1:], list(map(int, rest))), strict=True):
        assert 1 < after[0] <= before[-1] + 2, f"{before} went on with {after}"  # from a checkpoint
    assert found == wanted
