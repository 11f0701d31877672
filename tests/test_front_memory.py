"""Whose memory is whose: results, arguments, views and captured tensors; random numbers."""

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from tests.front import agree, linear, ramp, training_step


def test_results_are_fresh_memory():
    f = gf.compile(lambda x: x + 1)
    x = ramp(4)
    kept = [f(x) for _ in range(5)]
    kept[0].add_(100)
    for result in kept[1:]:
        np.testing.assert_array_equal(result.numpy(), (x + 1).numpy())


def test_memory_of_dead_results_is_used_again():
    f = gf.compile(lambda x: x + 1)
    x = ramp(1000)
    addresses = set()
    for _ in range(10):
        addresses.add(f(x).numpy().ctypes.data)
    assert len(addresses) <= 3


def test_returned_arguments_and_parameters_are_the_very_objects():
    w = nn.Parameter(ramp(3))
    f = gf.compile(lambda x, y: (x, w, [y, x]))
    x, y = ramp(3), ramp(2)
    for _ in range(2):
        a, b, (c, d) = f(x, y)
        assert a is x and b is w and c is y and d is x


def test_returned_views_share_memory():
    def program(jit):
        w = ramp(3, 4)

        @jit
        def f(x):
            with gf.no_grad():
                w.add_(1)
            return x[1], w[:, 0], x.t()

        x = ramp(2, 3)
        row, column, turned = f(x)
        row.add_(10)
        column.mul_(3)
        turned[0, 0] = 99.0
        return [x, w, row, column, turned]

    agree(program)


def test_results_that_share_memory_with_each_other():
    def program(jit):
        @jit
        def f(x):
            y = x * 2
            return y, y[0], y.view(-1), y

        y, row, flat, again = f(ramp(2, 3))
        row.add_(5)
        flat[-1] = 0.0
        again[1, 0] = 7.0
        return [y, row, flat, again]

    agree(program)


def test_arguments_written_in_place():
    def program(jit):
        @jit
        def f(x, y):
            x.mul_(2)
            y[0].copy_(x.sum())
            return x + y[1]

        x, y = ramp(3), ramp(2, 3)
        results = [f(x, y), f(x, y)]
        base = ramp(4, 3)
        results.append(f(base[1], base[2:]))
        wide = ramp(6, 2).t()
        results.append(f(wide[0, ::2], wide[:, 3:]))
        return [*results, x, y, base, wide]

    agree(program)


def test_numpy_arguments_written_in_place():
    def program(jit):
        f = jit(lambda x: gf.as_tensor(x).add_(1).sum())
        x = np.arange(3, dtype=np.float32)
        return [f(x), x.copy(), f(x[::2]), x]

    agree(program)


def test_overlapping_and_equal_arguments():
    def program(jit):
        @jit
        def f(a, b):
            a.add_(1)
            b.mul_(2)
            return a - b

        base = ramp(5)
        x = ramp(3)
        return [f(base[:3], base[2:]), base, f(x, x), x, f(ramp(3), ramp(3))]

    agree(program)


def test_an_argument_that_is_also_captured():
    def program(jit):
        w = ramp(3)

        @jit
        def f(x):
            w.add_(1)
            return x * 2

        return [f(ramp(3)), f(w), w, f(w), w]

    agree(program)


def test_captured_views_and_strided_arrays_stay_views():
    def program(jit):
        array = np.arange(10, dtype=np.float32)
        strided = gf.from_numpy(array[::2])
        turned = ramp(3, 2).t()
        part = ramp(4, 4)[1:3, 1:3]

        @jit
        def f():
            strided.add_(1)
            turned.mul_(2)
            part[0] = 5.0
            return strided.sum() + turned[0].sum() + part.sum()

        results = [f(), f()]
        array += 1
        results.append(f())
        return [*results, array, strided, turned, part]

    agree(program)


def test_state_changed_between_calls_by_eager_code():
    def program(jit):
        w = ramp(3)
        f = jit(lambda x: x * w)
        results = [f(ramp(3))]
        w.add_(1)
        results.append(f(ramp(3)))
        w[0] = 9.0
        w.numpy()[1] = 8.0
        results.append(f(ramp(3)))
        w.data = ramp(3, offset=4.0)
        results.append(f(ramp(3)))
        return results

    agree(program)


def test_aliases_of_one_parameter_in_the_program():
    def program(jit):
        w = ramp(2, 3).requires_grad_()
        row = w.detach()[0]

        @jit
        def f(x):
            w.grad = None
            row.add_(x)
            (w * w).sum().backward()
            return row * 2, w.grad

        return [f(ramp(3)), w, row, f(ramp(3))]

    agree(program)


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 3])
def test_random_numbers_are_the_same_bits_in_both_modes(seed):
    def program(jit):
        gf.manual_seed(seed)
        drop = nn.Dropout(0.3)

        @jit
        def f(x):
            a = drop(x)
            odds = gf.full((9,), 0.4)
            return a, gf.rand(5), gf.randint(0, 100, (7,)), gf.bernoulli(odds), drop(a)

        results = []
        for i in range(3):
            results.append(f(gf.ones(8)))
            if i == 1:
                results.append(gf.rand(3))  # an eager draw in between takes the next number
        return [*results, gf.get_rng_state()]

    gf.manual_seed(seed)
    expected = program(lambda f: f)
    got = program(gf.compile)
    for a, b in zip(_flat(expected), _flat(got), strict=True):
        np.testing.assert_array_equal(a, b)
    first, second = _flat(got)[0], _flat(got)[5]
    assert not np.array_equal(first, second)


def _flat(value):
    if isinstance(value, gf.Tensor):
        return [value.numpy()]
    return [leaf for item in value for leaf in _flat(item)]


def test_normal_numbers_agree_to_rounding():
    def program(jit):
        f = jit(lambda: (gf.randn(50), gf.randn(3, 4, dtype=gf.float64)))
        return [f(), f(), gf.get_rng_state()]

    agree(program, rtol=1e-5, atol=1e-5)


def test_a_generator_of_ones_own():
    def program(jit):
        generator = gf.Generator().manual_seed(5)
        f = jit(lambda: gf.rand(4, generator=generator))
        return [f(), f(), generator.get_state(), gf.rand(2)]

    agree(program)


def test_seed_set_between_calls_repeats_the_numbers():
    f = gf.compile(lambda: gf.rand(4))
    gf.manual_seed(3)
    first, second = f(), f()
    gf.manual_seed(3)
    np.testing.assert_array_equal(f().numpy(), first.numpy())
    state = gf.get_rng_state()
    again = f()
    np.testing.assert_array_equal(again.numpy(), second.numpy())
    gf.set_rng_state(state)
    np.testing.assert_array_equal(f().numpy(), second.numpy())


def test_a_step_that_raises_changes_nothing():
    model = nn.Sequential(nn.Dropout(0.5), linear())
    opt = optim.Adam(model.parameters(), lr=0.1)
    calls = gf.tensor(0)

    @gf.compile
    def step(x, y):
        opt.zero_grad()
        calls.add_(1)
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    good, bad = gf.tensor([0, 2]), gf.tensor([0, 3])
    step(ramp(2, 4), good)
    state = [*model.parameters(), *(v for s in opt.state.values() for v in s.values()), calls]
    before = [t.detach().numpy().copy() for t in state] + [gf.get_rng_state().numpy()]
    for _ in range(2):
        with pytest.raises(IndexError, match=r"gather: .* axis 1.* 3 elements[^$]*memory.py:\d+"):
            step(ramp(2, 4), bad)
    after = [t.detach().numpy() for t in state] + [gf.get_rng_state().numpy()]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    step(ramp(2, 4), good)
    assert calls.item() == 2


def test_a_first_step_that_raises_changes_nothing():
    model = linear()
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = training_step(
        model, opt, gf.compile, lambda out: nn.functional.nll_loss(out, gf.tensor([0, 9]))
    )
    before = model.weight.detach().clone()
    with pytest.raises(IndexError):
        step(ramp(2, 4))
    assert gf.equal(before, model.weight)
    assert all((s == 0).all() for slots in opt.state.values() for s in slots.values())


def test_eager_autograd_notices_what_a_compiled_step_changed():
    model = linear()
    step = training_step(model, optim.SGD(model.parameters(), lr=0.1), gf.compile)
    for _ in range(3):
        loss = (model.weight * model.weight).sum()
        step(ramp(5, 4))
        with pytest.raises(gf.GraphFlowError, match="in-place"):
            loss.backward()


def test_an_error_in_the_function_leaves_eager_mode_working():
    def f(x):
        x.add_(1)
        raise KeyError("mine")

    x = ramp(3)
    with pytest.raises(KeyError, match="mine"):
        gf.compile(f)(x)
    np.testing.assert_array_equal(x.numpy(), ramp(3).numpy())
    assert (gf.ones(2) + 1).sum().item() == 4
    assert gf.compile(lambda x: x + 1)(gf.ones(1)).item() == 2


def test_traced_tensors_kept_outside_say_so():
    kept = []

    @gf.compile
    def f(x):
        kept.append(x * 2)
        return x + 1

    f(ramp(3))
    with pytest.raises(gf.TraceError, match="return it, or assign it"):
        kept[0].numpy()
    with pytest.raises(gf.TraceError, match="return it, or assign it"):
        kept[0] + 1
    assert "traced" in repr(kept[0])


COPIES = {
    "a reshape of a transpose": lambda a: a.t().reshape(-1),
    "a flattened transpose": lambda a: a.t().flatten(),
    "its rows in order": lambda a: a.t().contiguous(),
    "a reshape of an expansion": lambda a: a[None].expand(2, 3, 4).reshape(6, 4),
    "columns side by side": lambda a: a[:, 1:3].reshape(-1),
    "repeats in front": lambda a: a.repeat(2, 1, 1),
    "repeats of one": lambda a: a.repeat(1, 1),
    "a tile": lambda a: a.tile(3, 1, 1),
}
VIEWS = {
    "a reshape": lambda a: a.reshape(2, 6),
    "rows flattened": lambda a: a[1:].flatten(),
    "contiguous rows": lambda a: a[1:].contiguous(),
    "a transpose with an axis split": lambda a: a.t().reshape(2, 2, 3),
}


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
@pytest.mark.parametrize("name", [*COPIES, *VIEWS])
@pytest.mark.parametrize("argument", [False, True])
def test_what_memory_allows_decides_what_is_a_view(name, jit, argument):
    """Also in a compiled function: changes show in views and not in copies, either way round."""
    make = {**COPIES, **VIEWS}[name]

    def run(x):
        a = x if argument else x * 1
        shown = make(a)
        a.add_(1)
        seen = shown.clone()
        shown[-1] = 50
        return seen, shown, a

    x = ramp(3, 4)
    before = make(x).numpy().copy()
    seen, shown, a = jit(run)(x.clone())
    moved = 1 if name in VIEWS else 0
    np.testing.assert_array_equal(seen.numpy(), before + moved)
    assert (shown.numpy()[-1] == 50).all()
    assert (a.numpy() == 50).any() == (name in VIEWS)


def test_contiguous_results_lie_in_their_own_order() -> None:
    x = gf.randn(4, 3, 5)
    for made in (lambda x: x.transpose(0, 1).contiguous(), lambda x: (x * 2).mT.contiguous()):
        found, want = gf.compile(made)(x), made(x)
        assert found.stride() == want.stride()
        np.testing.assert_array_equal(found.view(-1).numpy(), want.view(-1).numpy())


def test_data_changed_in_place_compile():
    """``x.data *= y`` ends with an assignment of what is there already."""

    class Masked(nn.Linear):
        def forward(self, x):
            self.weight.data *= gf.tensor([[1.0, 0.0, 1.0]])
            return super().forward(x)

    found = []
    for compiled in (False, True):
        gf.manual_seed(1)
        layer = Masked(3, 2)
        call = gf.compile(layer) if compiled else layer
        opt = optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(3):
            opt.zero_grad()
            (call(ramp(4, 3)) ** 2).sum().backward()
            opt.step()
        found.append(layer.weight.detach().numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    view = layer.weight.data
    view += 1
    layer.weight.data = view
    assert layer.weight.is_leaf and (layer.weight.detach().numpy() - found[1] == 0).all()


@pytest.mark.parametrize("rows", [(1, 2, 1, 0), (3, None, 3)])
def test_arguments_that_show_a_part_of_what_a_step_updates(rows):
    """``x * 2`` after the update is twice the updated row, whichever row the caller shows."""
    weight = nn.Parameter(ramp(4, 3))
    optimizer = optim.SGD([weight], 0.25)

    @gf.compile
    def step(x):
        optimizer.zero_grad()
        loss = (weight * x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach(), x * 2

    for row in rows:
        before = weight.detach().numpy().copy()
        x = ramp(3) if row is None else weight.detach()[row]
        given = x.numpy().copy()
        loss, twice = step(x)
        np.testing.assert_allclose(loss.item(), (before * given).sum(), atol=1e-6)
        after = before - 0.25 * given
        np.testing.assert_allclose(weight.detach().numpy(), after, atol=1e-6)
        np.testing.assert_allclose(
            twice.numpy(), 2 * (given if row is None else after[row]), atol=1e-6
        )


def test_what_is_written_to_a_part_shows_in_the_whole():
    memory = gf.zeros(4, 3)

    @gf.compile
    def write(x):
        x.add_(1)
        return memory.sum(0)

    for count, part in enumerate((memory[1], memory[2], memory[1], memory[0, :3]), 1):
        np.testing.assert_array_equal(write(part).numpy(), np.full(3, count))
    np.testing.assert_array_equal(write(gf.zeros(3)).numpy(), np.full(3, 4))


@pytest.mark.parametrize(
    "strided",
    [
        lambda: ramp(8, 3, 10)[..., ::2],
        lambda: ramp(16, 3, 5)[::2],
        lambda: ramp(8, 5, 3).transpose(1, 2),
        lambda: ramp(5, 3, 8).permute(2, 1, 0),
        lambda: ramp(120)[: 8 * 15].reshape(8, 3, 5),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_views_of_arguments_that_show_the_same_memory(strided, swapped):
    """Results that are views lie where the argument does, though others show a part of it."""

    def step(a, b):
        whole, part = (b, a) if swapped else (a, b)
        part.add_(1.0)
        return whole.unflatten(0, (2, 4)), part[1:], whole[..., 0]

    compiled = gf.compile(step)
    for _ in range(2):
        outs = []
        for function in (step, compiled):
            whole = strided()
            part = whole[:, 1:]
            given = (part, whole) if swapped else (whole, part)
            found = function(*given)
            whole.mul_(2.0)
            outs.append([whole.numpy(), *(r.numpy() for r in found)])
        for eager, made in zip(*outs, strict=True):
            np.testing.assert_array_equal(made, eager)
