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


def test_what_scripts_ask_of_cuda_before_they_choose_a_device() -> None:
    assert gf.OutOfMemoryError is gf.cuda.OutOfMemoryError
    assert issubclass(gf.OutOfMemoryError, RuntimeError)
    assert gf.cuda.get_arch_list() == [] and not gf.cuda.is_initialized()
    assert gf.cuda.initial_seed() == gf.initial_seed()
    assert not isinstance(gf.ones(1), gf.cuda.FloatTensor)
    for wrong in (gf.cuda.get_device_properties, gf.cuda.get_device_capability, gf.cuda.init):
        with pytest.raises(gf.GraphFlowError, match="no CUDA device"):
            wrong()
    for elsewhere in (lambda: gf.cuda.FloatTensor([1.0]), lambda: gf.ones(2).xpu(),
                      lambda: gf.ones(2).type("torch.cuda.FloatTensor"),
                      lambda: gf.nn.Linear(1, 1).xpu()):  # fmt: skip
        with pytest.raises(gf.GraphFlowError, match="is not available"):
            elsewhere()
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        gf.cuda.no_such_thing  # noqa: B018


def test_ranges_for_profilers_nest() -> None:
    nvtx = gf.cuda.nvtx
    with gf.profiler.profile() as found:
        assert (nvtx.range_push("outer"), nvtx.range_push("inner")) == (0, 1)
        nvtx.mark("here")
        assert (nvtx.range_pop(), nvtx.range_pop(), nvtx.range_pop()) == (1, 0, -1)
        with nvtx.range("step {}", 3):
            gf.ones(2) + 1
    assert {"outer", "inner", "step 3"} <= {row.key for row in found.key_averages()}


def test_names_of_types_and_marks_for_scripting() -> None:
    named = [gf.typename(x) for x in (gf.ones(2), gf.nn.Linear, 3, int, len)]
    linear = "graphflow.nn.modules.linear.Linear"
    assert named == ["graphflow.FloatTensor", linear, "int", "int", "len"]
    assert gf.jit.annotate(list[int], [1]) == [1] and gf.jit.script_if_tracing(len) is len
    futures = [gf.jit.fork(pow, 2, n) for n in (3, 4)]
    assert [gf.jit.wait(f) for f in futures] == [8, 16]
    line = gf.nn.Linear(2, 2)
    assert gf.equal(gf.jit.trace_module(line, {"forward": gf.ones(1, 2)})(gf.ones(1, 2)),
                    line(gf.ones(1, 2)))  # fmt: skip
    with pytest.raises(gf.GraphFlowError, match="traces forward, not other"):
        gf.jit.trace_module(line, {"other": gf.ones(1)})
    model = gf.nn.Sequential(gf.nn.Conv2d(1, 2, 1), gf.nn.BatchNorm2d(2))
    with pytest.raises(gf.GraphFlowError, match="eval"):
        gf.jit.optimize_for_inference(model)
    assert gf.jit.optimize_for_inference(model.eval()) is model
    assert gf.func.replace_all_batch_norm_modules_(model) is model
    x = gf.rand(3, 1, 4, 4)
    assert [name for name, _ in model.named_buffers()] == []
    assert abs(model(x).mean().item()) < 1e-5
    assert gf.func.vmap(model)(x[:, None]).shape == (3, 1, 2, 4, 4)


def test_what_copies_of_pytorchs_own_code_import() -> None:
    from graphflow.nn.modules.linear import NonDynamicallyQuantizableLinear
    from graphflow.nn.modules.transformer import _get_activation_fn, _get_clones

    overrides = gf.overrides
    assert not overrides.has_torch_function((gf.ones(1),))
    assert not overrides.has_torch_function_variadic(1, 2) and overrides.is_tensor_like(gf.ones(1))
    with pytest.raises(TypeError, match="no argument of sum has an implementation"):
        overrides.handle_torch_function(sum, (), 1)
    copies = _get_clones(gf.nn.Linear(2, 2), 3)
    assert len(copies) == 3 and gf.equal(copies[0].weight, copies[2].weight)
    assert copies[0].weight is not copies[2].weight
    assert _get_activation_fn("relu") is gf.nn.functional.relu
    attention = gf.nn.MultiheadAttention(4, 2)
    assert isinstance(attention.out_proj, NonDynamicallyQuantizableLinear)
    with gf.utils.checkpoint.set_checkpoint_early_stop(False):
        x = gf.ones(2, requires_grad=True)
        gf.utils.checkpoint.checkpoint(gf.exp, x, use_reentrant=False).sum().backward()
    np.testing.assert_allclose(x.grad, np.exp(np.ones(2)), rtol=1e-6)


def test_switches_within_a_block() -> None:
    cuda, cudnn = gf.backends.cuda, gf.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    with cudnn.flags(enabled=False, benchmark=True), cuda.sdp_kernel(enable_flash=False):
        assert not cudnn.enabled and cudnn.benchmark and not cuda.flash_sdp_enabled()
        assert cuda.math_sdp_enabled()
    assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before
    assert cuda.flash_sdp_enabled()


def test_types_of_sizes_have_names() -> None:
    from graphflow.nn.common_types import _size_2_t, _size_any_t
    from graphflow.nn.modules.rnn import RNNCellBase

    assert _size_2_t == int | tuple[int, int] and _size_any_t == int | tuple[int, ...]
    assert issubclass(gf.nn.LSTMCell, RNNCellBase)
