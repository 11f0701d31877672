"""Transforms by the names of torchvision's second version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import graphflow as gf
from graphflow.vision import transforms as T
from graphflow.vision.transforms import v2

PIXELS = np.random.default_rng(1).integers(0, 256, (9, 12, 3)).astype(np.uint8)


def test_a_pipeline_is_that_of_the_first_version() -> None:
    steps = [v2.RandomResizedCrop(6, antialias=True), v2.RandomHorizontalFlip()]
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    last = [v2.ToImage(), v2.ToDtype(gf.float32, scale=True), v2.Normalize(mean, std)]
    new, old = (
        v2.Compose([*steps, *last]),
        T.Compose([*steps, T.ToTensor(), T.Normalize(mean, std)]),
    )
    found = []
    for pipeline in (new, old):
        gf.manual_seed(3)
        found.append(pipeline(Image.fromarray(PIXELS)).numpy())
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert set(dir(T)) >= set(v2.__all__) - {
        "CutMix", "Identity", "MixUp", "ToDtype", "ToImage", "ToPureTensor"
    }  # fmt: skip


def test_values_stay_unless_they_are_scaled() -> None:
    for image in (PIXELS, Image.fromarray(PIXELS)):
        made = v2.ToImage()(image)
        assert made.dtype is gf.uint8 and np.array_equal(made.numpy(), PIXELS.transpose(2, 0, 1))
    assert v2.ToImage()(made) is made and v2.ToPureTensor()(made) is made
    assert v2.ToImage()(PIXELS[:, :, 0]).shape == (1, 9, 12)
    assert np.array_equal(v2.ToDtype(gf.float32)(made).numpy(), made.numpy())
    scaled = v2.ToDtype(gf.float32, scale=True)(made).numpy()
    np.testing.assert_allclose(scaled, made.numpy() / 255, rtol=1e-6)
    assert v2.ToDtype(gf.float32)("label") == "label"
    with pytest.raises(TypeError, match="one dtype"):
        v2.ToDtype({"image": gf.float32})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ToImage takes an image"):
        v2.ToImage()("name")


@pytest.mark.parametrize("mix", [v2.MixUp(num_classes=3), v2.CutMix(num_classes=3, alpha=0.7)])
def test_batches_mix_with_themselves_and_labels_alike(mix: Any) -> None:
    gf.manual_seed(5)
    values = gf.tensor([1.0, 10.0, 100.0])
    images = values.reshape(3, 1, 1, 1).expand(3, 2, 8, 10).clone()
    shares = []
    for given in (gf.arange(3), gf.eye(3)):
        mixed, labels = v2.RandomChoice([mix])(images, given)
        assert mixed.shape == images.shape and labels.shape == (3, 3)
        np.testing.assert_allclose(labels.sum(1).numpy(), 1, rtol=1e-6)
        np.testing.assert_allclose(mixed.mean((1, 2, 3)).numpy(), (labels @ values).numpy(), 1e-5)
        shares.append(labels[0, 0].item())
        assert labels[1, 1].item() == labels[2, 2].item() == shares[-1] and labels[1, 2].item() == 0
    assert shares[0] != shares[1]
    assert images.flatten(1).mean(1).tolist() == values.tolist()


def test_what_cannot_be_mixed_is_said() -> None:
    image, labels = gf.ones(2, 3, 4, 4), gf.arange(2)
    with pytest.raises(ValueError, match=r"MixUp: .*need num_classes"):
        v2.MixUp()(image, labels)
    with pytest.raises(ValueError, match="CutMix takes a batch of images"):
        v2.CutMix(num_classes=2)(image[0], labels)
    with pytest.raises(ValueError, match="alpha should be above 0"):
        v2.MixUp(alpha=0.0)
