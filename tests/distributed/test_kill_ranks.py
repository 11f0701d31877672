"""Jobs killed at random moments end with the bits of those that were not."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.kill_ranks import Job, killed, torture, whole

SEED = 11


@pytest.mark.parametrize(("ranks", "kills"), [(2, 4), (1, 2)])
def test_a_killed_job_resumes_to_the_same_bits(ranks, kills):
    print(torture(ranks, kills, SEED))


def test_a_killed_job_goes_on_with_another_number_of_ranks(tmp_path):
    first = killed(2, tmp_path, 1000, "rank", random.Random(SEED))
    assert first.done >= 1
    second = Job(1, tmp_path, first.done + 2).finish(600)
    assert second.status == 0 and second.begun >= first.done - 1, second.errors
    third = whole(2, tmp_path, first.done + 4)
    assert third.begun == first.done + 2


def test_the_trainer_on_two_ranks(tmp_path):
    script = str(Path(__file__).parents[2] / "models" / "trainer_digits.py")
    command = [sys.executable, "-m", "graphflow", "launch", "-n", "2", script, str(tmp_path)]
    said = []
    for _ in range(2):  # the second finds that all is done
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1] and float(said[0].split()[3]) > 0.95
    assert len(list(next(tmp_path.glob("step-*")).glob("rank-?-of-2.safetensors"))) == 2
