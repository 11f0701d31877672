"""Transforms: against Pillow and NumPy, images and tensors alike, random ones by their laws."""

import collections
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import graphflow as gf
from graphflow.vision import transforms as T
from graphflow.vision.transforms import draws

F = T.functional
RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
COLOUR, GREY = Image.fromarray(PIXELS), Image.fromarray(PIXELS[:, :, 0].copy())


def array(image: Any) -> np.ndarray[Any, Any]:
    """An image or tensor as float64 ``[h, w, c]``, bytes and floats on one scale."""
    if isinstance(image, gf.Tensor):
        values = image.numpy().transpose(1, 2, 0).astype(np.float64)
        return values * 255 if image.dtype.is_floating_point else values
    values = np.asarray(image).astype(np.float64)
    return values[:, :, None] if values.ndim == 2 else values


# What the function does, and how far images and tensors may be apart (in bytes).
FUNCTIONS: dict[str, tuple[Any, float]] = {
    "resize": (lambda x: F.resize(x, 10), 1),
    "resize to": (lambda x: F.resize(x, (7, 41), "bicubic"), 90),  # bytes are clipped
    "nearest": (lambda x: F.resize(x, [9, 9], T.InterpolationMode.NEAREST), 0),
    "crop": (lambda x: F.crop(x, -2, 5, 10, 40), 0),
    "outside": (lambda x: F.crop(x, 50, 50, 3, 4), 0),
    "center": (lambda x: F.center_crop(x, (25, 11)), 0),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 4)), 0),
    "reflect": (lambda x: F.pad(x, [2, 3], padding_mode="reflect"), 0),
    "cut": (lambda x: F.pad(x, (-3, 2)), 0),
    "hflip": (F.hflip, 0),
    "vflip": (F.vflip, 0),
    "rotate": (lambda x: F.rotate(x, 30), 0),
    "expand": (lambda x: F.rotate(x, 30, "bilinear", expand=True), 1),
    "affine": (lambda x: F.affine(x, 20, (2, 3), 1.2, (10, 5), "bilinear"), 1),
    "brightness": (lambda x: F.adjust_brightness(x, 1.5), 1),
    "contrast": (lambda x: F.adjust_contrast(x, 0.5), 1.5),
    "saturation": (lambda x: F.adjust_saturation(x, 0.3), 2),
    "hue": (lambda x: F.adjust_hue(x, 0.2), 14),  # Pillow's hue has 256 steps
    "gamma": (lambda x: F.adjust_gamma(x, 2.0), 2.5),
    "grey": (lambda x: F.rgb_to_grayscale(x, 3), 1.5),
    "blur": (lambda x: F.gaussian_blur(x, [3, 5], 1.5), 1),
    "invert": (F.invert, 0.01),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_images_bytes_and_floats_come_out_alike(name: str) -> None:
    act, apart = FUNCTIONS[name]
    expected = act(COLOUR)
    assert isinstance(expected, Image.Image)
    for tensor in (F.pil_to_tensor(COLOUR), F.to_tensor(COLOUR)):
        before = tensor.clone()
        made = act(tensor)
        assert made.dtype is tensor.dtype and gf.equal(before, tensor)
        assert array(made).shape == array(expected).shape
        assert np.abs(array(made) - array(expected)).max() <= apart + 1e-3
    batch = act(gf.stack([F.to_tensor(COLOUR)] * 2))
    np.testing.assert_array_equal(batch[1].numpy(), act(F.to_tensor(COLOUR)).numpy())


def test_geometry_is_numpys() -> None:
    np.testing.assert_array_equal(F.hflip(COLOUR), PIXELS[:, ::-1])
    np.testing.assert_array_equal(F.vflip(GREY), PIXELS[::-1, :, 0])
    np.testing.assert_array_equal(F.rotate(COLOUR, 90, expand=True), np.rot90(PIXELS))
    np.testing.assert_array_equal(F.crop(COLOUR, 2, 3, 5, 7), PIXELS[2:7, 3:10])
    np.testing.assert_array_equal(F.center_crop(COLOUR, 10), PIXELS[5:15, 10:20])
    around = ((2, 4), (1, 3), (0, 0))
    for mode in ("edge", "reflect", "symmetric"):
        made = F.pad(COLOUR, (1, 2, 3, 4), padding_mode=mode)
        np.testing.assert_array_equal(made, np.pad(PIXELS, around, mode=mode))
    filled = np.asarray(F.pad(COLOUR, 1, fill=(1, 2, 3)))
    assert filled[0, 0].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(F.affine(COLOUR, -30, (0, 0), 1, 0), F.rotate(COLOUR, 30))
    moved = np.asarray(F.affine(COLOUR, 0, (2, 3), 1, 0))
    np.testing.assert_array_equal(moved[3:, 2:], PIXELS[:-3, :-2])
    corners = F.five_crop(COLOUR, 4)
    np.testing.assert_array_equal(corners[3], PIXELS[-4:, -4:])
    assert len(F.ten_crop(COLOUR, 4)) == 10


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [(10, None, (15, 10)), (40, None, (60, 40)), ([7, 9], None, (9, 7)), (10, 12, (12, 8))],
)
def test_resize_targets(size: Any, most: Any, expected: tuple[int, int]) -> None:
    assert F.resize(COLOUR, size, max_size=most).size == expected
    assert T.Resize(size, max_size=most)(COLOUR).size == expected
    assert F.resize(COLOUR.transpose(2), size if isinstance(size, list) else [size]).height > 0


def test_colours_are_pillows() -> None:
    for name, tool in (("brightness", "Brightness"), ("contrast", "Contrast")):
        made = getattr(F, f"adjust_{name}")(COLOUR, 1.7)
        np.testing.assert_array_equal(made, getattr(ImageEnhance, tool)(COLOUR).enhance(1.7))
    assert F.adjust_hue(GREY, 0.3) is GREY
    whole = F.adjust_hue(F.to_tensor(COLOUR), 0.0)
    np.testing.assert_allclose(whole.numpy(), F.to_tensor(COLOUR).numpy(), atol=1e-6)


def test_blur_is_a_convolution() -> None:
    spot = np.zeros((1, 9, 9), np.float32)
    spot[0, 4, 4] = 1
    made = F.gaussian_blur(gf.from_numpy(spot), 5, 1.0).numpy()[0]
    line = np.exp(-0.5 * np.arange(-2, 3.0) ** 2)
    line /= line.sum()
    np.testing.assert_allclose(made[2:7, 2:7], np.outer(line, line), rtol=1e-5)
    assert made.sum() == pytest.approx(1, rel=1e-5)


def test_conversions() -> None:
    assert F.pil_to_tensor(GREY).dtype is gf.uint8 and F.pil_to_tensor(GREY).shape == (1, 20, 30)
    for image in (COLOUR, GREY):
        for tensor in (F.pil_to_tensor(image), F.to_tensor(image), np.asarray(image)):
            np.testing.assert_array_equal(F.to_pil_image(tensor), image)
    black = Image.fromarray(PIXELS[:, :, 0] > 99)
    assert F.to_tensor(black).numpy().max() == 1 and F.pil_to_tensor(black).numpy().max() == 255
    deep = Image.fromarray(np.arange(6, dtype=np.int32).reshape(2, 3))
    assert F.to_tensor(deep).dtype is gf.int32
    floats = F.to_pil_image(gf.ones(1, 2, 2) * 0.3, mode="F")
    assert floats.mode == "F"
    with pytest.raises(ValueError, match="1 to 4 channels"):
        F.to_pil_image(gf.ones(5, 2, 2))
    with pytest.raises(TypeError, match="PILToTensor"):
        F.pil_to_tensor(PIXELS)


def test_converting_dtypes_scales() -> None:
    tensor = F.pil_to_tensor(COLOUR)
    floats = F.convert_image_dtype(tensor)
    np.testing.assert_allclose(floats.numpy(), tensor.numpy() / 255, rtol=1e-6)
    assert gf.equal(F.convert_image_dtype(floats, gf.uint8), tensor)
    short = F.convert_image_dtype(tensor, gf.int16)
    assert int(short.max()) == int(tensor.max()) * 128
    assert gf.equal(F.convert_image_dtype(short, gf.uint8), tensor)
    with pytest.raises(TypeError, match="cannot hold"):
        F.convert_image_dtype(floats, gf.int64)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.resize(COLOUR, 0),
        lambda: F.resize(COLOUR, (1, 2, 3)),
        lambda: F.resize(COLOUR, 10, "magic"),
        lambda: F.resize(COLOUR, 10, max_size=10),
        lambda: F.pad(COLOUR, 1, padding_mode="x"),
        lambda: F.pad(COLOUR, (1, 2, 3)),
        lambda: F.adjust_hue(COLOUR, 0.6),
        lambda: F.adjust_brightness(COLOUR, -1),
        lambda: F.gaussian_blur(COLOUR, 4),
        lambda: F.affine(COLOUR, 0, (0, 0), 0, 0),
        lambda: T.RandomCrop(50)(COLOUR),
        lambda: T.ColorJitter(brightness=-1),
        lambda: T.ColorJitter(hue=0.7),
        lambda: T.RandomErasing(value="x"),
        lambda: T.RandomRotation(-1),
        lambda: T.RandomAffine(0, translate=(2, 0)),
        lambda: T.RandomChoice([]),
        lambda: T.GaussianBlur(3, (2, 1)),
    ],
)
def test_wrong_arguments(call: Any) -> None:
    with pytest.raises(ValueError, match=r".{10}"):
        call()


@pytest.mark.parametrize("wrong", [PIXELS, "image", None])
def test_wrong_images(wrong: Any) -> None:
    for transform in (T.Resize(3), T.RandomCrop(3), T.Grayscale(), T.RandomAffine(3)):
        with pytest.raises(TypeError, match="Pillow image or a tensor"):
            transform(wrong)


# ---- random ones ----------------------------------------------------------------------------


def test_draws_are_the_generators() -> None:
    for seed in (0, 3, -5, 2**63 - 1):
        gf.manual_seed(seed)
        gf.rand(3)
        drawn = [draws.unit() for _ in range(3)]
        gf.manual_seed(seed)
        gf.rand(3)
        assert drawn == [gf.rand(1, dtype=gf.float64).item() for _ in range(3)]


def test_a_whole_pipeline_follows_the_seed() -> None:
    pipeline = T.Compose(
        [
            T.RandomResizedCrop(16), T.RandomHorizontalFlip(), T.RandomVerticalFlip(),
            T.ColorJitter(0.4, 0.4, 0.4, 0.1), T.RandomRotation(10), T.Pad(2),
            T.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), (-5, 5, -2, 2)), T.RandomCrop(18, 1),
            T.RandomGrayscale(), T.RandomInvert(), T.GaussianBlur(3), T.RandomApply([T.Resize(9)]),
            T.RandomChoice([T.CenterCrop(8), T.CenterCrop(6)]), T.RandomOrder([T.Resize(16)]),
            T.ToTensor(), T.RandomErasing(1.0, value="random"), T.Normalize(0.5, 0.2),
        ]
    )  # fmt: skip
    gf.manual_seed(3)
    first, second = pipeline(COLOUR), pipeline(COLOUR)
    gf.manual_seed(3)
    assert gf.equal(pipeline(COLOUR), first) and not gf.equal(first, second)
    assert tuple(first.shape) == (3, 16, 16) and "RandomAffine" in repr(pipeline)


def test_random_transforms_keep_their_laws() -> None:
    gf.manual_seed(11)
    flips = sum(T.RandomHorizontalFlip(0.25)(COLOUR) is not COLOUR for _ in range(1000))
    assert abs(flips - 250) < 80  # six deviations
    places = collections.Counter(T.RandomCrop.get_params(COLOUR, (18, 29)) for _ in range(600))
    assert set(places) == {(t, le, 18, 29) for t in range(3) for le in range(2)}
    for _ in range(50):
        top, left, height, width = T.RandomResizedCrop.get_params(COLOUR, (0.2, 0.5), (0.5, 2))
        assert 0 <= top <= 20 - height and 0 <= left <= 30 - width
        assert 0.1 < height * width / 600 < 0.6
    tall = Image.new("L", (4, 100))
    assert T.RandomResizedCrop.get_params(tall, (1, 1), (1, 1)) == (48, 0, 4, 4)
    assert T.RandomCrop(30, pad_if_needed=True)(COLOUR).size == (30, 30)
    erased = T.RandomErasing(1.0, scale=(0.2, 0.3), value=[1, 2, 3])(gf.zeros(3, 20, 30))
    assert 60 < int((erased[0] == 1).sum()) < 240 and erased.numpy().max() == 3
    which = [T.RandomChoice([T.Lambda(lambda _: 0), T.Lambda(lambda _: 1)], p=[1, 3])(0)
             for _ in range(800)]  # fmt: skip
    assert abs(sum(which) - 600) < 75
    angles = {math.floor(draws.uniform(-3, 3)) for _ in range(200)}
    assert angles == {-3, -2, -1, 0, 1, 2}
