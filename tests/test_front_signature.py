"""Arguments of compiled calls: what is a run-time value, what makes a new program, and why."""

import collections
import dataclasses
import functools
import types
from typing import NamedTuple

import numpy as np
import pytest

import graphflow as gf
from graphflow import compiled as compiled_functions
from tests.front import agree, ramp
from tests.threads import in_threads


def compiled(function):
    runs = []

    @functools.wraps(function)
    def counted(*args, **kwargs):
        runs.append(1)
        return function(*args, **kwargs)

    made = gf.compile(counted)
    made.runs = runs
    return made


@pytest.mark.parametrize("values", [(0.5, 2.0, -1.0), (float("inf"), 1e-30, 0.0)])
def test_float_arguments_are_run_time_scalars(values):
    f = compiled(lambda x, s: x * s + s)
    x = ramp(3)
    for s in values:
        np.testing.assert_array_equal(f(x, s).numpy(), (x * s + s).numpy())
    assert len(f.runs) == 1 and len(f.programs) == 1 and not f.recompiles


def test_numpy_floats_are_run_time_scalars_too():
    f = compiled(lambda x, s: x * s)
    for s in (np.float64(0.5), np.float32(0.25), 3.0):
        np.testing.assert_array_equal(f(ramp(3), s).numpy(), (ramp(3) * float(s)).numpy())
    assert len(f.runs) == 1


def test_arithmetic_of_floats_keeps_double_precision():
    f = gf.compile(lambda x, s: x + (s * 3.0 - s / 3.0))
    s = 0.1234567890123456
    x = gf.zeros(2, dtype=gf.float64)
    assert f(x, s)[0].item() == pytest.approx(s * 3.0 - s / 3.0, rel=1e-15)


def test_float_results_stay_floats():
    f = gf.compile(lambda x, s: (x, s * 2.0))
    result = f(ramp(2), 1.5)[1]
    assert type(result) is float and result == 3.0


def test_a_scalar_does_not_promote_a_half_tensor():
    f = gf.compile(lambda x, s: x * s)
    assert f(ramp(2, dtype=gf.float64), 2.0).dtype is gf.float64
    assert f(ramp(2), 2.0).dtype is gf.float32
    assert f(gf.arange(3), 0.5).dtype is gf.float32


@pytest.mark.parametrize(
    ("first", "second"), [(1, 2), (True, False), ("sum", "mean"), (None, 1), ((1, 2), (2, 1))]
)
def test_other_plain_values_are_part_of_the_signature(first, second):
    f = compiled(lambda x, kind: x * 2 if kind == first else x * 3)
    x = ramp(3)
    for kind in (first, second, first, second):
        factor = 2 if kind == first else 3
        np.testing.assert_array_equal(f(x, kind).numpy(), (x * factor).numpy())
    assert len(f.runs) == 2


def test_one_and_true_and_a_float_of_one_are_different_arguments():
    f = compiled(lambda x, k: x * (10 if k is True else 20 if type(k) is int else k))
    x = gf.ones(1)
    assert [f(x, k).item() for k in (1, True, 1.0, 1, True)] == [20, 10, 1, 20, 10]
    assert len(f.runs) == 3


def test_recompiles_name_the_argument():
    f = gf.compile(lambda x, power, mode="up": x**power)
    x = ramp(3)
    f(x, 2)
    f(x, 3)
    f(ramp(4), 3)
    f(ramp(4), 3, mode="down")
    texts = [str(r) for r in f.recompiles]
    assert len(texts) == 3
    assert "power" in texts[0] and "2 → 3" in texts[0]
    assert "x" in texts[1] and "f32[3] → f32[4]" in texts[1]
    assert "mode" in texts[2]
    assert all("test_front_signature.py" in text for text in texts)


@pytest.mark.parametrize("way", ["argument", "attribute"])
def test_traces_again_and_again_are_told_of_once(way):
    options = types.SimpleNamespace(n=0)
    f = gf.compile((lambda x, n: x * n) if way == "argument" else lambda x, _: x * options.n)
    with pytest.warns(UserWarning, match="n: 15 → 16") as told:
        for options.n in range(40):
            assert f(gf.ones(1), options.n if way == "argument" else 0).item() == options.n
    assert len(told) == 1
    assert told[0].filename == __file__


def test_signatures_are_kept_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(compiled_functions, "_MAX_SIGNATURES", 3)
    f = gf.compile(lambda x, n: x * n)
    assert [f(gf.ones(1), n).item() for n in (0, 1, 2, 3, 4, 4, 0, 2)] == [0, 1, 2, 3, 4, 4, 0, 2]
    assert len(f._entries) == 3


def test_static_takes_a_float_out_of_the_program():
    f = compiled(lambda x, s: x * 2 if s > 1 else x * 3)
    x = ramp(3)
    for s, factor in ((0.5, 3), (2.0, 2), (0.5, 3)):
        np.testing.assert_array_equal(f(x, gf.static(s)).numpy(), (x * factor).numpy())
    assert len(f.runs) == 2
    assert "0.5 → 2.0" in str(f.recompiles[0])


def test_keyword_arguments_and_defaults():
    def f(x, scale=2.0, *, shift=1):
        return x * scale + shift

    def program(jit):
        g = jit(f)
        x = ramp(3)
        return [g(x), g(x, scale=3.0), g(x, 3.0), g(x=x, shift=4), g(x, shift=4, scale=0.5)]

    agree(program)


def test_order_of_keyword_arguments_does_not_matter():
    f = compiled(lambda **kw: kw["a"] - kw["b"])
    a, b = ramp(3), ramp(3, offset=1.0)
    np.testing.assert_array_equal(f(a=a, b=b).numpy(), (a - b).numpy())
    np.testing.assert_array_equal(f(b=b, a=a).numpy(), (a - b).numpy())


@dataclasses.dataclass
class Batch:
    x: gf.Tensor
    y: gf.Tensor
    weight: float = 1.0


class Pair(NamedTuple):
    first: object
    second: object


def test_nests_of_arguments_and_results():
    def f(batch, table, pair):
        total = batch.x * batch.weight + table["shift"] + pair.second[0]
        return (
            Batch(total, batch.y, 2.0),
            {"b": total * 2, "a": (pair.first, [total])},
            Pair(1, total),
        )

    def program(jit):
        g = jit(f)
        batch = Batch(ramp(3), ramp(2), 0.5)
        out, table, pair = g(batch, {"shift": ramp(3)}, Pair("name", [ramp(3)]))
        assert type(out) is Batch and type(pair) is Pair and list(table) == ["b", "a"]
        assert table["a"][0] == "name" and pair.first == 1 and out.weight == 2.0
        return [out.x, out.y, table["b"], table["a"][1][0], pair.second]

    agree(program)


def test_ordered_and_default_dicts_are_nests_too():
    def swapped(batch):
        sums = collections.defaultdict(list, {"sums": [v.sum() for v in batch.values()]})
        return collections.OrderedDict((k, v * 2) for k, v in reversed(batch.items())), sums

    for kind in (collections.OrderedDict, lambda d: collections.defaultdict(int, d)):
        compiled = gf.compile(swapped)
        for scale in (1, 3):
            given = kind({"a": ramp(2) * scale, "b": ramp(3) * scale})
            (doubled, sums), (expected, sums_too) = compiled(given), swapped(given)
            assert type(doubled) is collections.OrderedDict and list(doubled) == ["b", "a"]
            assert type(sums) is collections.defaultdict and sums["more"] == []
            np.testing.assert_array_equal(doubled["a"].numpy(), expected["a"].numpy())
            assert sums["sums"][1].item() == sums_too["sums"][1].item()
        assert len(compiled.programs) == 1


class Attributed(dict):
    def __init__(self, *items, **more):
        super().__init__(*items, **more)
        self.__dict__ = self


class Output(collections.OrderedDict):
    def to_tuple(self):
        return tuple(self.values())


@pytest.mark.parametrize("kind", [Attributed, Output])
def test_sub_classes_of_dictionaries_are_nests(kind):
    def doubled(batch, **more):
        return kind(y=batch["x"] * 2, **more)

    compiled = gf.compile(doubled)
    for number in range(3):
        found = compiled(kind(x=ramp(number + 1)), z=None)
        assert type(found) is kind and list(found) == ["y", "z"] and found["z"] is None
        first = found.y if kind is Attributed else found.to_tuple()[0]
        np.testing.assert_array_equal(first.numpy(), ramp(number + 1).numpy() * 2)


def test_slices_are_arguments():
    part = gf.compile(lambda x, where: (x[where], where))
    for where in (slice(1, 3), slice(None, None, 2), (slice(0, 2), 1)):
        found, same = part(ramp(4, 3), where)
        np.testing.assert_array_equal(found.numpy(), ramp(4, 3).numpy()[where])
        assert same == where


@pytest.mark.parametrize(
    "hidden",
    [lambda x: collections.deque([x]), lambda x: {x}, lambda x: types.MappingProxyType({1: x})],
)
def test_containers_that_are_no_nests_cannot_hold_results(hidden):
    with pytest.raises(gf.TraceError, match=r"cannot return a \w+ that holds tensors"):
        gf.compile(lambda x: hidden(x * 2))(ramp(2))


def test_structure_is_part_of_the_signature():
    f = compiled(lambda items: sum(items, gf.zeros(())))
    x = gf.ones(())
    assert [f([x] * n).item() for n in (1, 2, 3, 2)] == [1, 2, 3, 2]
    assert len(f.runs) == 3
    assert "structure" in str(f.recompiles[0])


def test_numpy_arguments_are_tensors():
    f = compiled(lambda x: x * 2)
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(f(x).numpy(), x * 2)
    x += 1
    np.testing.assert_array_equal(f(x).numpy(), x * 2)
    np.testing.assert_array_equal(f(gf.from_numpy(x)).numpy(), x * 2)
    np.testing.assert_array_equal(f(x[::-1]).numpy(), x[::-1] * 2)
    assert len(f.runs) == 1


def test_dtypes_and_shapes_select_programs():
    f = compiled(lambda x: x + 1)
    for x in (ramp(3), ramp(3, dtype=gf.float64), ramp(1, 3), gf.arange(3), ramp(3)):
        out = f(x)
        assert out.dtype is x.dtype and out.shape == x.shape
    assert len(f.runs) == 4


def test_strided_arguments_of_one_shape_share_a_program():
    f = compiled(lambda x: x * 2 + 1)
    base = ramp(4, 4)
    for x in (base, base.t(), base.flip(0)):
        np.testing.assert_array_equal(f(x).numpy(), (x * 2 + 1).numpy())
    assert len(f.runs) == 1


def test_bound_methods_partials_and_decorators():
    class Scaler:
        def __init__(self):
            self.factor = ramp(3)

        def scale(self, x, by):
            return x * self.factor * by

        @gf.compile
        def decorated(self, x):
            return x + self.factor

    scaler = Scaler()
    x = ramp(3, offset=0.5)
    expected = (x * scaler.factor * 2.0).numpy()
    np.testing.assert_array_equal(gf.compile(scaler.scale)(x, 2.0).numpy(), expected)
    half = functools.partial(scaler.scale, by=2.0)
    np.testing.assert_array_equal(gf.compile(half)(x).numpy(), expected)
    np.testing.assert_array_equal(scaler.decorated(x).numpy(), (x + scaler.factor).numpy())
    named = gf.compile(keep_grads=True, name="special")(lambda x: x * 2)
    named(x)
    assert named.programs[0].graph.name == "special"


def test_nested_compiled_functions_are_inlined():
    inner = gf.compile(lambda x: gf.tanh(x) * 2)
    outer = gf.compile(lambda x: inner(x) + 1)
    x = ramp(4)
    np.testing.assert_allclose(outer(x).numpy(), (gf.tanh(x) * 2 + 1).numpy(), atol=1e-6)
    assert len(outer.programs) == 1 and not inner.programs
    inner(x)
    assert len(inner.programs) == 1


def test_clear_forgets_programs():
    f = compiled(lambda x: x + 1)
    f(ramp(2))
    f(ramp(3))
    f.clear()
    assert f.programs == [] and f.recompiles == []
    f(ramp(2))
    assert len(f.runs) == 3 and len(f.programs) == 1


def test_calls_trace_exactly_once():
    f = compiled(lambda x: x.exp())
    for _ in range(20):
        f(ramp(5))
    assert len(f.runs) == 1


def test_no_grad_is_part_of_the_signature():
    w = ramp(3).requires_grad_()
    f = compiled(lambda x: x * w)
    live = f(ramp(3))
    with gf.no_grad():
        dead = f(ramp(3))
    assert live.requires_grad and not dead.requires_grad
    f(ramp(3))
    assert len(f.runs) == 2


def test_gradient_mode_switches_programs_on_the_quick_path():
    weight = gf.ones(3, requires_grad=True)
    compiled = gf.compile(lambda x: x * weight)
    x = gf.ones(3)
    for recorded in (False, True, False, True):
        with gf.set_grad_enabled(recorded):
            assert [compiled(x).requires_grad for _ in range(3)] == [recorded] * 3
    assert len(compiled.programs) == 2


def test_an_argument_that_another_thread_traces_over_is_no_obstacle():
    compiled = gf.compile(lambda x: x + 1)
    x = gf.ones(3)
    compiled(x)

    def other(number):
        with gf.no_grad():
            inner = gf.compile(lambda y: y * 2)
            inner(x)
            assert compiled(x).tolist() == [2.0] * 3

    in_threads(1, other)
    assert compiled(x).tolist() == [2.0] * 3


def test_a_quick_argument_that_a_program_also_captures_is_not_two_tensors():
    held = gf.zeros(3)

    def step(x):
        held.add_(1)
        return x + held

    compiled = gf.compile(step)
    apart = gf.zeros(3)
    assert [compiled(apart).tolist() for _ in range(3)] == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    assert compiled(held).tolist() == [8.0] * 3  # both operands see the addition
    assert compiled(held).tolist() == [10.0] * 3
    assert compiled(apart).tolist() == [6.0] * 3


def test_views_and_changed_layouts_leave_the_quick_path():
    compiled = gf.compile(lambda x: x * 2)
    x = gf.arange(6.0).reshape(2, 3)
    square = gf.arange(9.0).reshape(3, 3)
    for _ in range(3):
        assert compiled(x).tolist() == [[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]]
        assert compiled(x.t()).tolist() == [[0.0, 6.0], [2.0, 8.0], [4.0, 10.0]]
        assert compiled(square.t()).tolist() == (square.t() * 2).tolist()
        assert compiled(square).tolist() == (square * 2).tolist()


@pytest.mark.parametrize(
    "function",
    [
        lambda x, k: x * gf.sigmoid(k * x),
        lambda x, k: x.addcmul(x, x, value=k),
        lambda x, k: x.addcdiv(x, x.exp(), value=-k),
        lambda x, k: x.index_add(0, gf.tensor([1]), x[:1], alpha=k),
        lambda x, k: x.scatter(1, gf.tensor([[0], [2]]), k),
        lambda x, k: x * gf.tensor([k, 2 * k, 1], dtype=gf.float64),
        lambda x, k: x * gf.tensor([[0.5, 1, 2], [k, 1, k]]),
        lambda x, k: gf.nn.functional.leaky_relu(x, k) / k,
    ],
)
def test_floats_are_run_time_numbers_of_both_passes(function):
    compiled = gf.compile(function, dynamic=False)
    rng = np.random.default_rng(9)
    for k in (0.5, 0.25, 1.0, 0.75):
        x, again = (gf.tensor(rng.standard_normal((2, 3))) for _ in range(2))
        again.copy_(x)
        results = [call(v.requires_grad_(), k) for v, call in ((x, compiled), (again, function))]
        for result in results:
            result.square().sum().backward()
        assert results[0].dtype == results[1].dtype
        np.testing.assert_allclose(*(result.detach() for result in results), rtol=1e-12)
        np.testing.assert_allclose(x.grad, again.grad, rtol=1e-9, atol=1e-12)
    assert len(compiled.programs) == 1


def test_a_number_may_be_a_result_as_it_is():
    compiled = gf.compile(lambda x, k: (x + k, gf.where(x.sum() > 0, k, k) * 1.0, k * 1.0))
    for k in (0.5, 0.25):
        _, chosen, same = compiled(gf.ones(2), k)
        assert (float(chosen), float(same)) == (k, k)
