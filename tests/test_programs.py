"""The small programs give PyTorch's recorded numbers, eagerly and compiled."""

import json
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
from tests.programs.behaviours import PROGRAMS

RECORDED = json.loads((Path(__file__).parent / "programs" / "expected.json").read_text())["answers"]


def check(name, jit):
    answers = PROGRAMS[name](gf, jit)
    np.testing.assert_allclose(answers, RECORDED[name], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_eager(name):
    check(name, lambda f: f)


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled(name):
    check(name, gf.compile)


def test_every_program_is_recorded():
    assert set(RECORDED) == set(PROGRAMS)
