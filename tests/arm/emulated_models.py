"""Training steps of small networks by emulated kernels for ARM, beside eager NumPy.

``pytest -p tests.arm.plugin tests/arm/emulated_models.py``
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.codegen.target import chosen_target
from tests.arm.emulator import calls
from tests.cudasim.models import MODELS, STEPS, TOLERANCE, step_of


def trained(name: str, compiled: bool) -> tuple[list[float], list[np.ndarray]]:
    """The losses of a few steps, and the parameters after them."""
    step, model, batch = step_of(name, "cpu")
    gf.manual_seed(5)
    run: Any = gf.compile(step) if compiled else step
    losses = [float(run(*batch)) for _ in range(STEPS)]
    return losses, [p.detach().numpy() for p in model.parameters()]


@pytest.mark.parametrize("name", MODELS)
def test_training_steps_are_those_of_numpy(name: str) -> None:
    assert chosen_target().is_arm64
    before = calls[0]
    losses, parameters = trained(name, compiled=True)
    assert calls[0] >= before + STEPS
    expected, others = trained(name, compiled=False)
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    for made, wanted in zip(parameters, others, strict=True):
        np.testing.assert_allclose(made, wanted, rtol=TOLERANCE, atol=TOLERANCE)
