"""make_grid and save_image: where every pixel goes."""

from __future__ import annotations

import io
import pathlib

import numpy as np
import pytest

import graphflow as gf
from graphflow.vision.utils import make_grid, save_image


def images(count: int, channels: int, height: int, width: int) -> gf.Tensor:
    generator = np.random.default_rng(3)
    return gf.from_numpy(generator.random((count, channels, height, width), np.float32))


@pytest.mark.parametrize(("count", "nrow", "padding"), [(5, 3, 2), (8, 8, 0), (3, 10, 1)])
def test_every_image_has_its_place_and_padding_around_it(
    count: int, nrow: int, padding: int
) -> None:
    batch = images(count, 3, 4, 5)
    grid = make_grid(batch, nrow, padding, pad_value=7.0).numpy()
    columns = min(nrow, count)
    rows = -(-count // columns)
    assert grid.shape == (
        3, rows * (4 + padding) + padding, columns * (5 + padding) + padding,
    )  # fmt: skip
    for i in range(count):
        y = (i // columns) * (4 + padding) + padding
        x = (i % columns) * (5 + padding) + padding
        assert (grid[:, y : y + 4, x : x + 5] == batch[i].numpy()).all()
        grid[:, y : y + 4, x : x + 5] = 7.0
    assert (grid == 7.0).all()


def test_one_image_has_no_frame_and_one_channel_becomes_three() -> None:
    for shape in ((4, 5), (1, 4, 5), (1, 1, 4, 5)):
        image = images(1, 1, 4, 5).reshape(shape)
        grid = make_grid(image)
        assert grid.shape == (3, 4, 5)
        assert all((grid[c].numpy() == image.numpy().reshape(4, 5)).all() for c in range(3))
    assert make_grid([images(1, 2, 4, 5)[0]] * 2).shape == (2, 8, 16)
    with pytest.raises(gf.ShapeError):
        make_grid(gf.zeros(2))


def test_normalize_maps_the_range_to_unit_interval() -> None:
    batch = gf.tensor([[[[0.0, 2.0], [4.0, 8.0]]], [[[10.0, 12.0], [14.0, 20.0]]]])
    together = make_grid(batch, padding=0, normalize=True)[0]
    assert np.allclose(together.numpy()[:, :2], np.array([[0, 2], [4, 8]]) / 20)
    each = make_grid(batch, padding=0, normalize=True, scale_each=True)[0]
    assert np.allclose(each.numpy()[:, 2:], np.array([[0, 2], [4, 10]]) / 10)
    fixed = make_grid(batch, padding=0, normalize=True, value_range=(4.0, 8.0))[0]
    assert np.allclose(fixed.numpy()[:, :2], [[0, 0], [0, 1]])


def test_a_saved_sheet_reads_back_rounded(tmp_path: pathlib.Path) -> None:
    image = pytest.importorskip("PIL.Image")
    batch = images(2, 3, 4, 5).requires_grad_()
    save_image(batch, tmp_path / "sheet.png", nrow=2, padding=1)
    found = np.asarray(image.open(tmp_path / "sheet.png"))
    expected = make_grid(batch, 2, 1).numpy().transpose(1, 2, 0) * 255
    assert found.shape == (6, 13, 3) and np.abs(found - expected).max() <= 0.5 + 1e-4
    stream = io.BytesIO()
    save_image(batch * 3 - 1, stream, format="PNG")
    assert set(np.unique(np.asarray(image.open(stream)))) >= {0, 255}
