"""Several devices: which one tensors are on, moves, programs, memory, and operands apart.

Run by ``tests/test_cuda.py`` in the simulator, which shows three devices (``conftest.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphflow as gf
from graphflow.errors import GraphFlowError
from tests.threads import in_threads


@pytest.fixture(autouse=True)
def first_device() -> Iterator[None]:
    gf.cuda.set_device(0)
    yield
    gf.cuda.set_device(0)


def test_devices_are_chosen_as_in_pytorch() -> None:
    assert gf.cuda.device_count() == 3 == gf.accelerator.device_count()
    assert str(gf.ones(2, device="cuda").device) == "cuda:0"
    gf.cuda.set_device(1)
    assert gf.cuda.current_device() == 1 and str(gf.ones(2).cuda().device) == "cuda:1"
    with gf.cuda.device(2):
        assert gf.ones(2).to("cuda").get_device() == 2
        with gf.cuda.device("cuda:0"):
            assert gf.cuda.current_device() == 0
        assert gf.cuda.current_device() == 2
    assert gf.cuda.current_device() == 1
    seen = in_threads(1, lambda number: gf.cuda.current_device())
    assert seen == [0], "a choice is its thread's"
    with pytest.raises(GraphFlowError, match="'cuda:3' is not available"):
        gf.ones(2).to("cuda:3")


def test_results_and_gradients_stay_where_operands_are() -> None:
    x = gf.arange(6.0).reshape(2, 3).to("cuda:1").requires_grad_()
    y = (x * 2).t()[1:] + gf.tensor(1.0)
    assert str(y.device) == "cuda:1" and y.tolist() == [[3, 9], [5, 11]]
    y.sum().backward()
    assert x.grad is not None and str(x.grad.device) == "cuda:1"
    assert x.grad.tolist() == [[0, 2, 2], [0, 2, 2]]
    assert str(gf.zeros_like(x).device) == str(x.new_ones(2).device) == "cuda:1"


def test_moves_between_devices_carry_gradients() -> None:
    x = gf.arange(6.0).reshape(2, 3).to("cuda:0").requires_grad_()
    y = x.to("cuda:1")
    assert y.tolist() == x.tolist() and str(y.device) == "cuda:1" and x.to("cuda:0") is x
    (y * y).sum().backward()
    assert x.grad is not None and str(x.grad.device) == "cuda:0"
    np.testing.assert_array_equal(x.grad.cpu().numpy(), 2 * x.detach().cpu().numpy())
    target = gf.zeros(3, 2).to("cuda:2")
    target.t().copy_(x.detach())
    assert target.t().tolist() == x.tolist()


def test_operands_on_two_devices_are_an_error() -> None:
    x, y = gf.ones(2).to("cuda:0"), gf.ones(2).to("cuda:1")
    wanted = r"all on one device, here cuda:0, not .* on cuda:0, .* on cuda:1; move them"
    with pytest.raises(GraphFlowError, match=wanted):
        x + y
    step = gf.compile(lambda a, b: a + b)
    with pytest.raises(GraphFlowError, match="all on one device"):
        step(x, y)
    with pytest.raises(GraphFlowError, match="all on one device"):
        gf.compile(lambda a: a + y)(x)
    with pytest.raises(GraphFlowError, match="all on one device"):
        x.add_(y.to("cuda:2"))
    assert x.tolist() == [1, 1]


def test_programs_run_on_the_device_of_what_they_are_given() -> None:
    step = gf.compile(lambda a: (a @ a.T).relu().sum(1))
    data = np.random.default_rng(0).normal(size=(4, 3))
    results = {}
    for device in ("cpu", "cuda:1", "cuda:0", "cuda:2"):
        found = step(gf.tensor(data, device=device))
        assert str(found.device) == device
        results[device] = found.cpu().numpy()
    for found in results.values():
        np.testing.assert_allclose(found, results["cpu"], rtol=1e-6)


def test_training_on_the_second_device_is_that_of_the_cpu() -> None:
    losses = {}
    for device in ("cpu", "cuda:1"):
        gf.manual_seed(0)
        model = gf.nn.Sequential(gf.nn.Linear(3, 4), gf.nn.Dropout(0.5), gf.nn.Linear(4, 1))
        model = model.to(device)
        optimizer = gf.optim.Adam(model.parameters(), lr=0.1)

        @gf.compile
        def step(x: gf.Tensor, model=model, optimizer=optimizer) -> gf.Tensor:
            loss = (model(x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        x = gf.ones(5, 3).to(device)
        losses[device] = [float(step(x)) for _ in range(3)]
        assert all(str(p.device) == device for p in model.parameters())
    np.testing.assert_allclose(losses["cuda:1"], losses["cpu"], rtol=1e-5)


def test_memory_is_counted_for_each_device() -> None:
    before = [gf.cuda.memory_allocated(n) for n in range(3)]
    gf.cuda.reset_peak_memory_stats(1)
    held = gf.zeros(1024).to("cuda:1")
    assert gf.cuda.memory_allocated("cuda:1") == before[1] + 4096
    del held
    assert [gf.cuda.memory_allocated(n) for n in range(3)] == before
    assert gf.cuda.max_memory_allocated(1) == before[1] + 4096
    with gf.cuda.device(1):
        assert gf.cuda.max_memory_allocated() == before[1] + 4096
