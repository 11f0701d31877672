"""Names that scripts use before and around training: devices, typed tensors, generator scopes."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import graphflow as gf


def test_devices_can_be_named_compared_and_refused() -> None:
    cpu, second = gf.device("cpu"), gf.device("cuda:1")
    assert (second.type, second.index, str(second)) == ("cuda", 1, "cuda:1")
    assert repr(second) == "device(type='cuda', index=1)" and repr(cpu) == "device(type='cpu')"
    assert second == gf.device("cuda", 1) == gf.device(second) and second != gf.device("cuda")
    assert len({cpu, gf.device("cpu"), second}) == 2 and cpu != "cpu"
    assert pickle.loads(pickle.dumps(second)) == copy.deepcopy(second) == second
    assert isinstance(gf.zeros(1).device, gf.device)
    with cpu:
        assert gf.zeros(2, device=cpu).to(gf.device("cpu", 0)).shape == (2,)
    for wrong in (lambda: gf.device("tpu"), lambda: gf.device("cuda:x"),
                  lambda: gf.device("cuda:1", 1), lambda: gf.zeros(2, device="cuda"),
                  lambda: gf.zeros(2).to(second), lambda: second.__enter__()):  # fmt: skip
        with pytest.raises(gf.GraphFlowError):
            wrong()
    with pytest.raises(TypeError):
        gf.device(3.5)  # type: ignore[arg-type]


def test_typed_constructors_take_data_or_extents() -> None:
    for name, dtype in (("FloatTensor", gf.float32), ("LongTensor", gf.int64),
                        ("BoolTensor", gf.bool), ("ByteTensor", gf.uint8)):  # fmt: skip
        make = getattr(gf, name)
        made = make([[1, 0], [0, 1]])
        assert made.dtype is dtype and np.array_equal(made.numpy(), np.eye(2))
        assert make(2, 3).shape == (2, 3) and make(2, 3).dtype is dtype
        assert make().shape == (0,) and make(np.array([1])).tolist() == [1]


def test_draws_in_a_fork_leave_the_generator_alone() -> None:
    gf.manual_seed(3)
    expected = gf.rand(4).tolist()
    gf.manual_seed(3)
    with gf.random.fork_rng():
        gf.manual_seed(11)
        inside = gf.rand(4).tolist()
    assert gf.rand(4).tolist() == expected != inside
    with gf.random.fork_rng(enabled=False):
        gf.manual_seed(11)
    assert gf.rand(4).tolist() == inside


def test_there_is_no_accelerator() -> None:
    assert not gf.cuda.is_available() and gf.cuda.device_count() == 0
    assert not gf.accelerator.is_available() and gf.accelerator.current_accelerator() is None
    assert not gf.backends.mps.is_available() and not gf.backends.cudnn.is_available()
    gf.cuda.manual_seed_all(1)
    gf.cuda.empty_cache()
    for wrong in (gf.cuda.synchronize, gf.cuda.current_device, gf.cuda.get_device_name):
        with pytest.raises(gf.GraphFlowError, match="no CUDA device"):
            wrong()
    assert (gf.pi, gf.e, gf.inf) == (math.pi, math.e, math.inf) and math.isnan(gf.nan)


def test_switches_of_precision_and_determinism() -> None:
    try:
        gf.set_float32_matmul_precision("high")
        assert gf.get_float32_matmul_precision() == "high" and gf.backends.cuda.matmul.allow_tf32
        gf.use_deterministic_algorithms(True, warn_only=True)
        assert gf.are_deterministic_algorithms_enabled() and gf.backends.cuda.deterministic
        assert gf.is_deterministic_algorithms_warn_only_enabled()
        with pytest.raises(ValueError, match="one of highest, high, medium, got 'low'"):
            gf.set_float32_matmul_precision("low")
    finally:
        gf.set_float32_matmul_precision("highest")
        gf.use_deterministic_algorithms(False)
    assert not gf.backends.cuda.matmul.allow_tf32 and not gf.backends.cuda.deterministic
