"""Optimiser state that is divided over the ranks: the same training, a share of the memory."""

import numpy as np
import pytest
from test_jobs import launch, parameters


def trained(out, ranks, *options, script="zero_job.py"):
    """Parameters of all ranks, which are the same bits, and how much state each held."""
    done = launch(ranks, script, out, *options)
    assert done.returncode == 0, done.stderr
    found = [parameters(f"{out}-{rank}.npz") for rank in range(ranks)]
    held = [int(each.pop("held")) for each in found]
    for other in found[1:]:
        assert all(np.array_equal(found[0][name], other[name]) for name in other)
    return found[0], held


@pytest.mark.parametrize("ranks", [2, 4])
def test_divided_state_trains_like_whole_state(tmp_path, ranks):
    whole, (size, *_) = trained(tmp_path / "whole", ranks, "--whole")
    parts, held = trained(tmp_path / "zero", ranks)
    for name, expected in whole.items():
        np.testing.assert_allclose(parts[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
    assert sum(held) == size and max(held) < {2: 0.6, 4: 0.4}[ranks] * size
    text = (tmp_path / "zero.ir").read_text()
    plain = (tmp_path / "whole.ir").read_text()
    assert text.count("= all_reduce_start(") == plain.count("= all_reduce_start(") + 1


def test_a_job_of_another_size_goes_on(tmp_path):
    expected, _ = trained(tmp_path / "whole", 2, "--whole")
    expected, _ = trained(tmp_path / "more", 2, "--whole", "--resume", tmp_path / "whole.pt")
    trained(tmp_path / "two", 2)
    for ranks, *options in ((4, "--eager"), (1,)):
        resumed = ("--resume", tmp_path / "two.pt", *options)
        found, _ = trained(tmp_path / f"on{ranks}", ranks, *resumed)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("options", [(), ("--eager",)], ids=str)
def test_a_scaler_skips_a_step_on_all_ranks_and_a_resumed_job_has_the_same_bits(tmp_path, options):
    def scaled(name, *more):
        return trained(tmp_path / name, 2, *options, *more, script="scaled_job.py")

    whole, (size, *_) = scaled("whole", "--whole")
    assert whole["scale"] == 4096  # twice from 1,024, halved by the overflow, and twice again
    parts, held = scaled("zero")
    assert sum(held) == size and max(held) < 0.75 * size
    for name, expected in whole.items():
        np.testing.assert_allclose(parts[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
    scaled("again", "--until", 7)
    again, _ = scaled("again")
    assert all(np.array_equal(again[name], parts[name]) for name in parts)
