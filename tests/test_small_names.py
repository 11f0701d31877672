"""Small names of PyTorch's that scripts use: addresses of modules, hooks, windows, copies."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal.windows as sw

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.errors import GraphFlowError
from graphflow.nn import grad as slopes
from graphflow.testing import assert_close

SEED = 20261130


def drawn(*shape: int) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(SEED).standard_normal(shape))


def test_what_scripts_import_is_where_they_import_it_from() -> None:
    same = {
        "utils.data.distributed:DistributedSampler": gf.utils.data.DistributedSampler,
        "utils.hooks:RemovableHandle": type(gf.nn.Linear(1, 1).register_forward_hook(print)),
        "nn.utils.clip_grad:clip_grad_norm_": gf.nn.utils.clip_grad_norm_,
        "nn.utils.convert_parameters:parameters_to_vector": gf.nn.utils.parameters_to_vector,
        "nn.utils.stateless:functional_call": gf.func.functional_call,
        "autograd.grad_mode:no_grad": gf.no_grad,
        "autograd.anomaly_mode:detect_anomaly": gf.autograd.detect_anomaly,
        "nn.modules.container:Sequential": gf.nn.Sequential,
        "nn.modules.module:Module": gf.nn.Module,
        "nn.modules.rnn:LSTM": gf.nn.LSTM,
        "nn.modules.instancenorm:InstanceNorm2d": gf.nn.InstanceNorm2d,
        "nn.modules.activation:MultiheadAttention": gf.nn.MultiheadAttention,
        "random:seed": gf.seed,
        "multiprocessing:start_processes": gf.multiprocessing.spawn,
    }
    for place, wanted in same.items():
        module, name = place.split(":")
        assert getattr(importlib.import_module(f"graphflow.{module}"), name) is wanted, place
    x = drawn(3)
    assert gf.utils.dlpack.from_dlpack(x.numpy()).data_ptr() == x.data_ptr()
    assert gf.utils.dlpack.from_dlpack(gf.utils.dlpack.to_dlpack(x)).data_ptr() == x.data_ptr()


def test_devices_that_are_not_there_say_so() -> None:
    for module in (gf.xpu, gf.mps):
        assert not module.is_available() and module.device_count() == 0
        module.empty_cache()
    for name in ("mkl", "openmp", "opt_einsum"):
        assert not getattr(gf.backends, name).is_available()
    assert gf.cpu.is_available() and gf.cpu.device_count() == 1
    assert gf.get_device_module("cpu") is gf.cpu is gf.get_device_module(gf.device("cpu"))
    assert gf.get_device_module("cuda:0") is gf.cuda
    with pytest.raises(GraphFlowError, match="no module for 'tpu'"):
        gf.get_device_module("tpu")
    with gf.cpu.amp.autocast(dtype=gf.bfloat16):
        assert (gf.ones(2, 2) @ gf.ones(2, 2)).dtype is gf.bfloat16
    made = gf.Generator().manual_seed(3)
    gf.rand(2, generator=made)
    again = made.clone_state()
    assert made.device == gf.device("cpu")
    assert gf.rand(3, generator=made).tolist() == gf.rand(3, generator=again).tolist()


def test_hooks_see_an_optimisers_state_come_and_go() -> None:
    seen: list[Any] = []
    optimizer = gf.optim.SGD([gf.nn.Parameter(gf.ones(2))], lr=0.1)

    def halved(_: Any, state: Any) -> Any:
        return {**state, "param_groups": [{**state["param_groups"][0], "lr": 0.05}]}

    optimizer.register_state_dict_pre_hook(lambda o: seen.append("save"))
    handle = optimizer.register_state_dict_post_hook(halved)
    optimizer.register_state_dict_post_hook(lambda o, s: seen.append(s["param_groups"][0]["lr"]),
                                            prepend=True)  # fmt: skip
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["lr"] == 0.05 and seen == ["save", 0.1]
    handle.remove()
    assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.1
    optimizer.register_load_state_dict_pre_hook(halved)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.param_groups[0]["lr"]))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen[-1] == 0.05


WINDOWS: dict[str, dict[str, Any]] = {
    "bartlett": {}, "blackman": {}, "cosine": {}, "hamming": {}, "hann": {}, "nuttall": {},
    "exponential": {"tau": 2.5}, "gaussian": {"std": 1.7}, "kaiser": {"beta": 5.0},
    "general_cosine": {"a": (0.4, 0.35, 0.25)}, "general_hamming": {"alpha": 0.6},
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_scipys(name: str) -> None:
    ours, theirs = getattr(gf.signal.windows, name), getattr(sw, name)
    options = dict(WINDOWS[name])
    given = {{"tau": "tau"}.get(k, k): v for k, v in options.items()}
    for count in (0, 1, 2, 9, 12):
        for sym in (True, False):
            found = ours(count, sym=sym, dtype=gf.float64, **options)
            np.testing.assert_allclose(found.numpy(), theirs(count, sym=sym, **given), 1e-7, 1e-9)
    assert ours(3, requires_grad=True, **options).requires_grad
    assert ours(3, **options).dtype is gf.float32
    with pytest.raises(ValueError, match="symmetric window"):
        gf.signal.windows.exponential(3, center=1.0)
    with pytest.raises(ValueError, match=r"signal\.windows\.\w+: dtype is float32 or float64"):
        ours(3, dtype=gf.int32, **options)
    assert gf.ones(2).layout is not gf.sparse_coo


def test_places_of_a_known_number() -> None:
    x = drawn(3, 4) > 0.4
    where = np.argwhere(x.numpy())
    for size in (0, 2, len(where), 30):
        wanted = np.full((size, 2), -7)
        wanted[: len(where)] = where[:size]
        for run in (gf.nonzero_static, gf.compile(gf.nonzero_static)):
            np.testing.assert_array_equal(run(x, size=size, fill_value=-7).numpy(), wanted)
    assert gf.tensor(2.0).nonzero_static(size=3).shape == (3, 0)


def test_copies_of_views_are_in_memory_of_their_own() -> None:
    x = drawn(2, 3, 4).requires_grad_()
    views: dict[str, tuple[Any, ...]] = {
        "as_strided": ((2, 2), (1, 2), 3), "diagonal": (1, 0, 2), "expand": ((5, 2, 3, 4),),
        "narrow": (1, 1, 2), "permute": ((2, 0, 1),), "select": (1, 2), "split": (2, 2),
        "split_with_sizes": ((1, 3), 2), "squeeze": (), "transpose": (0, 2), "unbind": (1,),
        "unfold": (2, 2, 1), "unsqueeze": (1,), "view": ((6, 4),),
    }  # fmt: skip
    for name, arguments in views.items():
        view = getattr(x, name, None) or (lambda *a, n=name: getattr(gf, n)(x, *a))
        found, wanted = getattr(gf, f"{name}_copy")(x, *arguments), view(*arguments)
        assert_close(found, wanted)
        one = found[0] if isinstance(found, tuple) else found
        assert one.data_ptr() != x.data_ptr() and one.requires_grad
    assert not gf.detach_copy(x).requires_grad and gf.alias_copy(x).requires_grad
    assert x.narrow_copy(0, 0, 1).shape == (1, 3, 4)
    z = drawn(3, 2)
    assert_close(gf.view_as_real_copy(gf.view_as_complex_copy(z)), z)
    assert x.permute(2, 0, 1).dim_order() == (1, 2, 0)
    assert x.new_empty_strided((2, 3), (1, 2)).stride() == (1, 2)
    put = gf.as_strided_scatter(x, gf.zeros(2, 2, dtype=gf.float64), (2, 2), (4, 1), 1)
    assert put[0, 0, 1:3].tolist() == [0, 0] and (put != x).sum() == 4
    taken = drawn(2, 3)
    assert taken.put(gf.tensor([0, 5]), gf.tensor([7.0, 8.0]).double())[1, 2].item() == 8


def test_files_are_tensors(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    made = gf.from_file(str(path), shared=True, size=6, dtype=gf.int32)
    made.copy_(gf.arange(6))
    again = gf.from_file(path, size=4, dtype=gf.int32)
    assert again.tolist() == [0, 1, 2, 3] and again.dtype is gf.int32
    again.fill_(9)  # a copy: the file stays
    assert np.fromfile(path, np.int32).tolist() == [0, 1, 2, 3, 4, 5]
    mapped = gf.from_numpy(np.memmap(path, np.int32, "r+"))
    mapped.add_(1)
    assert np.fromfile(path, np.int32).tolist() == [1, 2, 3, 4, 5, 6]
    assert gf.from_file(path, size=0).shape == (0,)
    with pytest.raises(GraphFlowError, match="has 24 bytes, and 28 are asked for"):
        gf.from_file(path, size=7)


def test_slopes_of_convolutions_are_those_of_autograd() -> None:
    for dims, convolution in ((1, F.conv1d), (2, F.conv2d), (3, F.conv3d)):
        x = drawn(2, 4, *[5] * dims).requires_grad_()
        w = drawn(6, 2, *[3] * dims).requires_grad_()
        options = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
        out = convolution(x, w, **options)
        ct = out.detach() + 1
        wanted = gf.autograd.grad(out, (x, w), ct)
        by_input, by_weight = (getattr(slopes, f"conv{dims}d_{n}") for n in ("input", "weight"))
        assert_close(by_input(x.shape, w, ct, **options), wanted[0])
        assert_close(by_weight(x, w.shape, ct, **options), wanted[1])
    x, w, b = drawn(7, 2, 5), drawn(3, 5, 4), drawn(4)
    wanted = F.conv1d(x.permute(1, 2, 0), w.permute(2, 1, 0), b, padding=1).permute(2, 0, 1)
    assert_close(gf.conv_tbc(x, w, b, 1), wanted)


def test_modules_can_be_made_empty() -> None:
    model = gf.nn.BatchNorm1d(3)
    assert model.to_empty(device="cpu") is model
    assert all(value.eq(0).all() for value in model.state_dict().values())


def test_memory_can_be_compared() -> None:
    x = drawn(3, 4)
    memory = x[1:].t().untyped_storage()
    assert memory.data_ptr() == x.untyped_storage().data_ptr() == x.data_ptr()
    assert len(memory) == memory.nbytes() == 96 and memory.device == x.device
    assert x.clone().untyped_storage().data_ptr() != memory.data_ptr()
    assert gf.is_storage(memory) and not gf.is_storage(x) and not memory.is_shared()
    assert gf.ones(2).share_memory_().untyped_storage().is_shared()


def test_a_linear_layer_and_its_loss_in_one() -> None:
    x, w, b = drawn(5, 3), drawn(4, 2, 3), drawn(4, 2)
    target = gf.tensor([[0, 3], [1, 1], [2, -100], [3, 0], [1, 2]])
    logits = F.linear(x, w.reshape(8, 3), b.reshape(8)).reshape(5, 4, 2)
    for options in ({}, {"label_smoothing": 0.1, "weight": drawn(4).abs()}, {"reduction": "sum"}):
        found = F.linear_cross_entropy(x, w, target, linear_bias=b, **options)
        assert_close(found, F.cross_entropy(logits, target, **options))
    with pytest.raises(GraphFlowError, match="takes input"):
        F.linear_cross_entropy(x[0], w, target[0])
    with pytest.raises(GraphFlowError, match="no options"):
        F.linear_cross_entropy(x, w, target, options={"chunk": 3})  # type: ignore[arg-type]


def test_tensor_takes_data_or_extents() -> None:
    for made, shape in (
        (gf.Tensor(2, 3), (2, 3)), (gf.Tensor(4), (4,)), (gf.Tensor(), (0,)),
        (gf.Tensor(np.int64(2), 3), (2, 3)), (gf.Tensor(gf.ones(2, 3).size()), (2, 3)),
        (gf.FloatTensor(gf.ones(2, 3).size()), (2, 3)), (gf.FloatTensor(np.int64(3)), (3,)),
    ):  # fmt: skip
        assert made.shape == shape and made.dtype is gf.float32
    assert gf.ones(2, dtype=gf.float64).new(gf.ones(2, 3).size()).shape == (2, 3)
    assert gf.ones(2, dtype=gf.int32).new([1.5, 2]).tolist() == [1, 2]
    for data in ([1, 2], np.array([1, 2]), range(1, 3), (1.0, 2.0), np.array([1.0, 2.0])):
        made = gf.Tensor(data)
        assert made.dtype is gf.float32 and made.tolist() == [1.0, 2.0]
    assert gf.Tensor(gf.ones(2, dtype=gf.float64)).dtype is gf.float64  # a tensor is one already
    assert gf.nn.Parameter(gf.Tensor(3, 2)).requires_grad
    for wrong in (lambda: gf.Tensor(5.0), lambda: gf.Tensor([1], 2), lambda: gf.LongTensor(2.0)):
        with pytest.raises(TypeError, match=r"sequence|extents"):
            wrong()


def test_typed_constructors_are_types() -> None:
    x = gf.ones(2)
    assert isinstance(x, gf.FloatTensor) and not isinstance(x, gf.LongTensor)
    assert not isinstance(2.0, gf.FloatTensor)
    assert x.type(gf.LongTensor).dtype is gf.int64
    assert (gf.FloatTensor | None) is not None  # in annotations


def test_numbers_of_numpy_in_lists_keep_their_dtype() -> None:
    for data, dtype in (
        ([np.float64(1)], gf.float64), ([np.float32(1), 1.0], gf.float32),
        ([np.float32(1), np.float64(1)], gf.float64), ([np.int32(1)], gf.int32),
        ([np.int32(1), 2], gf.int64), ([1, np.float64(2)], gf.float64),
        ([np.int64(1), 2.5], gf.float32), ([np.bool_(True)], gf.bool),
        ([np.array([1, 2], np.int32)], gf.int32), ([np.array([1.0]), np.array([2])], gf.float64),
        ([[np.float32(1)], [2.0]], gf.float32), ([np.float16(1), 2], gf.float16),
        ([1.0, 2], gf.float32), (np.float64(1), gf.float64),
    ):  # fmt: skip
        made = gf.tensor(data)
        assert made.dtype is dtype, data
        assert np.array_equal(made.numpy().ravel(), np.array(data).ravel())


def test_types_of_python_are_dtypes() -> None:
    x = gf.ones(2)
    for kind, dtype in ((float, gf.float64), (int, gf.int64), (bool, gf.bool)):
        for made in (
            gf.zeros(2, dtype=kind), gf.full((2,), 1, dtype=kind), gf.tensor([1], dtype=kind),
            gf.as_tensor([1], dtype=kind), gf.arange(2, dtype=kind), x.to(kind), x.type(kind),
            x.to(dtype=kind), gf.zeros_like(x, dtype=kind), x.new_ones(2, dtype=kind),
            gf.linspace(0, 1, 2, dtype=kind), gf.randint(0, 2, (2,), dtype=kind),
        ):  # fmt: skip
            assert made.dtype is dtype
    assert gf.rand(2, dtype=float).dtype is gf.randn(2, dtype=float).dtype is gf.float64
    assert x.sum(dtype=float).dtype is gf.softmax(x, 0, dtype=float).dtype is gf.float64
    assert x.to(complex).dtype is gf.complex128 and gf.eye(2, dtype=int).dtype is gf.int64
    assert gf.nn.Linear(2, 2).to(float).weight.dtype is gf.float64
    assert gf.nn.Linear(2, 2, dtype=float).weight.dtype is gf.float64
    with pytest.raises(TypeError, match="dtype must be"):
        gf.zeros(2, dtype=str)  # type: ignore[arg-type]


def test_bounds_of_draws_may_be_numbers_of_numpy() -> None:
    low, high = np.int64(3), np.int64(5)
    assert set(gf.randint(low, high, (50,)).tolist()) == {3, 4}
    assert set(gf.randint(high, (100,)).tolist()) == set(range(5))
    assert gf.randint(high, size=(high,)).shape == (5,)
    assert gf.randint(high=high, size=(50,)).max().item() == 4
    with pytest.raises(TypeError, match="whole number"):
        gf.randint(0, 2.5, (2,))


def test_floats_print_in_the_notation_asked_for() -> None:
    values = gf.tensor([1.23456, 1e-9])
    try:
        gf.set_printoptions(precision=2, sci_mode=False)
        assert repr(values) == "tensor([1.23, 0.00])"
        gf.set_printoptions(sci_mode=True)
        assert repr(gf.tensor([1.0, 2.0])) == "tensor([1.00e+00, 2.00e+00])"
    finally:
        gf.set_printoptions(profile="default")
    assert repr(values) == "tensor([1.2346e+00, 1.0000e-09])"


def test_layers_of_ones_own_find_their_bases_and_helpers() -> None:
    pair = importlib.import_module("graphflow.nn.modules.utils")
    assert (pair._pair(3), pair._triple([1, 2, 3]), pair._single(5)) == ((3, 3), (1, 2, 3), (5,))
    assert pair._reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)
    modules = gf.nn.modules
    assert isinstance(gf.nn.Conv2d(1, 1, 1), modules.conv._ConvNd)
    assert not isinstance(gf.nn.Linear(1, 1), modules.conv._ConvNd)
    assert isinstance(gf.nn.ConvTranspose1d(1, 1, 1), modules.conv._ConvTransposeNd)
    assert isinstance(gf.nn.Dropout2d(), modules.dropout._DropoutNd)
    assert issubclass(gf.nn.LSTM, modules.rnn.RNNBase) and modules.Module is gf.nn.Module
    fans = gf.nn.init._calculate_fan_in_and_fan_out(gf.ones(4, 3, 2, 2))
    assert fans == (12, 16)
    assert gf.nn.init._calculate_correct_fan(gf.ones(4, 3), "fan_out") == 4


@pytest.mark.filterwarnings("ignore:lr_scheduler.step")
def test_a_schedule_of_ones_own_derives_from_the_old_name() -> None:
    class Warm(gf.optim.lr_scheduler._LRScheduler):
        def __init__(self, optimizer: gf.optim.Optimizer, steps: int, last_epoch: int = -1) -> None:
            self.steps = steps
            super().__init__(optimizer, last_epoch)

        def get_lr(self) -> list[float]:
            return [base * min(1, (self.last_epoch + 1) / self.steps) for base in self.base_lrs]

    schedule = Warm(gf.optim.SGD([gf.nn.Parameter(gf.ones(1))], lr=0.4), 4)
    rates = [schedule.get_last_lr()[0]]
    for _ in range(4):
        schedule.step()
        rates += schedule.get_last_lr()
    assert np.allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.4])


def test_what_older_scripts_call() -> None:
    with gf.autograd.profiler.profile(record_shapes=True) as found, \
            gf.autograd.profiler.record_function("product"):  # fmt: skip
        gf.ones(2, 2) @ gf.ones(2, 2)
    assert "product" in found.key_averages().table()
    with gf.autograd.profiler.profile(enabled=False) as nothing:
        assert nothing is None
    assert gf.utils.model_zoo.load_url is gf.hub.load_state_dict_from_url
    assert gf.version.cuda is None and gf.cuda.get_rng_state_all() == []
    with pytest.warns(UserWarning, match="volatile"):
        gf.autograd.Variable(gf.ones(1), volatile=True)


def test_equal_modules_of_a_list_print_once() -> None:
    layers = [gf.nn.Linear(1, 2), gf.nn.Linear(1, 2), gf.nn.Sequential(gf.nn.ReLU())]
    assert repr(gf.nn.ModuleList(layers)) == (
        "ModuleList(\n  (0-1): 2 x Linear(in_features=1, out_features=2, bias=True)\n"
        "  (2): Sequential(\n    (0): ReLU()\n  )\n)"
    )
    assert repr(gf.nn.ModuleList()) == "ModuleList()"


def test_class_indices_that_are_floats_are_named() -> None:
    with pytest.raises(gf.errors.ShapeError, match=r"target\.long\(\)"):
        F.cross_entropy(gf.ones(2, 3), gf.ones(2))


def test_histories_tell_their_names_when_called() -> None:
    x = gf.ones(2, requires_grad=True)
    made = (x * 2).exp()
    assert made.grad_fn.name() == "ExpBackward0" and repr(made.grad_fn) == "<ExpBackward0>"
    assert made.grad_fn.next_functions[0][0].name() == "MulBackward0"
    assert gf.aminmax(x * 1).max.grad_fn.name() != ""
