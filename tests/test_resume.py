"""A run killed at random moments ends with the bits of one that was not."""

import sys

import pytest

from tests.kill_and_resume import torture


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_resumes_to_the_same_bits() -> None:
    print(torture(kills=5, seed=3))
