"""Jobs killed at random moments end with the bits of those that were not."""

import random

import pytest

from tests.distributed.kill_ranks import Job, killed, torture, whole

SEED = 11


@pytest.mark.parametrize(("ranks", "kills"), [(2, 4), (1, 2)])
def test_a_killed_job_resumes_to_the_same_bits(ranks, kills):
    print(torture(ranks, kills, SEED))


def test_a_killed_job_goes_on_with_another_number_of_ranks(tmp_path):
    first = killed(2, tmp_path, 1000, "rank", random.Random(SEED))
    assert first.done >= 1
    second = Job(1, tmp_path, first.done + 2).finish(60)
    assert second.status == 0 and second.begun >= first.done - 1, second.errors
    third = whole(2, tmp_path, first.done + 4)
    assert third.begun == first.done + 2
