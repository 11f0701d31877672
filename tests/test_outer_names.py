"""Names of ``gf`` itself that few scripts use: layers as functions, in-place forms, switches."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import outer_names
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.testing import assert_close, make_tensor

SEED = 20261130


def drawn(*shape: int, seed: int = SEED) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_every_name_is_there() -> None:
    for name in [*outer_names.PLACES, "compiler", "multiprocessing", "testing"]:
        assert getattr(gf, name) is not None
    assert gf.newaxis is None and drawn(3)[:, gf.newaxis].shape == (3, 1)
    for wrong in ("no_such_thing", "no_such_thing_", "_"):
        with pytest.raises(AttributeError, match=f"no attribute '{wrong}'"):
            getattr(gf, wrong)


def test_layers_as_functions_take_pytorchs_order_of_arguments() -> None:
    x, weight, bias = drawn(2, 3, 5), drawn(3), drawn(3, seed=1)
    mean, variance = gf.zeros(3), gf.ones(3)
    found = gf.batch_norm(x, weight, bias, mean, variance, True, 0.1, 1e-5, True)
    assert_close(found, F.batch_norm(x, gf.zeros(3), gf.ones(3), weight, bias, True))
    assert mean.abs().min() > 0
    table, index = drawn(5, 2), gf.tensor([[1, 4], [0, 1]])
    assert_close(gf.embedding(table, index), F.embedding(index, table))
    assert_close(gf.layer_norm(x, (5,)), F.layer_norm(x, (5,)))
    assert_close(gf.group_norm(x, 3, weight), F.group_norm(x, 3, weight))
    assert_close(gf.instance_norm(x, weight, None, None, None, True, 0.1, 1e-5),
                 F.instance_norm(x, weight=weight))  # fmt: skip
    values, places = gf.adaptive_max_pool1d(x, 2)
    assert_close((values, places), F.adaptive_max_pool1d(x, 2, return_indices=True))
    assert_close(gf.conv1d(x, drawn(4, 3, 2)), F.conv1d(x, drawn(4, 3, 2)))


def test_losses_count_their_reductions() -> None:
    a, b = drawn(4, 3), drawn(4, 3, seed=1).sigmoid()
    for number, name in enumerate(("none", "mean", "sum")):
        divergence = F.kl_div(a, b, reduction="none")
        whole = divergence if name == "none" else getattr(divergence, name)()
        assert_close(gf.kl_div(a, b, number), whole)
        assert_close(gf.binary_cross_entropy_with_logits(a, b, None, None, number),
                     F.binary_cross_entropy_with_logits(a, b, reduction=name))  # fmt: skip
        assert_close(gf.triplet_margin_loss(a, b, -a, reduction=number),
                     F.triplet_margin_loss(a, b, -a, reduction=name))  # fmt: skip
    for wrong in (3, -1, "mean", True):
        with pytest.raises(ValueError, match="reduction"):
            gf.hinge_embedding_loss(a, b, reduction=wrong)


def test_dropout_asks_whether_to_train() -> None:
    x = gf.ones(40, 50)
    assert gf.dropout(x, 0.5, False) is x
    gf.manual_seed(SEED)
    kept = gf.feature_dropout(x, 0.5, True)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert kept.mean().item() == pytest.approx(1.0, abs=0.15)
    assert gf.dropout_(x, 1.0, True) is x and not x.any()


def test_in_place_forms_write_to_their_tensor() -> None:
    for name in ("exp", "relu", "sigmoid", "round", "clamp_min", "zero", "fill"):
        x = drawn(6)
        args = {"clamp_min": (0.2,), "fill": (3.0,)}.get(name, ())
        expected = getattr(x.clone(), f"{name}_")(*args)
        assert getattr(gf, f"{name}_")(x, *args) is x
        assert_close(x, expected)


# ---- bits of numbers ----------------------------------------------------------------------------

EDGES = [0.0, -0.0, 1.0, -3.75, 1e-45, -1e-45, 1.1754944e-38, 3.4e38, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_frexp_and_nextafter_are_exact(dtype: Any) -> None:
    rng = np.random.default_rng(SEED)
    scale = 2.0 ** rng.integers(-20, 12, 50)
    with np.errstate(over="ignore"):
        x = np.concatenate([EDGES, rng.standard_normal(50) * scale]).astype(dtype)
    y = rng.permutation(x)
    for ready in (lambda f: f, gf.compile):
        mantissa, exponent = ready(gf.frexp)(gf.tensor(x))
        wanted = np.frexp(x)
        strange = ~np.isfinite(x)  # NumPy leaves their exponent open
        assert np.array_equal(mantissa.numpy(), wanted[0], equal_nan=True)
        assert np.array_equal(exponent.numpy(), np.where(strange, 0, wanted[1]))
        assert exponent.dtype is gf.int32
        found = ready(gf.nextafter)(gf.tensor(x), gf.tensor(y)).numpy()
        assert np.array_equal(found, np.nextafter(x, y), equal_nan=True)
    for wrong in (lambda: gf.frexp(gf.tensor([1])), lambda: gf.nextafter(*[gf.tensor([1])] * 2)):
        with pytest.raises(DTypeError, match="floating"):
            wrong()


def test_bfloat16_steps_by_its_own_distance() -> None:
    one = gf.ones(1, dtype=gf.bfloat16)
    assert gf.nextafter(one, 2 * one).float().item() == 1 + 2.0**-7
    mantissa, exponent = gf.frexp(one * 96)
    assert (mantissa.float().item(), exponent.item()) == (0.75, 7)


def test_frexp_has_the_gradient_of_a_scaling() -> None:
    x = gf.tensor([3.0, -0.3, 1e-40], requires_grad=True)
    mantissa, exponent = gf.frexp(x)
    mantissa[:2].sum().backward()
    assert_close(x.grad, gf.tensor([0.25, 2.0, 0.0]))
    assert not exponent.requires_grad


# ---- made by other rules ------------------------------------------------------------------------


def test_ranges_powers_and_strides() -> None:
    assert_close(gf.range(1, 2.5, 0.5), gf.tensor([1.0, 1.5, 2.0, 2.5]))
    assert_close(gf.range(3), gf.tensor([0.0, 1.0, 2.0, 3.0]))
    with pytest.raises(GraphFlowError, match="does not lead"):
        gf.range(1, 2, -1)
    x = gf.tensor([2, 3])
    assert gf.vander(x, 3).tolist() == [[4, 2, 1], [9, 3, 1]]
    assert gf.vander(x, 3, increasing=True).tolist() == [[1, 2, 4], [1, 3, 9]]
    assert gf.vander(x, 0).shape == (2, 0)
    assert_close(gf.vander(drawn(4)).numpy(), np.vander(drawn(4).numpy()))
    assert gf.empty_strided((2, 3), (1, 2)).stride() == (1, 2)
    made = gf.empty_permuted((2, 3, 4), (2, 0, 1))
    assert made.shape == (2, 3, 4) and made.stride() == (3, 1, 6)


# ---- switches -----------------------------------------------------------------------------------


def test_switches_are_read_back() -> None:
    gf.set_default_device("cpu")
    assert gf.get_default_device() == gf.device("cpu")
    with pytest.raises(GraphFlowError, match="not available"):
        gf.set_default_device("cuda")
    gf.set_deterministic_debug_mode("warn")
    assert gf.get_deterministic_debug_mode() == 1
    gf.set_deterministic_debug_mode(0)
    assert not gf.are_deterministic_algorithms_enabled()
    before = gf.get_num_interop_threads()
    gf.set_num_interop_threads(3)
    assert gf.get_num_interop_threads() == 3
    gf.set_num_interop_threads(before)
    gf.set_default_tensor_type("torch.DoubleTensor")
    assert gf.zeros(1).dtype is gf.float64
    gf.set_default_tensor_type(gf.FloatTensor)
    assert gf.zeros(1).dtype is gf.float32
    gf.set_anomaly_enabled(True)
    assert gf.is_anomaly_enabled()
    gf.set_anomaly_enabled(False)
    assert not gf.is_anomaly_enabled()
    assert gf.compiler.disable(drawn) is drawn and gf.compiler.disable()(drawn) is drawn
    asked: list[bool] = []
    gf.compile(lambda x: asked.append(gf.compiler.is_compiling()) or x + 1)(gf.ones(1))
    assert asked == [True] and not gf.compiler.is_compiling()


def test_assert_close_says_what_differs() -> None:
    x = gf.ones(2, 2)
    assert_close({"a": [x, 1.0]}, {"a": [x + 1e-6, 1.0]})
    for other, text in (
        (x + gf.tensor([[0.0, 0.0], [0.0, 0.5]]), r"1 of 4 elements differ.*\(1, 1\)"),
        (x.double(), "dtypes do not match"), (x[0], "shapes do not match"),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=text):
            assert_close(x, other)
    with pytest.raises(AssertionError, match=r"keys"):
        assert_close({"a": x}, {"b": x})
    with pytest.raises(ValueError, match="both"):
        assert_close(x, x, rtol=1.0)
    assert_close(x, x + 0.5, rtol=0, atol=0.6)
    nan = gf.tensor(float("nan"))
    assert_close(nan, nan, equal_nan=True)
    with pytest.raises(AssertionError, match="mine"):
        assert_close(nan, nan, msg="mine")
    made = make_tensor(50, dtype=gf.int64, low=2, high=4)
    assert set(made.tolist()) == {2, 3}


def _note(index: int, folder: str) -> None:
    if index == 2:
        raise SystemExit(3)
    (pathlib.Path(folder) / str(index)).touch()


def test_processes_are_spawned_and_their_failures_seen(tmp_path: pathlib.Path) -> None:
    with pytest.raises(GraphFlowError, match="process 2 ended with exit code 3"):
        gf.multiprocessing.spawn(_note, (str(tmp_path),), nprocs=3)
    assert gf.multiprocessing.spawn(_note, (str(tmp_path),), nprocs=2) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
