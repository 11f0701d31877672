"""Mixed precision: what autocast makes of functions, eager and compiled; the loss scaler."""

import ml_dtypes
import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.ir.graph import Graph
from graphflow.passes.pipeline import run_pipeline
from graphflow.passes.widen import Widen
from tests.autocast_policy import Operands, all_calls
from tests.front import Counted, agree, ramp

BF, F16, F32, F64 = gf.bfloat16, gf.float16, gf.float32, gf.float64


def x(*shape, dtype=F32):
    return ramp(*shape, dtype=dtype)


HALF = x(4, 4).to(BF)
AS_THEY_COME = {
    "add of halves": (lambda: HALF + HALF, BF),
    "add of both": (lambda: HALF + x(4, 4), F32),
    "relu": (lambda: F.relu(HALF), BF),
    "gelu": (lambda: F.gelu(HALF), BF),
    "mean": (lambda: HALF.mean(), BF),
    "resized by areas": (lambda: F.interpolate(x(1, 1, 4).to(BF), 2, mode="area"), BF),
    "sum asked for in halves": (lambda: HALF.sum(dtype=BF), BF),
    "float64": (lambda: x(3, 4, dtype=F64) @ x(4, 3, dtype=F64), F64),
    "integers": (lambda: gf.ones(3, 4, dtype=gf.int64) @ gf.ones(4, 3, dtype=gf.int64), gf.int64),
}


@pytest.mark.parametrize("half", [BF, F16], ids=str)
def test_functions_take_the_precision_that_pytorch_gives_them(half):
    wrong = []
    with gf.autocast("cpu", half):
        for name, (call, dtype) in all_calls(half).items():
            found = call(Operands("cpu", half)).dtype
            if found is not dtype:
                wrong.append(f"{name}: {found.name}, not {dtype.name}")
    assert not wrong


@pytest.mark.parametrize("name", AS_THEY_COME)
def test_what_a_function_returns(name):
    function, dtype = AS_THEY_COME[name]
    with gf.autocast("cpu"):
        eager = function()
        traced = gf.trace(lambda: function())
    assert eager.dtype is dtype
    assert traced.outputs[0].dtype is dtype


def test_a_product_of_halves_adds_in_float32_and_rounds_once():
    a, b = x(64, 96), x(96, 32)
    with gf.autocast("cpu"):
        eager = a @ b
        static = gf.compile(lambda a, b: a @ b)(a, b)
    low = [t.numpy().astype(ml_dtypes.bfloat16).astype(np.float64) for t in (a, b)]
    exact = (low[0] @ low[1]).astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)
    for got in (eager, static):
        assert got.dtype is BF
        # One unit in the last place where float32's sum lies on the other side of a half.
        np.testing.assert_allclose(got.float().numpy(), exact, rtol=2**-7, atol=1e-6)
        assert np.mean(got.float().numpy() == exact) > 0.99


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 9, 3, padding=1)
        self.norm = nn.BatchNorm2d(9)
        self.out = nn.Linear(9 * 36, 3)

    def forward(self, images):
        return self.out(F.relu(self.norm(self.conv(images))).flatten(1))


@pytest.mark.parametrize("dtype", [BF, F16])
def test_training_keeps_parameters_and_gradients_in_float32(dtype):
    def program(jit):
        model = Net()
        opt = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

        def step(images, labels):
            opt.zero_grad()
            with gf.autocast("cpu", dtype):
                scores = model(images)
                loss = F.cross_entropy(scores, labels)
            loss.backward()
            opt.step()
            assert scores.dtype is dtype and loss.dtype is F32
            assert all(p.dtype is p.grad.dtype is F32 for p in model.parameters())
            return loss

        step = jit(step)
        losses = [step(x(5, 2, 6, 6), gf.tensor([0, 1, 2, 1, 0])) for _ in range(8)]
        assert losses[-1].item() < 0.5 * losses[0].item()
        return losses, list(model.parameters())

    # A bias in front of a normalisation has no gradient but rounding.
    agree(program, rtol=3e-2, atol=1e-2)


def test_gradients_are_those_of_the_casts():
    w = x(3, 4).requires_grad_()
    with gf.autocast("cpu"):
        y = F.linear(x(5, 4), w)
    y.backward(gf.ones(5, 3, dtype=BF))
    low = x(5, 4).numpy().astype(ml_dtypes.bfloat16).astype(np.float32)
    expected = np.tile(low.sum(0), (3, 1)).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=2**-7)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_keep_their_state(kind):
    gf.manual_seed(0)
    layer = kind(3, 4, 2)
    plain, _ = layer(x(5, 2, 3))
    with gf.autocast("cpu"):
        eager, _ = layer(x(5, 2, 3))
        static, _ = gf.compile(layer)(x(5, 2, 3))
    np.testing.assert_allclose(eager.detach().float(), plain.detach(), atol=0.03)
    np.testing.assert_allclose(static.detach().float(), eager.detach().float(), atol=0.01)


def test_contexts_nest_and_decorate():
    @gf.autocast("cpu")
    def decorated():
        with gf.autocast("cpu", enabled=False):
            off = (x(2, 2) @ x(2, 2)).dtype, gf.is_autocast_enabled("cpu")
        with gf.autocast("cpu", F16):
            other = (x(2, 2) @ x(2, 2)).dtype, gf.get_autocast_dtype("cpu")
        return off, other, (x(2, 2) @ x(2, 2)).dtype, gf.is_autocast_enabled("cpu")

    assert decorated() == ((F32, False), (F16, F16), BF, True)
    assert not gf.is_autocast_enabled("cpu")
    assert (x(2, 2) @ x(2, 2)).dtype is F32
    with gf.autocast("cuda"):  # of another device
        assert (x(2, 2) @ x(2, 2)).dtype is F32
    with pytest.raises(gf.GraphFlowError, match=r"cpu.*cuda.*'tpu'"):
        gf.autocast("tpu")
    with pytest.warns(UserWarning, match="float64"):
        assert not gf.autocast("cpu", F64)._enabled


def test_casts_of_parameters_are_kept_until_they_change():
    w = x(2, 2).requires_grad_()
    with gf.autocast("cpu"):
        first = x(2, 2) @ w
        with gf.no_grad():
            w.mul_(2)
        second = x(2, 2) @ w
    np.testing.assert_array_equal(second.detach().float(), 2 * first.detach().float())
    (first + second).sum().backward()
    assert w.grad.dtype is F32


def test_a_compiled_function_has_a_program_for_each_precision():
    counted = Counted(lambda a: a @ a)
    static = gf.compile(counted)
    for _ in range(2):
        assert static(x(3, 3)).dtype is F32
        with gf.autocast("cpu"):
            assert static(x(3, 3)).dtype is BF
    assert counted.runs == 2


def test_functions_of_ones_own():
    seen = []

    class Double(gf.autograd.Function):
        @staticmethod
        @gf.amp.custom_fwd(device_type="cpu", cast_inputs=F32)
        def forward(ctx, a):
            seen.append((a.dtype, gf.is_autocast_enabled("cpu")))
            return a * 2

        @staticmethod
        @gf.amp.custom_bwd(device_type="cpu")
        def backward(ctx, ct):
            seen.append(gf.is_autocast_enabled("cpu"))
            return ct * 2

    a = x(2, 2).to(BF).requires_grad_()
    with gf.autocast("cpu"):
        y = Double.apply(a)
        y.sum().backward()
    assert seen == [(F32, False), False] and y.dtype is F32
    np.testing.assert_array_equal(a.grad.float(), np.full((2, 2), 2.0))


WIDEN = """\
graph main {
  %x: bf16[8,16] = input(name="x")
  %w: bf16[16,4] = input(name="w")
  %0: bf16[8,4] = matmul(%x, %w)
  %1: f32[8,4] = cast(%0, dtype=f32)
  return %1
}
"""
WIDENED = """\
graph main {
  %x: bf16[8,16] = input(name="x")
  %w: bf16[16,4] = input(name="w")
  %0: f32[8,16] = cast(%x, dtype=f32)
  %1: f32[16,4] = cast(%w, dtype=f32)
  %2: f32[8,4] = matmul(%0, %1)
  %3: bf16[8,4] = cast(%2, dtype=bf16)
  %4: f32[8,4] = cast(%3, dtype=f32)
  return %4
}
"""


def test_widen():
    graph = Graph.parse(WIDEN)
    made = Widen().run(graph)
    assert str(made) == WIDENED
    # The cast to halves and back rounds, so no law may take it away.
    kept = [node for node in run_pipeline(graph)[-2].graph.nodes if node.op.name == "cast"]
    assert len(kept) == 4
    args = [ramp(8, 16).to(BF).numpy(), ramp(16, 4).to(BF).numpy()]
    np.testing.assert_array_equal(made.run(*args)[0], graph.run(*args)[0])


# ---- the scaler ------------------------------------------------------------------------

# torch.amp.GradScaler of PyTorch 2.13, the same loop: parameters, scale, count of good updates.
SCALED = [
    ([0.8, 1.6], 8.0, 1), ([0.8, 1.6], 4.0, 0), ([0.3, 0.6], 4.0, 1), ([-0.33, -0.66], 8.0, 0),
    ([-0.864, -1.728], 8.0, 1),
]  # fmt: skip


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile], ids=["eager", "compiled"])
def test_the_scaler_skips_updates_and_adapts(jit):
    p = nn.Parameter(gf.tensor([1.0, 2.0]))
    opt = optim.SGD([p], lr=0.1, momentum=0.9)
    scaler = gf.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    counted = Counted(lambda factor: one_update(factor))

    def one_update(factor):
        opt.zero_grad()
        scaler.scale((p * p).sum() * factor).backward()
        scaler.step(opt)
        scaler.update()

    step = jit(counted)
    for factor, (values, scale, good) in zip([1, float("inf"), 2, 3, 0.5], SCALED, strict=True):
        step(gf.tensor(float(factor)))
        np.testing.assert_allclose(p.detach(), values, rtol=1e-5)
        assert (scaler.get_scale(), scaler.state_dict()["_growth_tracker"]) == (scale, good)
    assert counted.runs == (1 if jit is gf.compile else 5)
    if jit is gf.compile:  # a factor is no constant of the program
        scaler.set_growth_factor(4.0)
        step(gf.tensor(1.0))
        assert scaler.get_scale() == 32.0 and counted.runs == 1


def test_the_scaler_skips_all_of_an_optimisers_state():
    p = nn.Parameter(gf.tensor([1.0, 2.0]))
    opt = optim.Adam([p], lr=0.1)
    scaler = gf.amp.GradScaler("cpu", init_scale=2.0)

    @gf.compile
    def step(factor):
        opt.zero_grad()
        scaler.scale((p * factor).sum()).backward()
        scaler.unscale_(opt)
        norm = nn.utils.clip_grad_norm_([p], 1.0)
        scaler.step(opt)
        scaler.update()
        return norm

    step(gf.tensor(float("nan")))
    slots = opt.state[p]
    assert slots["step"].item() == 0 and not slots["exp_avg"].any()
    assert p.tolist() == [1.0, 2.0] and scaler.get_scale() == 1.0
    assert step(gf.tensor(3.0)).item() == pytest.approx(3 * 2**0.5)
    assert slots["step"].item() == 1 and p[0].item() == pytest.approx(0.9)


def test_the_scaler_in_wrong_order():
    p = nn.Parameter(gf.tensor([1.0]))
    opt, scaler = optim.SGD([p], lr=0.1), gf.amp.GradScaler("cpu")
    with pytest.raises(gf.GraphFlowError, match="no step to learn from"):
        scaler.update()
    with pytest.raises(gf.GraphFlowError, match="no parameter"):
        scaler.step(opt)
    scaler.scale(p.sum()).backward()
    scaler.unscale_(opt)
    assert p.grad.item() == 1.0
    with pytest.raises(gf.GraphFlowError, match="already been called"):
        scaler.unscale_(opt)
    scaler.step(opt)
    with pytest.raises(gf.GraphFlowError, match="since the last update"):
        scaler.step(opt)
    scaler.update()
    with pytest.raises(ValueError, match="growth_factor"):
        gf.amp.GradScaler("cpu", growth_factor=1.0)


def test_the_state_of_a_scaler():
    scaler = gf.cuda.amp.GradScaler(init_scale=4.0, growth_interval=7)
    other = gf.amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    assert other.get_scale() == 4.0 and other.get_growth_interval() == 7
    off = gf.amp.GradScaler("cpu", enabled=False)
    loss = gf.tensor(2.0)
    assert off.scale(loss) is loss and off.state_dict() == {} and off.get_scale() == 1.0
    assert [t.item() for t in other.scale([loss, loss])] == [8.0, 8.0]
