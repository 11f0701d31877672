"""Averaged models against averages in NumPy, their batch norms, the schedule."""

import math

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.optim import swa_utils
from tests.front import linear, ramp

ONE_BY_ONE = {"avg_fn": swa_utils.get_swa_avg_fn()}
TOGETHER = {"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}
EMA = {"avg_fn": swa_utils.get_ema_avg_fn(0.9)}
EMA_TOGETHER = {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    ("decay", "options"),
    [(None, {}), (None, ONE_BY_ONE), (None, TOGETHER), (0.9, EMA), (0.9, EMA_TOGETHER)],
)
def test_parameters_are_averaged(decay, options, compiled):
    model = nn.Sequential(linear(), nn.BatchNorm1d(3))
    average = swa_utils.AveragedModel(model, **options)
    assert average.avg_fn is options.get("avg_fn")
    update = gf.compile(lambda: average.update_parameters(model))
    weights = []
    for i in range(4):
        with gf.no_grad():
            model[0].weight.add_(float(i))
            model[1].running_mean.fill_(float(i))
        update() if compiled else average.update_parameters(model)
        weights.append(model[0].weight.detach().numpy().copy())
    expected = np.mean(weights, 0)
    if decay is not None:
        expected = weights[0]
        for w in weights[1:]:
            expected = decay * expected + (1 - decay) * w
    np.testing.assert_allclose(average.module[0].weight.detach(), expected, rtol=1e-5)
    assert average.module[1].running_mean[0].item() == 3  # buffers are copied
    assert average.n_averaged.item() == 4 and "module.0.weight" in average.state_dict()
    x = ramp(2, 4)
    average.eval()
    np.testing.assert_array_equal(average(x).detach(), average.module(x).detach())


def test_buffers_are_averaged_where_that_is_asked_for():
    model = nn.BatchNorm1d(2)
    average = swa_utils.AveragedModel(model, use_buffers=True)
    for i in range(4):
        model.running_mean.fill_(float(i * i))
        model.num_batches_tracked.fill_(i * i + 1)
        average.update_parameters(model)
    np.testing.assert_allclose(average.module.running_mean, [3.5, 3.5], rtol=1e-6)
    # 1, then 1 + 1/2, 1 + 4/3 and 2 + 8/4, each rounded towards zero
    assert average.module.num_batches_tracked.item() == 4


def test_lists_are_of_one_dtype_and_changed_in_place():
    model, seen = nn.ParameterList([gf.ones(1), gf.ones(1).double(), gf.ones(2)]), []

    def update(averages, current, number):
        seen.append(([a.dtype for a in averages], number.item()))
        for a, b in zip(averages, current, strict=True):
            a.add_(b)

    average = swa_utils.AveragedModel(model, multi_avg_fn=update)
    for _ in range(2):
        average.update_parameters(model)
    assert seen == [([gf.float32, gf.float32], 1), ([gf.float64], 1)]
    assert [p.tolist() for p in average.module] == [[2.0], [2.0], [2.0, 2.0]]
    for refused in (-0.1, 1.1):
        with pytest.raises(ValueError, match="decay must be"):
            swa_utils.get_ema_multi_avg_fn(refused)
    with pytest.raises(ValueError, match="not both"):
        swa_utils.AveragedModel(model, avg_fn=EMA["avg_fn"], multi_avg_fn=update)


def test_statistics_are_taken_anew():
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=0.3)).eval()
    batches = [ramp(8, 4, offset=i) for i in range(3)]
    swa_utils.update_bn([(b, None) for b in batches], model)
    means = np.mean([b.numpy().mean(0) for b in batches], 0)
    np.testing.assert_allclose(model[0].running_mean.numpy(), means, rtol=1e-5)
    assert model[0].momentum == 0.3 and not model.training


@pytest.mark.filterwarnings("ignore:lr_scheduler.step")
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_the_rate_goes_to_its_end(strategy):
    opt = optim.SGD([nn.Parameter(gf.ones(1))], lr=0.4)
    schedule = swa_utils.SWALR(opt, 0.1, 4, strategy)
    found = []
    for _ in range(7):
        found.append(opt.param_groups[0]["lr"])
        schedule.step()
    shares = [min(1, e / 4) for e in range(7)]
    if strategy == "cos":
        shares = [(1 - math.cos(math.pi * s)) / 2 for s in shares]
    np.testing.assert_allclose(found, [0.1 * s + 0.4 * (1 - s) for s in shares])
