"""Losses of boxes, feature pyramids and shared blocks, against their formulas."""

from __future__ import annotations

import importlib
import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.autograd import gradcheck
from graphflow.errors import ShapeError
from graphflow.vision import ops
from graphflow.vision.models._utils import IntermediateLayerGetter
from graphflow.vision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

BOTH = [lambda f: f, gf.compile]
A = np.array([[0, 0, 4, 4], [2, 1, 6, 5], [8, 8, 9, 11]], float)
B = np.array([[1, 0, 4, 2], [3, 3, 10, 9], [0, 1, 2, 2]], float)


def likeness(a: Any, b: Any) -> tuple[float, float, float]:
    """Generalised, distance and complete overlap of two boxes."""
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    union = area_a + area_b - wide * high
    iou = wide * high / union
    around = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])
    between = (a[:2] + a[2:] - b[:2] - b[2:]) / 2
    distance = iou - (between**2).sum() / (around**2).sum()
    angles = [math.atan((c[2] - c[0]) / (c[3] - c[1])) for c in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    complete = distance - (v * v / (1 - iou + v) if v else 0)
    return iou - (around.prod() - union) / around.prod(), distance, complete


@pytest.mark.parametrize("jit", BOTH)
def test_overlaps_with_penalties_and_their_losses(jit: Any) -> None:
    a, b = gf.tensor(A, requires_grad=True), gf.tensor(B)
    table = np.array([[likeness(x, y) for y in B] for x in A])
    for number, name in enumerate(("generalized", "distance", "complete")):
        if number:
            pairs = jit(getattr(ops, f"{name}_box_iou"))(a, b)
            np.testing.assert_allclose(pairs.detach(), table[..., number], rtol=1e-5)
        loss = getattr(ops, f"{name}_box_iou_loss")
        expected = 1 - table[range(3), range(3), number]
        np.testing.assert_allclose(jit(loss)(a, b).detach(), expected, rtol=1e-5)
        mean, total = loss(a, b, reduction="mean"), loss(a, b, reduction="sum")
        assert abs(mean.item() * 3 - total.item()) < 1e-9
        assert loss(a[:0], b[:0], reduction="mean").item() == 0
        if number < 2:  # the last one's weight is held fast
            assert gradcheck(loss, (a, b))
        with pytest.raises(ValueError, match="none, mean or sum"):
            loss(a, b, reduction="max")
        with pytest.raises(ShapeError, match="boxes and their partners"):
            loss(a, b[:2])


@pytest.mark.parametrize("jit", BOTH)
def test_boxes_around_masks(jit: Any) -> None:
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 1:4, 2:6] = masks[2, 4, 0] = True
    found = jit(ops.masks_to_boxes)(gf.tensor(masks))
    assert found.tolist() == [[2, 1, 5, 3], [0, 0, 0, 0], [0, 4, 0, 4]]
    assert ops.masks_to_boxes(gf.zeros(0, 5, 7)).shape == (0, 4)


def test_a_frozen_norm_is_a_batch_norm_that_stays() -> None:
    trained = nn.BatchNorm2d(3)
    for value in (trained.weight, trained.bias, trained.running_mean):
        nn.init.normal_(value)
    trained.running_var.uniform_(0.5, 2)
    frozen = ops.FrozenBatchNorm2d(3)
    frozen.load_state_dict(trained.state_dict())
    x = gf.randn(2, 3, 4, 4)
    for run in BOTH:
        np.testing.assert_allclose(
            run(frozen)(x), trained.eval()(x).detach(), rtol=1e-4, atol=1e-5
        )  # fmt: skip
    assert list(frozen.parameters()) == [] and repr(frozen) == "FrozenBatchNorm2d(3, eps=1e-05)"


def test_blocks_are_made_of_the_layers_they_name() -> None:
    block = ops.Conv2dNormActivation(4, 6, 5, stride=2, dilation=2)
    assert [type(m) for m in block] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert block[0].bias is None and block[0].padding == (4, 4) and block.out_channels == 6
    plain = ops.Conv2dNormActivation(4, 6, (3, 5), norm_layer=None, activation_layer=None)
    assert len(plain) == 1 and plain[0].padding == (1, 2) and plain[0].bias is not None
    assert ops.Conv3dNormActivation(1, 2)(gf.ones(1, 1, 4, 4, 4)).shape == (1, 2, 4, 4, 4)
    layers = ops.MLP(8, [16, 5], norm_layer=nn.LayerNorm, dropout=0.5)
    names = ["Linear", "LayerNorm", "ReLU", "Dropout", "Linear", "Dropout"]
    assert [type(m).__name__ for m in layers] == names
    assert ops.Permute([0, 2, 3, 1])(gf.ones(1, 2, 3, 4)).shape == (1, 3, 4, 2)
    squeeze, x = ops.SqueezeExcitation(4, 2), gf.randn(2, 4, 5, 5)
    hidden = F.relu(squeeze.fc1(x.mean((2, 3), keepdim=True)))
    expected = F.sigmoid(squeeze.fc2(hidden)) * x
    np.testing.assert_allclose(squeeze(x).detach(), expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_pyramid_adds_what_smaller_maps_know() -> None:
    shapes = {"a": (1, 4, 17, 17), "b": (1, 6, 9, 9), "c": (1, 8, 5, 5)}
    maps = OrderedDict((name, gf.randn(*shape)) for name, shape in shapes.items())
    net = ops.FeaturePyramidNetwork([4, 6, 8], 5, LastLevelMaxPool())
    found = net(maps)
    assert list(found) == ["a", "b", "c", "pool"] and found["pool"].shape == (1, 5, 3, 3)
    top = net.inner_blocks[2](maps["c"])
    middle = net.inner_blocks[1](maps["b"]) + F.interpolate(top, size=(9, 9))
    low = net.inner_blocks[0](maps["a"]) + F.interpolate(middle, size=(17, 17))
    for name, inner, block in zip("abc", (low, middle, top), net.layer_blocks):
        assert gf.equal(found[name], block(inner))
    assert gf.equal(found["pool"], found["c"][:, :, ::2, ::2])
    older = {name.replace(".0.weight", ".weight").replace(".0.bias", ".bias"): value
             for name, value in net.state_dict().items()}  # fmt: skip
    net.load_state_dict(older)
    more = ops.FeaturePyramidNetwork([4, 6, 8], 5, LastLevelP6P7(8, 5))(maps)
    assert [m.shape[-1] for m in more.values()] == [17, 9, 5, 3, 2]


def test_boxes_are_looked_for_in_the_map_that_suits_their_size() -> None:
    maps = {"0": gf.rand(2, 3, 32, 32), "1": gf.rand(2, 3, 16, 16), "other": gf.rand(2, 3, 8, 8)}
    boxes = [gf.tensor([[4.0, 4, 20, 20], [0, 0, 120, 100]]), gf.tensor([[10.0, 5, 90, 100]])]
    pool = ops.MultiScaleRoIAlign(["0", "1"], 3, 2, canonical_scale=60, canonical_level=3)
    found = pool(maps, boxes, [(128, 128), (100, 120)])
    small = ops.roi_align(maps["0"], boxes, 3, 1 / 4, 2)
    large = ops.roi_align(maps["1"], boxes, 3, 1 / 8, 2)
    assert gf.equal(found, gf.cat([small[:1], large[1:]]))
    compiled = gf.compile(lambda m, b: pool(m, b, [(128, 128), (100, 120)]))(maps, boxes)
    np.testing.assert_allclose(compiled, found, rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="no maps called 2"):
        ops.MultiScaleRoIAlign(["2"], 3, 2)(maps, boxes, [(128, 128)])


def test_results_of_inner_layers_by_name() -> None:
    model = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.ReLU(), c=nn.Linear(3, 4)))
    found = IntermediateLayerGetter(model, {"a": "first", "b": "second"})(gf.ones(1, 2))
    assert list(found) == ["first", "second"] and gf.equal(
        found["second"], model[:2](gf.ones(1, 2))
    )
    with pytest.raises(ValueError, match=r"d is no child of the model, whose children are a, b, c"):
        IntermediateLayerGetter(model, {"d": "x"})
    for place in ("boxes:box_iou", "misc:FrozenBatchNorm2d", "poolers:MultiScaleRoIAlign"):
        module, name = place.split(":")
        there = importlib.import_module(f"graphflow.vision.ops.{module}")
        assert getattr(there, name) is getattr(ops, name)
