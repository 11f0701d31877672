"""The same bits after 50 steps on 1, 2 and 4 ranks, in float32, whatever rounding turns over."""

from pathlib import Path

import numpy as np
import pytest

from tests.distributed.test_jobs import launch, parameters

ROOT = Path(__file__).parent.parent.parent
NAMES = ("mlp", "cnn", "gpt", "resnet18_train")
"""ReLU and SGD with momentum; ReLU, max pools and SGD; attention and AdamW; batch norms, and more
tensors than the board of a job keeps collectives."""


def run(folder, ranks, *arguments):
    """The parameters that a job leaves behind."""
    out = folder / f"{ranks}.npz"
    done = launch(ranks, "virtual_job.py", out, *arguments, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    return parameters(out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with the whole batch, in the place of four."""
    return run(tmp_path_factory.mktemp("alone"), 1, *NAMES, "--parts", 4)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_same_bits_after_50_steps(alone, tmp_path, ranks):
    found = run(tmp_path, ranks, *NAMES, "--parts", 4)
    assert found.keys() == alone.keys()
    for name, expected in alone.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_without_them_attention_with_adamw_differs(tmp_path):
    one, two = (run(tmp_path, ranks, "gpt") for ranks in (1, 2))
    difference = max(np.abs(two[name] - one[name]).max() for name in one)
    assert difference > 1e-6, "nothing is to be mended here"


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_same_bits_where_mpi_carries_gradients_that_are_clipped(tmp_path, ranks):
    options = ("mlp", "--parts", 8, "--steps", 12, "--clip", 0.5)
    alone, found = run(tmp_path, 1, *options), run(tmp_path, ranks, *options, "--apart")
    for name, expected in alone.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
