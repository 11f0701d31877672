"""Bad input: each is one error that says what was given, where, and what to do instead."""

import random
import warnings

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from tests.front import linear, ramp

F = nn.functional
ROWS = gf.ones(2, 3)
LABELS = gf.tensor([0, 1])


def sgd(**options):
    return optim.SGD([gf.ones(2)], **{"lr": 0.1, **options})


BAD_VALUES = {
    # shapes
    "add": (lambda: ROWS + gf.ones(4), gf.ShapeError, r"add\(f32\[2,3\], f32\[4\]\).*broadcast"),
    "matmul": (lambda: ROWS @ gf.ones(4, 5), gf.ShapeError, r"matmul.*3 columns.*4 rows"),
    "linear": (lambda: nn.Linear(4, 2)(ROWS), gf.ShapeError, r"linear: .*\[2, 3\].*\[2, 4\]"),
    "cat": (lambda: gf.cat([ROWS, gf.ones(2, 4)]), gf.ShapeError, r"f32\[2,3\].*axis 0"),
    "stack": (lambda: gf.stack([gf.ones(2), gf.ones(3)]), gf.ShapeError, r"\[2\] and \[3\]"),
    "reshape": (lambda: gf.ones(6).reshape(4, 2), gf.ShapeError, r"\[4, 2\].*\[6\].*elements"),
    "two wildcards": (lambda: gf.ones(6).reshape(-1, -1), gf.ShapeError, "only one extent"),
    "negative extent": (lambda: gf.zeros(-1), gf.ShapeError, r"negative.*\[-1\]"),
    "expand": (lambda: gf.ones(2).expand(3), gf.ShapeError, r"\(3\) must match.*\(2\)"),
    "assignment": (lambda: ROWS.clone().__setitem__(0, gf.ones(4)), gf.ShapeError, r"\[4\].*\[3\]"),
    "targets": (lambda: F.cross_entropy(ROWS, gf.arange(3)), gf.ShapeError, r"\[2\], got \[3\]"),
    "probabilities": (lambda: F.cross_entropy(ROWS, gf.ones(2)), gf.ShapeError, "same shape"),
    "bce": (lambda: F.binary_cross_entropy(gf.ones(2), gf.ones(3)), gf.ShapeError, "same shape"),
    "split": (lambda: gf.ones(4).split([1, 1]), gf.ShapeError, "add up to 4"),
    "index rank": (lambda: gf.gather(ROWS, 1, LABELS), gf.ShapeError, "1 dimensions, the input 2"),
    "grad shape": (lambda: ROWS.sum().backward(gf.ones(2)), gf.GraphFlowError, "require grad"),
    # dimensions and positions
    "dim": (lambda: ROWS.sum(3), IndexError, r"range of \[-2, 1\].*got 3"),
    "dim type": (lambda: ROWS.sum("a"), TypeError, "dimension must be a whole number, not 'a'"),
    "dim twice": (lambda: ROWS.sum((0, -2)), gf.ShapeError, "twice"),
    "index": (lambda: ROWS[5], IndexError, "index 5 is out of bounds.*size 2"),
    "too many": (lambda: ROWS[0, 0, 0], IndexError, "too many indices.*dimension 2"),
    "index type": (lambda: ROWS[1.5], IndexError, "got float"),
    "index tensor": (lambda: ROWS[gf.tensor([7])], IndexError, "index 7 .*dimension 0.* size 2"),
    "gather": (lambda: gf.gather(ROWS, 1, gf.tensor([[5]])), IndexError, "index 5.*3 elements"),
    "slice step": (lambda: ROWS[::-1], ValueError, r"flip\(\)"),
    "permute": (lambda: ROWS.permute(0, 0), gf.ShapeError, "does not name every dimension"),
    "empty max": (lambda: gf.zeros(0).max(), gf.GraphFlowError, "no element to choose"),
    # dtypes
    "mixed matmul": (lambda: ROWS @ gf.ones(3, 2).double(), gf.DTypeError, r"float32.*float64.*to"),
    "mixed linear": (lambda: linear(3)(ROWS.double()), gf.DTypeError, r"float64.*input\.to\("),
    "mean": (lambda: gf.arange(3).mean(), gf.DTypeError, "mean needs a floating dtype, not int64"),
    "softmax": (lambda: gf.softmax(gf.arange(3), 0), gf.DTypeError, r"int64.*\.float\(\)"),
    "in place": (lambda: gf.arange(3).mul_(1.5), gf.DTypeError, "float32 can't be cast.*int64"),
    "where": (lambda: gf.where(ROWS, 1.0, 2.0), gf.DTypeError, "bool tensor.*condition != 0"),
    "bitwise": (lambda: ROWS & ROWS, gf.DTypeError, "integer or bool tensors, not float32"),
    "bool minus": (lambda: (ROWS > 0) - (ROWS > 0), gf.DTypeError, "bool tensors is not supported"),
    "int grad": (lambda: gf.arange(2).requires_grad_(), gf.GraphFlowError, "floating.*int64"),
    "label dtype": (lambda: F.nll_loss(ROWS, gf.ones(2)), gf.DTypeError, "class indices"),
    "int scores": (lambda: F.cross_entropy(ROWS.long(), LABELS), gf.DTypeError, "floating-point"),
    "dtype": (lambda: gf.zeros(2, dtype="float32"), TypeError, r"gf\.float32, not 'float32'"),
    "numpy dtype": (lambda: gf.from_numpy(np.ones(2, np.uint16)), gf.DTypeError, "uint16"),
    # labels
    "label": (lambda: F.cross_entropy(ROWS, LABELS + 2), IndexError, "no class.*3.*0 to 2"),
    "label below": (lambda: F.nll_loss(ROWS, LABELS - 1), IndexError, "index -1.*are 0 to 2"),
    "one_hot": (lambda: F.one_hot(gf.tensor([5]), 3), IndexError, "5 to 5.*0 to 2"),
    # things that are no tensors
    "string": (lambda: gf.exp("a"), TypeError, r"got str; make it a tensor with gf\.tensor"),
    "none": (lambda: ROWS + None, TypeError, "got NoneType"),
    "object": (lambda: object() + ROWS, TypeError, "got object"),
    "list": (lambda: ROWS * [1, 2, 3], TypeError, "got list"),
    "cat of ints": (lambda: gf.cat([ROWS, 3]), TypeError, "cat: entry 1 .* not int"),
    "cat of one": (lambda: gf.cat(ROWS), TypeError, "list or tuple of tensors, not one Tensor"),
    "module": (lambda: nn.Linear(2, 3)([1, 2]), TypeError, "linear: input .* not list"),
    "loss": (lambda: F.mse_loss(ROWS, [1, 2]), TypeError, "mse_loss: target .* not list"),
    "matmul list": (lambda: gf.matmul(ROWS, [1]), TypeError, "matmul: other .* not list"),
    "from_numpy": (lambda: gf.from_numpy([1]), TypeError, r"numpy\.ndarray, got list"),
    "ragged": (lambda: gf.tensor([[1, 2], [3]]), gf.ShapeError, r"rectangular.*\[1, 2\]"),
    "mixed depth": (lambda: gf.tensor([1, [2]]), gf.ShapeError, "rectangular"),
    "text": (lambda: gf.tensor(["a"]), gf.DTypeError, "'a' of type str; give numbers"),
    "nothing": (lambda: gf.tensor([None, 1]), gf.DTypeError, "None of type NoneType"),
    "too large": (lambda: gf.tensor([2**70]), gf.DTypeError, "beyond 64 bits"),
    "fill": (lambda: gf.full((2,), "a"), TypeError, "must be a number, not 'a'"),
    "size": (lambda: gf.zeros("a"), TypeError, "whole number, not 'a'"),
    "seed": (lambda: gf.manual_seed("a"), TypeError, "a seed must be a whole number"),
    # devices
    "tensor device": (lambda: gf.tensor(1, device="cuda"), gf.GraphFlowError, "'cuda'.*'cpu'"),
    "zeros device": (lambda: gf.zeros(2, device="tpu"), gf.GraphFlowError, "'tpu'.*'cpu'"),
    "random device": (lambda: gf.rand(2, device="cuda"), gf.GraphFlowError, "'cuda'.*'cpu'"),
    "to": (lambda: ROWS.to("cuda:1"), gf.GraphFlowError, "'cuda:1'.*'cpu'"),
    "module to": (lambda: linear().to("cuda"), gf.GraphFlowError, "'cuda'.*'cpu'"),
    "layer": (lambda: nn.Linear(2, 2, device="cuda"), gf.GraphFlowError, "'cuda'.*'cpu'"),
    "compile": (lambda: gf.compile(linear(), device="cuda"), gf.GraphFlowError, "'cuda'.*'cpu'"),
    # hyper-parameters and options
    "nan rate": (lambda: sgd(lr=float("nan")), ValueError, "learning rate: nan.*finite"),
    "infinite rate": (lambda: optim.Adam([ROWS], lr=float("inf")), ValueError, "rate: inf"),
    "negative rate": (lambda: sgd(lr=-1.0), ValueError, "learning rate: -1.0"),
    "text rate": (lambda: sgd(lr="fast"), ValueError, "learning rate: 'fast'"),
    "rate later": (
        lambda: sgd().param_groups[0].__setitem__("lr", float("nan")), ValueError, "nan",
    ),
    "momentum later": (
        lambda: sgd().param_groups[0].update(momentum=float("inf")), ValueError, "momentum value",
    ),
    "group rate": (
        lambda: optim.SGD([{"params": [ROWS], "lr": float("nan")}], lr=1.0), ValueError, "nan",
    ),
    "beta": (lambda: optim.Adam([ROWS], betas=(1.0, 0.9)), ValueError, r"index 0: 1.0.*\[0, 1\)"),
    "betas": (lambda: optim.Adam([ROWS], betas=0.9), ValueError, "two numbers.*0.9"),
    "option": (lambda: sgd(momentun=0.9), TypeError, "momentun"),
    "group option": (
        lambda: optim.SGD([{"params": [ROWS], "momentun": 1.0}], lr=1.0), ValueError,
        "no option 'momentun'; did you mean 'momentum'",
    ),
    "no params": (lambda: optim.SGD([{"lr": 1.0}], lr=1.0), ValueError, "needs 'params'"),
    "empty": (lambda: optim.SGD([], lr=1.0), ValueError, "empty parameter list"),
    "one tensor": (lambda: optim.SGD(ROWS, lr=1.0), TypeError, "iterable of tensors"),
    "a module": (lambda: optim.SGD(linear(), lr=1.0), TypeError, r"model\.parameters\(\)"),
    "number": (lambda: optim.SGD([3], lr=1.0), TypeError, "optimize Tensors, got int"),
    "twice": (lambda: optim.SGD([ROWS, ROWS], lr=1.0), ValueError, "given twice"),
    "result": (lambda: optim.SGD([linear().weight * 2], lr=1.0), ValueError, "non-leaf"),
    "step size": (lambda: optim.lr_scheduler.StepLR(sgd(), 0), ValueError, "at least 1, not 0"),
    "scheduler": (lambda: optim.lr_scheduler.StepLR(3, 1), TypeError, "not an Optimizer"),
    "dropout": (lambda: nn.Dropout(1.5), ValueError, "between 0 and 1, but got 1.5"),
    "reduction": (lambda: nn.MSELoss(reduction="avg")(ROWS, ROWS), ValueError, "'avg'.*mean, sum"),
    "features": (lambda: nn.Linear("a", 3), TypeError, "in_features .*whole number, not 'a'"),
    "submodule": (lambda: nn.Sequential(3), TypeError, "3 of type int is not a Module"),
    "class of modules": (lambda: nn.Sequential(nn.ReLU), TypeError, r"call it, ReLU\(\.\.\.\)"),
    "row": (lambda: nn.Embedding(3, 2)(gf.tensor([3])), IndexError, "embedding: the input names a"),
    "no target": (lambda: gf.compile(3), TypeError, "callable, an nn.Module or a Graph, not int"),
    "unknown option": (lambda: gf.compile(abs, fullgraph=True), TypeError, "fullgraph"),
    "passes": (lambda: gf.compile(abs, passes=[3]), TypeError, "passes.*not int"),
    "spec": (lambda: gf.TensorSpec((-1,)), ValueError, "at least 0, not -1"),
    "spec name": (lambda: gf.TensorSpec(("my dim",)), TypeError, "whole number, not 'my dim'"),
    "spec dtype": (lambda: gf.TensorSpec((1,), dtype="f32"), TypeError, "not 'f32'"),
    "argnums": (lambda: gf.grad(gf.sum, argnums=3)(ROWS), IndexError, "no argument 3: 1 were"),
    "float argument": (lambda: gf.grad(lambda x: x)(3.0), TypeError, "must be a tensor"),
    "graph name": (
        lambda: gf.grad(gf.trace(lambda x: x.sum(), ROWS), ["z"]), gf.GraphError, "'z'.*'x'",
    ),
    # autograd and values
    "no history": (lambda: ROWS.sum().backward(), gf.GraphFlowError, "no history"),
    "no scalar": (lambda: linear()(ramp(2, 4)).backward(), gf.GraphFlowError, r"scalar.*\[2, 3\]"),
    "numpy": (lambda: linear().weight.numpy(), gf.GraphFlowError, r"detach\(\)\.numpy\(\)"),
    "leaf": (lambda: linear().weight.add_(1), gf.GraphFlowError, r"no_grad\(\)"),
    "shared": (lambda: gf.ones(1).expand(3).add_(1), gf.GraphFlowError, r"clone\(\) it first"),
    "item": (lambda: ROWS.item(), gf.GraphFlowError, r"one element.*\[2, 3\]"),
    "truth": (lambda: bool(ROWS), gf.GraphFlowError, r"ambiguous.*\.any\(\)"),
    "float": (lambda: float(ROWS), gf.GraphFlowError, "one element"),
    "attribute": (lambda: ROWS.banana, AttributeError, "no attribute 'banana'"),
    "state": (
        lambda: linear().load_state_dict({"weight": ROWS}), gf.GraphFlowError,
        r"'weight' is \[2, 3\] in the state, \[3, 4\] here; missing: bias",
    ),
    "state type": (lambda: linear().load_state_dict([1]), TypeError, "map names to tensors"),
    "parameter": (lambda: setattr(linear(), "weight", ROWS), TypeError, "cannot assign Tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_VALUES)
def test_one_clear_error(name):
    function, error, message = BAD_VALUES[name]
    with pytest.raises(error, match=message) as caught:
        function()
    text = str(caught.value)
    assert "numba" not in text.lower() and "numpy." not in text.replace("numpy.ndarray", "")


# ---- inside compiled functions: the user's line, and the module ---------------------

HERE = r"test_front_errors\.py:\d+"


def net():
    return nn.Sequential(nn.Flatten(), linear(4, 3), nn.ReLU())


GROUP = sgd().param_groups[0]
TRACED = {
    "if": (
        lambda x: x if x.sum() > 0 else -x,
        rf"condition needs the value.*bool\[\][\s\S]*{HERE}",
    ),
    "while": (lambda x: [1 for _ in iter(lambda: bool(x.any()), False)], rf"bool[\s\S]*{HERE}"),
    "item": (lambda x: x.sum().item(), rf"item\(\) needs the value[\s\S]*{HERE}"),
    "float": (lambda x: float(x[0, 0]), rf"float\(\) needs[\s\S]*{HERE}"),
    "int": (lambda x: range(int(x.sum())), rf"int\(\) needs[\s\S]*{HERE}"),
    "index": (lambda x: [1, 2][x[0, 0].long()], rf"index needs[\s\S]*{HERE}"),
    "numpy": (lambda x: x.numpy(), rf"numpy\(\) needs[\s\S]*{HERE}"),
    "tolist": (lambda x: x.tolist(), rf"tolist\(\) needs[\s\S]*{HERE}"),
    "mask": (lambda x: x[x > 0], rf"mask needs[\s\S]*{HERE}"),
    "contains": (lambda x: 3 in x, rf"item\(\) needs[\s\S]*{HERE}"),
    "shapes": (lambda x: x + gf.ones(7), rf"add\(f32\[2,4\], f32\[7\]\)[\s\S]*{HERE}"),
    "dtypes": (lambda x: x @ gf.ones(4, 4).double(), rf"float32 and float64[\s\S]*{HERE}"),
    "option": (lambda x: GROUP.__setitem__("lr", 0.5), "outside the function"),
    "seeding": (lambda x: gf.manual_seed(3), "seeding inside a compiled function"),
    "data": (lambda x: setattr(x, "data", x + 1), r"x\.data = y of an argument"),
}


@pytest.mark.parametrize("name", TRACED)
def test_errors_while_tracing_name_the_line(name):
    function, message = TRACED[name]
    with pytest.raises(gf.GraphFlowError, match=message) as caught:
        gf.compile(function)(ramp(2, 4))
    if "needs the value" in str(caught.value):
        assert "gf.where" in str(caught.value)


def test_a_branch_on_a_float_argument_names_the_way_out():
    f = gf.compile(lambda x, rate: x * 2 if rate > 0.5 else x)
    with pytest.raises(gf.TraceError, match=r"gf\.static\(value\)"):
        f(gf.ones(2), 0.7)
    assert f(gf.ones(2), gf.static(0.7)).sum().item() == 4


def test_errors_in_models_name_the_module_and_the_call():
    model = net()
    for bad, what in ((gf.ones(2, 5), r"\[2, 5\]"), (gf.ones(2, 4).double(), "float64")):
        with pytest.raises(gf.GraphFlowError, match=rf"linear: .*{what}[\s\S]*at .*model\.1"):
            gf.compile(lambda x: model(x))(bad)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear(4, 3)

        def forward(self, x):
            return x + self.inner(x)

    block = nn.Sequential(Residual())
    with pytest.raises(
        gf.ShapeError, match=rf"add\(f32\[2,4\], f32\[2,3\]\)[\s\S]*{HERE} block\.0"
    ):
        gf.compile(lambda x: block(x))(ramp(2, 4))


def test_run_time_index_errors_name_the_line_and_leave_the_function_usable():
    table = ramp(5, 2)
    f = gf.compile(lambda i: table[i] * 2)
    np.testing.assert_array_equal(f(gf.tensor([1, 4])).numpy(), (table[gf.tensor([1, 4])] * 2))
    for _ in range(2):
        with pytest.raises(IndexError, match=rf"out of range for axis 0.*5 elements[\s\S]*{HERE}"):
            f(gf.tensor([1, 5]))
    np.testing.assert_array_equal(f(gf.tensor([0, 0])).numpy(), (table[gf.tensor([0, 0])] * 2))


@pytest.mark.parametrize("argument", [{1, 2}, bytearray(b"a"), np.array(["a"])])
def test_arguments_no_program_can_take(argument):
    with pytest.raises(gf.GraphFlowError, match=r"cannot take a|no GraphFlow counterpart"):
        gf.compile(lambda x, y: x)(ramp(2), argument)


def test_results_of_any_plain_kind_are_returned():
    f = gf.compile(lambda x: (x + 1, "text", None, {"n": 3}, x.shape, {1, 2}))
    first, second = f(ramp(2)), f(ramp(2))
    assert first[1:] == second[1:] == ("text", None, {"n": 3}, (2,), {1, 2})


def test_a_failed_trace_is_not_kept():
    switch = {"fail": True}

    def f(x):
        if switch["fail"]:
            raise ValueError("not yet")
        return x + 1

    compiled = gf.compile(f)
    with pytest.raises(ValueError, match="not yet"):
        compiled(ramp(2))
    assert compiled.programs == []
    switch["fail"] = False
    np.testing.assert_array_equal(compiled(ramp(2)).numpy(), (ramp(2) + 1).numpy())


def test_formats_of_traced_numbers_are_named():
    @gf.compile
    def f(x):
        return f"{x.sum():.2f}"

    with pytest.raises(gf.errors.TraceError, match="needs the value"):
        f(ramp(2))
    seen = []
    gf.compile(lambda x: seen.append(f"{x.sum()}") or x)(ramp(2))
    assert seen == ["tensor(<traced f32[]>)"]


def test_data_loaders_inside_a_compiled_function_are_refused():
    loader = gf.utils.data.DataLoader([1.0, 2.0], batch_size=1)

    @gf.compile
    def epoch(x):
        for batch in loader:
            x = x + batch
        return x

    with pytest.raises(gf.errors.TraceError, match="loop over the loader outside"):
        epoch(ramp(2))


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["random", "numpy.random"])
def test_numbers_drawn_while_tracing_are_warned_of(draw):
    f = gf.compile(lambda x: x * draw())
    with pytest.warns(UserWarning, match=r"drew numbers from (numpy\.)?random while"):
        first = f(ramp(2))
    np.testing.assert_array_equal(f(ramp(2)).numpy(), first.numpy())
    own = np.random.default_rng(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.compile(lambda x, share: x * share)(ramp(2), own.random())
        gf.compile(lambda x: x * gf.rand(()))(ramp(2))


def test_draws_from_another_generator_put_in_numpys_place_are_warned_of():
    held = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.Philox(3))
    try:
        with pytest.warns(UserWarning, match=r"drew numbers from numpy\.random while"):
            gf.compile(lambda x: x * np.random.rand())(ramp(2))
    finally:
        np.random.set_bit_generator(held)
