"""Parts of a batch in place of ranks: the bits of each part by itself, added up in pairs."""

from __future__ import annotations

import re
from contextlib import nullcontext

import numpy as np
import pytest

import graphflow as gf
import graphflow.distributed as dist
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.ir.graph import Graph
from graphflow.nn.parallel import DistributedDataParallel
from graphflow.passes.dataflow import Dataflow
from graphflow.passes.groups import find_groups
from graphflow.passes.pipeline import PIPELINE, run_pipeline
from graphflow.utils.checkpoint import checkpoint

PARTS, ROWS, CLASSES, LENGTH, WIDTH = 4, 24, 5, 6, 16


@pytest.fixture(autouse=True)
def alone():
    dist.init_process_group("mpi")
    yield
    dist.destroy_process_group()


class Images(nn.Module):
    """What rounding turns over (ReLU, maxima), and statistics of a batch."""

    def __init__(self, checkpointed=False):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.hidden, self.head = nn.Linear(8 * 5 * 5, 16), nn.Linear(16, CLASSES)
        self.checkpointed = checkpointed

    def last(self, x):
        return F.relu(self.hidden(x.flatten(1)))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        x = checkpoint(self.last, x, use_reentrant=False) if self.checkpointed else self.last(x)
        return {"scores": self.head(x), "size": x.square().mean()}


class Words(nn.Module):
    """Attention over words, of which the batch and the table of places share a size."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(9, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = self.words(x) + self.places(gf.arange(LENGTH))
        heads = (*x.shape[:2], 2, WIDTH // 2)
        q, k, v = (y.reshape(heads).transpose(1, 2) for y in self.qkv(self.norm(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        return {"scores": self.head(x + y)[:, -1], "size": y.square().mean()}


def batch(model):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 9, (ROWS, LENGTH)) if model is Words else rng.normal(size=(ROWS, 1, 12, 12))
    return x if model is Words else x.astype(np.float32), rng.integers(0, CLASSES, ROWS)


def gradients(make, x, y, parts, scale, how):
    """Gradients of all parameters, each of ``parts`` computed by itself."""
    gf.manual_seed(1)
    model = make()
    parallel = DistributedDataParallel(model, virtual_ranks=parts)
    called = gf.compile(parallel) if how == "forward" else parallel

    def run(x, y):
        with gf.autocast("cpu", gf.bfloat16) if how == "autocast" else nullcontext():
            found = called(x)
        loss = F.cross_entropy(found["scores"].float(), y) + 0.1 * found["size"].float()
        (scale * loss).backward()
        return [p.grad for p in model.parameters()]

    run = run if how in ("eager", "forward") else gf.compile(run)
    return [g.detach().numpy().copy() for g in run(gf.tensor(x), gf.tensor(y))]


@pytest.mark.parametrize("how", ["step", "forward", "eager", "autocast"])
@pytest.mark.parametrize(
    "make", [Images, lambda: Images(checkpointed=True), Words], ids=["images", "again", "words"]
)
def test_gradients_are_those_of_parts_by_themselves_added_up_in_pairs(make, how):
    x, y = batch(make)
    whole = gradients(make, x, y, PARTS, 1.0, how)
    rows = ROWS // PARTS
    cuts = [slice(i * rows, (i + 1) * rows) for i in range(PARTS)]
    a, b, c, d = (gradients(make, x[cut], y[cut], 1, 1 / PARTS, how) for cut in cuts)
    for number, found in enumerate(whole):
        expected = (a[number] + b[number]) + (c[number] + d[number])
        np.testing.assert_array_equal(found, expected, err_msg=f"parameter {number}")
    one = gradients(make, x, y, None, 1.0, how)
    if make is Words and how != "autocast":  # no statistics of a batch
        for found, expected in zip(whole, one, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def traced(parts):
    model = Images()
    parallel = DistributedDataParallel(model, virtual_ranks=parts)

    def step(x, y):
        F.cross_entropy(parallel(x)["scores"], y).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    return gf.trace(step, gf.TensorSpec((ROWS, 1, 12, 12)), gf.TensorSpec((ROWS,), gf.int64))


def test_the_graph_shows_the_parts():
    text = str(traced(PARTS))
    entered = re.findall(r"part\(%\S+, before=-1, number=(\d+)\)", text)
    assert {int(number) for number in entered} == {*range(PARTS + 1)}, "each part, and results"
    assert str(Graph.parse(text)) == text
    assert "part(" not in str(traced(None))


def test_no_kernel_has_work_of_two_parts():
    graph = run_pipeline(traced(PARTS), PIPELINE[:-1])[-1].graph
    flow = Dataflow(graph)
    mixed = [{flow.part[flow.number[n]] for n in g.nodes} for g in find_groups(graph, flow=flow)]
    assert {len(parts) for parts in mixed} == {1}
    sums = {PARTS + 1 + place for place in range(8)}  # a part for each parameter's
    assert set.union(*mixed) == {-1, *range(PARTS + 1)} | sums


def test_equal_gradients_of_two_parameters_are_two_values():
    """Ranks reduce them apart: one product that two updates read would be rounded otherwise."""
    a, b = nn.Parameter(gf.ones(3)), nn.Parameter(gf.ones(3))
    model = nn.ParameterList([a, b])
    model.forward = lambda x: x + a + b
    parallel = DistributedDataParallel(model, virtual_ranks=2)

    def step(x):
        return gf.autograd.grad(parallel(x).square().sum(), [a, b])

    first, second = gf.trace(step, gf.TensorSpec((4, 3))).outputs
    assert first is not second


@pytest.mark.parametrize("rows", [[8, 16, 8, 24]])
def test_batches_of_several_sizes(rows):
    gf.manual_seed(0)
    model = nn.Linear(3, 2)
    parallel = DistributedDataParallel(model, virtual_ranks=2)

    @gf.compile
    def gradient(x):
        model.zero_grad()
        parallel(x).square().sum().backward()
        return model.weight.grad

    for count in rows:
        x = gf.randn(count, 3)
        expected = 2 * (model(x).t() @ x)
        np.testing.assert_allclose(gradient(x).numpy(), expected.detach().numpy(), rtol=1e-5)
    with pytest.raises(ShapeError, match="a batch of 9 does not divide into the 2 equal parts"):
        gradient(gf.ones(9, 3))


def test_the_batch_may_be_another_axis():
    model = nn.Linear(3, 3)
    x = gf.randn(5, 8, 3)
    found = DistributedDataParallel(model, dim=1, virtual_ranks=4)(x)
    np.testing.assert_allclose(found.detach().numpy(), model(x).detach().numpy(), rtol=1e-6)


def test_nothing_is_divided_where_no_gradients_are_recorded():
    parallel = DistributedDataParallel(nn.Linear(3, 3), virtual_ranks=4)
    with gf.no_grad():
        assert parallel(gf.ones(5, 3)).shape == (5, 3)


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight, self.value = nn.Parameter(gf.ones(())), value

    def forward(self, *args):
        return self.value(self.weight, *args)


@pytest.mark.parametrize(
    ("options", "value", "args", "message"),
    [
        ({"virtual_ranks": 3}, None, (), "must be a power of two, not 3"),
        ({"virtual_ranks": True}, None, (), "must be a power of two, not True"),
        ({"virtual_ranks": 0.5}, None, (), "must be a power of two, not 0.5"),
        ({}, lambda w, *a: w, (), "no argument is a tensor with an axis 0"),
        ({}, lambda w, *a: w, (3.0, gf.ones(())), "no argument is a tensor with an axis 0"),
        ({}, lambda w, *a: w, (gf.ones(4, 2), gf.ones(2, 2)), "arguments have 4, 2 rows"),
        ({}, lambda w, x: w, (gf.ones(3, 2),), "a batch of 3 does not divide into the 2 equal"),
        ({}, lambda w, x: w * x.sum(0), (gf.ones(4, 3),), r"float32\[3\], cannot be put together"),
        ({}, lambda w, x: x.int().sum(), (gf.ones(4, 3),), "an average of floating-point type"),
        ({}, lambda w, x: x.sum().item(), (gf.arange(4.0),), "is 1.0 for one part"),
    ],
)
def test_what_cannot_be_divided_is_refused(options, value, args, message):
    with pytest.raises((GraphFlowError, ShapeError), match=message):
        DistributedDataParallel(Returns(value), **{"virtual_ranks": 2, **options})(*args)


def test_plain_results_and_single_numbers():
    def value(weight, x, factor, name):
        return {"loss": (weight * x * factor).mean(), "name": name, "rows": (x, None)}

    parallel = DistributedDataParallel(Returns(value), virtual_ranks=4)
    found = parallel(gf.arange(8.0), gf.tensor(2.0), "a")
    assert found["loss"].item() == 7.0 and found["name"] == "a"
    assert found["rows"][0].tolist() == [*range(8)] and found["rows"][1] is None
    found["loss"].backward()
    assert parallel.module.weight.grad.item() == 7.0
