"""Averaged models against averages in NumPy, their batch norms, the schedule."""

import math

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.optim import swa_utils
from tests.front import linear, ramp


@pytest.mark.parametrize("decay", [None, 0.9])
def test_parameters_are_averaged(decay):
    model = nn.Sequential(linear(), nn.BatchNorm1d(3))
    options = {} if decay is None else {"avg_fn": swa_utils.get_ema_avg_fn(decay)}
    average = swa_utils.AveragedModel(model, **options)
    weights = []
    for i in range(4):
        with gf.no_grad():
            model[0].weight.add_(float(i))
            model[1].running_mean.fill_(float(i))
        average.update_parameters(model)
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


def test_statistics_are_taken_anew():
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=0.3)).eval()
    batches = [ramp(8, 4, offset=i) for i in range(3)]
    swa_utils.update_bn([(b, None) for b in batches], model)
    means = np.mean([b.numpy().mean(0) for b in batches], 0)
    np.testing.assert_allclose(model[0].running_mean.numpy(), means, rtol=1e-5)
    assert model[0].momentum == 0.3 and not model.training


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
