"""Which products are convolutions: descriptions executed in NumPy, by their documented meaning."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest

from graphflow.codegen.cuda.convolution import (
    FORWARD,
    WEIGHTS,
    Convolution,
    Tensor,
    as_convolution,
)
from graphflow.codegen.cuda.padding import unpadded
from graphflow.codegen.library import Numerics, Operand, Padded, Plan, Seen, Term
from graphflow.records import replace
from tests.cudasim.numpy_convolutions import convolve

Array = np.ndarray[Any, Any]


def shown(memory: Array, start: int, tensor: Tensor) -> Array:
    """A tensor in ``memory``, whose bounds are checked."""
    last = sum((n - 1) * s for n, s in zip(tensor.extents, tensor.strides))
    assert start >= 0 and start + last < memory.size and min(tensor.strides) > 0
    strides = tuple(s * memory.itemsize for s in tensor.strides)
    return np.lib.stride_tricks.as_strided(memory[start:], tensor.extents, strides)


def summed(seen: Seen, a: Array, b: Array, out: Array) -> None:
    """``seen`` by its own meaning, an element after the other."""
    kept = [k for k, kind in enumerate(seen.kinds) if kind != "depth"]
    out[...] = np.nan

    def at(x: Operand, places: tuple[int, ...]) -> int:
        return x.offset + sum(s * n for s, n in zip(x.strides, places))

    for places in product(*map(range, seen.extents)):
        where = at(seen.result, places)
        first = all(places[k] == 0 for k in range(len(places)) if k not in kept)
        value = a[at(seen.a, places)] * b[at(seen.b, places)]
        out[where] = value if first else out[where] + value


def check(seen: Seen, seed: Any = 0) -> Convolution:
    """A product as a convolution against the product itself."""
    rng = np.random.default_rng(seed)
    memory = {}
    for x in (seen.a, seen.b, seen.result):
        ends = [(n - 1) * s for n, s in zip(seen.extents, x.strides)]
        memory[x.argument] = rng.normal(size=x.offset + sum(ends) + 1)
    wanted = np.array(memory[2])
    summed(seen, memory[seen.a.argument], memory[seen.b.argument], wanted)
    plan = as_convolution(seen)
    assert isinstance(plan, Plan), plan
    made = plan.asked
    assert made.work == prod(seen.extents) and len(plan.starts) == 1
    tensors = (made.image, made.filter, made.response)
    views = [shown(memory[n], at, t) for n, at, t in zip(plan.places, plan.starts[0], tensors)]
    result = views[2 if made.form == FORWARD else 1]
    assert plan.places[2 if made.form == FORWARD else 1] == 2
    result[...] = convolve(made, views)
    found = np.where(np.isnan(wanted), np.nan, memory[2])
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    return made


def strides(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    """Of an array whose axes lie in ``order``, the last without gaps."""
    found, step = [0] * len(shape), 1
    for axis in reversed(order):
        found[axis], step = step, step * shape[axis]
    return tuple(found)


def seen(
    n: int, groups: int, c: int, k: int, places: tuple[int, ...], taps: tuple[int, ...],
    steps: tuple[int, ...], dilations: tuple[int, ...], last: bool, form: str = FORWARD,
    turned: bool = False, types: tuple[str, str, str] = ("f32",) * 3, **more: Any,
) -> Seen:  # fmt: skip
    """A convolution as our kernels see it."""
    size = [(p - 1) * s + (t - 1) * d + 1 for p, t, s, d in zip(places, taps, steps, dilations)]
    rank = len(places)
    spatial = tuple(range(3, 3 + rank))
    image = (0, *spatial, 1, 2) if last else (0, 1, 2, *spatial)
    x = strides((n, groups, c, *size), image)
    y = strides((n, groups, k, *places), image)
    w = strides((groups, k, c, *taps), (0, 1, *spatial, 2) if last else (0, 1, 2, *spatial))
    at_p = tuple(s * step for s, step in zip(x[3:], steps))
    at_t = tuple(s * d for s, d in zip(x[3:], dilations))
    none = (0,) * rank
    forward = form == FORWARD
    row, deep = ("rows", "depth") if forward else ("depth", "rows")
    other, result = (w, y) if forward else (y, w)
    kinds = ("batch", row, *(row,) * rank, "columns", deep, *(deep,) * rank)
    extents = (groups, n, *places, k, c, *taps)
    on_filter = lambda s: (s[0], 0, *none, s[1], s[2], *s[3:])  # noqa: E731
    on_response = lambda s: (s[1], s[0], *s[3:], s[2], 0, *none)  # noqa: E731
    a = Operand(0, 3, types[0], (x[1], x[0], *at_p, 0, x[2], *at_t))
    b = Operand(1, 5, types[1], on_filter(other) if forward else on_response(other))
    out = Operand(2, 2, types[2], on_response(result) if forward else on_filter(result))
    if turned:
        a, b = b, a
        kinds = tuple({"rows": "columns", "columns": "rows"}.get(x, x) for x in kinds)
    return Seen(kinds, extents, a, b, out, **more)


def test_random_convolutions() -> None:
    rng = np.random.default_rng(0)
    right = 0
    for trial in range(200):
        rank = int(rng.integers(1, 4))
        n, groups, c, k = (int(x) for x in rng.choice([1, 2, 3], 4))
        form = (FORWARD, WEIGHTS)[trial % 2]
        each = [tuple(int(x) for x in rng.integers(1, most, rank)) for most in (5, 4, 4, 4)]
        case = (n, groups, c, k, *each, bool(trial // 2 % 2))
        try:
            made = check(seen(*case, form=form, turned=bool(trial // 4 % 2)), trial)
        except AssertionError as error:
            raise AssertionError(f"trial {trial}: {case} {form}") from error
        right += made.form == form
    assert right > 120, "many are so small that it does not matter which"


LAST, FIRST = True, False
SMALL = Convolution(
    FORWARD, "f32", Tensor("f32", (1,) * 4, (1,) * 4), Tensor("f32", (1,) * 4, (1,) * 4),
    Tensor("f32", (1,) * 4, (1,) * 4), (1, 1), (1, 1), (0, 0), (0, 0),
)  # fmt: skip
PLAIN = (4, 1, 8, 6, (7, 7), (3, 3), (1, 1), (1, 1))


@pytest.mark.parametrize("form", [FORWARD, WEIGHTS])
def test_channels_last_is_told_by_strides(form: str) -> None:
    made = check(seen(*PLAIN, LAST, form=form))
    assert made == Convolution(
        form, "f32", Tensor("f32", (4, 8, 9, 9), (648, 1, 72, 8)),
        Tensor("f32", (6, 8, 3, 3), (72, 1, 24, 8)), Tensor("f32", (4, 6, 7, 7), (294, 1, 42, 6)),
        (1, 1), (1, 1), (0, 0), (0, 0),
    )  # fmt: skip


@pytest.mark.parametrize("form", [FORWARD, WEIGHTS])
def test_channels_first_steps_and_dilations(form: str) -> None:
    made = check(seen(2, 1, 3, 5, (4, 5), (3, 3), (2, 1), (1, 2), FIRST, form=form))
    assert (made.form, made.steps, made.dilations) == (form, (2, 1), (1, 2))
    assert made.image == Tensor("f32", (2, 3, 9, 9), (243, 81, 9, 1))
    assert made.response.strides == (100, 20, 5, 1) and made.filter.strides == (27, 9, 3, 1)


def test_steps_and_dilations_with_a_common_divisor_skip_elements() -> None:
    made = check(seen(2, 1, 4, 5, (6, 6), (3, 3), (2, 2), (2, 2), LAST))
    assert made.steps == made.dilations == (1, 1)
    assert made.image == Tensor("f32", (2, 4, 8, 8), (900, 1, 120, 8))


@pytest.mark.parametrize("order", [LAST, FIRST], ids=["last", "first"])
@pytest.mark.parametrize("form", [FORWARD, WEIGHTS])
def test_groups_are_channels_side_by_side(order: bool, form: str) -> None:
    made = check(seen(2, 3, 4, 5, (6, 6), (3, 3), (1, 1), (1, 1), order, form=form))
    assert made.groups == 3 and made.form == form
    assert made.image.extents == (2, 12, 8, 8) and made.filter.extents == (15, 4, 3, 3)


@pytest.mark.parametrize("form", [FORWARD, WEIGHTS])
def test_one_axis_and_three(form: str) -> None:
    made = check(seen(2, 1, 4, 5, (12,), (3,), (1,), (1,), LAST, form=form))
    assert made.image == Tensor("f32", (2, 4, 1, 14), (56, 1, 56, 4)), "one row"
    assert (made.steps, made.filter.extents) == ((1, 1), (5, 4, 1, 3))
    case = (2, 1, 4, 5, (4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 1, 1))
    made = check(seen(*case, FIRST, form=form))
    assert made.form == form and made.image.extents == (2, 4, 5, 11, 7)


@pytest.mark.parametrize("form", [FORWARD, WEIGHTS])
def test_a_single_tap_at_every_second_place(form: str) -> None:
    made = check(seen(3, 1, 4, 5, (3, 3), (1, 1), (2, 2), (1, 1), LAST, form=form))
    assert made.form == form and made.filter == Tensor("f32", (5, 4, 1, 1), (4, 1, 4, 4))
    assert made.image == Tensor("f32", (3, 4, 3, 3), (100, 1, 40, 8)), "a view of every second"


@pytest.mark.parametrize("form", [FORWARD, WEIGHTS])
def test_few_positions_are_told_by_the_order_of_the_image(form: str) -> None:
    made = check(seen(16, 1, 8, 8, (2, 2), (3, 3), (1, 1), (1, 1), LAST, form=form))
    assert made.form == form


def test_what_is_computed_in_which_type() -> None:
    for short, wanted in (("f16", "f32"), ("bf16", "f32"), ("f64", "f64"), ("f32", "f32")):
        plan = as_convolution(seen(*PLAIN, LAST, types=(short,) * 3))
        assert isinstance(plan, Plan) and plan.asked.compute == wanted
        rounded = as_convolution(
            seen(*PLAIN, LAST, types=(short,) * 3, numerics=Numerics(True, True, True))
        )
        assert isinstance(rounded, Plan) and rounded.asked.deterministic
        assert rounded.asked.compute == ("tf32" if short == "f32" else wanted)
    plan = as_convolution(seen(*PLAIN, LAST, numerics=Numerics(True, False)))
    assert isinstance(plan, Plan) and plan.asked.compute == "f32", "that is for matrices"


def test_what_is_refused_and_why() -> None:
    plain = seen(*PLAIN, LAST)
    backwards = replace(plain.b, strides=tuple(-s for s in plain.b.strides))
    spread = replace(plain.a, strides=tuple(0 if s == 648 else s for s in plain.a.strides))
    term = Term(plain.result, 1.0)
    two = replace(plain, kinds=("columns", *plain.kinds[1:]), extents=(2, *plain.extents[1:]))
    for found, why in (
        (seen(*PLAIN, LAST, types=("f16", "f16", "f32")), "f16 by f16 to f32 is not among"),
        (seen(*PLAIN, LAST, types=("i64",) * 3), "i64 by i64 to i64"),
        (seen(0, *PLAIN[1:], LAST), "nothing is added up"),
        (replace(plain, activation="relu"), "what follows it"),
        (replace(plain, terms=(term,)), "what follows it"),
        (replace(plain, alpha=0.5), "what follows it"),
        (replace(plain, b=backwards), "do not lie as those of a convolution do"),
        (replace(plain, a=spread), "do not lie as those of a convolution do"),
        (two, "do not lie as those of a convolution do"),
    ):
        said = as_convolution(found)
        assert isinstance(said, str) and why in said, (why, said)
    plan = as_convolution(replace(plain, b=backwards), copied=True)
    assert isinstance(plan, Plan) and plan.asked.form == FORWARD


def test_windows_are_those_of_the_image_not_filters() -> None:
    """One image and one axis: positions could be filters, whose elements overlap."""
    made = check(seen(1, 1, 4, 32, (9,), (3,), (1,), (1,), LAST))
    assert made.image.extents == (1, 4, 1, 11) and made.filter.extents == (32, 4, 1, 3)
    made = check(seen(1, 1, 4, 32, (9,), (3,), (1,), (1,), LAST, turned=True))
    assert made.image.extents == (1, 4, 1, 11)


def test_random_images_in_copies_with_zeros_around() -> None:
    """Of a copy of any four axes, a part of it as an image, or of a line of it."""
    rng = np.random.default_rng(1)
    taken = 0
    for trial in range(2000):
        extents = tuple(int(n) for n in rng.integers(1, 5, 4))
        low, high = (
            tuple(int(n) for n in rng.integers(0, 3, 4) * (rng.random(4) < 0.5)) for _ in range(2)
        )
        wide = tuple(map(sum, zip(low, extents, high)))
        order = tuple(int(n) for n in rng.permutation(4))
        source = Operand(0, 3, "f32", strides(extents, order))
        copy = Padded(source, Operand(1, 0, "f32", strides(wide, (0, 1, 2, 3))), low, extents, wide)
        memory = rng.normal(size=3 + prod(extents))
        array = shown(memory, 3, Tensor("f32", extents, source.strides))
        padded = np.pad(array, list(zip(low, high)))
        axes = rng.permutation(4)
        begins = [int(rng.integers(0, n)) for n in wide]
        steps = [int(rng.choice([1, 1, 1, 2])) for _ in range(4)]
        counts = [int(rng.integers(0, (n - 1 - b) // s + 1)) + 1
                  for n, b, s in zip(wide, begins, steps)]  # fmt: skip
        lie = [s * k for s, k in zip(copy.result.strides, steps)]
        start = sum(b * s for b, s in zip(begins, copy.result.strides))
        image = Tensor("f32", tuple(counts[k] for k in axes), tuple(lie[k] for k in axes))
        wanted = shown(np.ascontiguousarray(padded).ravel(), start, image)
        plain = replace(SMALL, image=image)
        plan = unpadded(Plan(plain, (1, 2, 3), ((start, 0, 0),)), copy)
        if plan is None:
            continue
        taken += 1
        made = plan.asked
        found = shown(memory, plan.starts[0][0], made.image)
        found = np.pad(found, [(0, 0), (0, 0), *zip(made.low, made.high)])
        np.testing.assert_array_equal(found, wanted, err_msg=f"trial {trial}: {copy} {image}")
    assert taken > 100, taken


def test_zeros_between_images_or_channels_need_the_copy() -> None:
    source = Operand(0, 0, "f32", (48, 16, 4, 1))
    wide = Operand(1, 0, "f32", (80, 16, 4, 1))
    copy = Padded(source, wide, (0, 1, 0, 0), (2, 3, 4, 4), (2, 5, 4, 4))
    image = Tensor("f32", (2, 5, 4, 4), (80, 16, 4, 1))
    assert unpadded(Plan(replace(SMALL, image=image), (1, 2, 3), ((0, 0, 0),)), copy) is None
    inner = Tensor("f32", (2, 3, 4, 4), (80, 16, 4, 1))
    plan = unpadded(Plan(replace(SMALL, image=inner), (1, 2, 3), ((16, 0, 0),)), copy)
    assert plan is not None and plan.asked.image.strides == source.strides
    assert plan.starts[0][0] == 0


def test_axes_that_run_over_several_of_a_copys() -> None:
    """Images and rows as one axis beside padded columns; padded rows and columns as one."""
    source = Operand(0, 0, "f32", (7 * 7 * 8, 0, 7 * 8, 8, 1))
    wide = Operand(1, 0, "f32", (7 * 9 * 8, 7 * 9 * 8, 9 * 8, 8, 1))
    copy = Padded(source, wide, (0, 0, 0, 1, 0), (4, 1, 7, 7, 8), (4, 1, 7, 9, 8))
    image = Tensor("f32", (28, 8, 1, 9), (72, 1, 72, 8))
    plan = unpadded(Plan(replace(SMALL, image=image), (1, 2, 3), ((0, 0, 0),)), copy)
    assert plan is not None and plan.asked.image == Tensor("f32", (28, 8, 1, 7), (56, 1, 56, 8))
    assert plan.asked.low == plan.asked.high == (0, 1) and plan.starts[0][0] == 0
    wide = Operand(1, 0, "f32", (9 * 7 * 8, 9 * 7 * 8, 7 * 8, 8, 1))
    copy = Padded(source, wide, (0, 0, 1, 0, 0), (4, 1, 7, 7, 8), (4, 1, 9, 7, 8))
    image = Tensor("f32", (4, 8, 1, 63), (504, 1, 504, 8))
    plan = unpadded(Plan(replace(SMALL, image=image), (1, 2, 3), ((0, 0, 0),)), copy)
    assert plan is not None and plan.asked.image == Tensor("f32", (4, 8, 1, 49), (392, 1, 392, 8))
    assert plan.asked.low == plan.asked.high == (0, 7)


@pytest.mark.parametrize(("size", "high"), [(8, 1), (9, 1), (7, 1)])
def test_as_many_zeros_after_an_image_as_before_it(size: int, high: int) -> None:
    """Under steps of two, the last of them may be read by no position."""
    places = (size + 2 - 3) // 2 + 1
    used = (places - 1) * 2 + 3
    source, wide = (Operand(n, 0, "f32", (k * k * 8, k * 8, 8, 1)) for n, k in enumerate(
        (size, size + 2)))  # fmt: skip
    copy = Padded(source, wide, (0, 1, 1, 0), (4, size, size, 8), (4, size + 2, size + 2, 8))
    one = size + 2
    asked = Convolution(
        FORWARD, "f32", Tensor("f32", (4, 8, used, used), (one * one * 8, 1, one * 8, 8)),
        Tensor("f32", (6, 8, 3, 3), (72, 1, 24, 8)),
        Tensor("f32", (4, 6, places, places), (places**2 * 6, 1, places * 6, 6)),
        (2, 2), (1, 1), (0, 0), (0, 0),
    )  # fmt: skip
    plan = unpadded(Plan(asked, (1, 2, 3), ((0, 0, 0),)), copy)
    assert plan is not None and plan.asked.low == plan.asked.high == (high, high)
    assert plan.asked.image.extents == (4, 8, min(size, used - 1), min(size, used - 1))
    unlike = replace(asked, steps=(1, 1))
    image = Tensor("f32", (4, 8, used - 1, used - 1), asked.image.strides)
    late = Plan(replace(unlike, image=image), (1, 2, 3), ((0, 0, 0),))
    assert unpadded(late, copy) is None, "one zero before and none after"
