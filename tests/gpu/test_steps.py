"""Training steps on a GPU: as on the CPU, and the same bits replayed as walked."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
from tests.cudasim.models import MODELS, STEPS, TOLERANCE, step_of, trained
from tests.threads import in_threads


@pytest.mark.parametrize("name", MODELS)
def test_a_few_steps_are_those_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gf.backends.cudnn, "allow_tf32", False)
    losses, weights = zip(trained(name, "cpu"), trained(name, "cuda"), strict=True)
    np.testing.assert_allclose(losses[1], losses[0], atol=TOLERANCE)
    for here, there in zip(*weights, strict=True):
        np.testing.assert_allclose(there, here, atol=TOLERANCE)


@pytest.mark.parametrize("name", [*MODELS, "mlp-wide", "gpt-wide"])
def test_replayed_steps_are_walked_ones_bit_for_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gf.backends.cuda, "deterministic", True)
    found = []
    for replay in (True, False):
        monkeypatch.setattr(gf.backends.cuda, "replay", replay)
        step, model, batch = step_of(name, "cuda")
        gf.manual_seed(5)
        compiled = gf.compile(step)
        losses = [float(compiled(*batch)) for _ in range(STEPS + 2)]
        found.append((losses, [p.detach().cpu().numpy() for p in model.parameters()]))
        assert ("replayed" in str(compiled.explain())) is replay
    assert found[0][0] == found[1][0]
    assert all(np.array_equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_another_thread_steps_too() -> None:
    step = gf.compile(lambda x: (x @ x).softmax(1).cumsum(0) + 1)
    x = gf.randn(64, 64).cuda()
    wanted = [step(x).tolist() for _ in range(3)]
    [found] = in_threads(1, lambda number: [step(x).tolist() for _ in range(3)])
    assert found == wanted


def test_numbers_that_change_from_call_to_call_reach_the_device() -> None:
    step = gf.compile(lambda x, factor: (x * factor).cumsum(0).softmax(0).cumsum(0))
    x = gf.randn(33, 5)
    for factor in (1.0, 1.0, 2.5, 2.5, 1.0, -3.0):
        found, wanted = step(x.cuda(), factor).cpu().numpy(), step(x, factor).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_inputs_begin_anywhere() -> None:
    step = gf.compile(lambda x: (x * 2 + 1).softmax(-1))
    whole = gf.randn(65, 64)
    there = whole.reshape(-1).cuda()
    for offset in (0, 1, 3, 64):
        x = there[offset : offset + 64 * 64].view(64, 64)
        wanted = step(whole.reshape(-1)[offset : offset + 64 * 64].view(64, 64))
        np.testing.assert_allclose(step(x).tolist(), wanted.tolist(), rtol=1e-5)
