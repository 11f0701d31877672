"""Random programs as users write them, compiled and eager side by side.

Views of views, writes through them, augmented assignment, arguments that are
strided or share memory, captured tensors and random numbers: results, arguments,
captured tensors and the generator must agree after every call.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F

SEEDS = range(8)
STEPS = 30
LARGEST = 20_000

Pick = random.Random
UNARY: tuple[Callable[[gf.Tensor], gf.Tensor], ...] = (
    gf.tanh, gf.sin, lambda x: x.relu(), lambda x: -x, lambda x: x.clamp(-0.5, 0.7),
)  # fmt: skip


def view(x: gf.Tensor, rnd: Pick) -> gf.Tensor:
    """A view whose memory is ``x``'s however ``x`` lies in memory."""
    axis = rnd.randrange(x.ndim)
    before = (slice(None),) * axis
    return rnd.choice(
        [
            lambda: x.transpose(axis, rnd.randrange(x.ndim)),
            lambda: x[(*before, slice(rnd.randrange(x.shape[axis]), None))],
            lambda: x[(*before, rnd.randrange(x.shape[axis]))],
            lambda: x[(*before, slice(None, None, 2))],
            lambda: x.unsqueeze(axis),
            lambda: x[..., -1:],
        ]
    )()


def write(x: gf.Tensor, other: gf.Tensor, rnd: Pick) -> gf.Tensor:
    """``x`` after something was written to it in place."""
    kind = rnd.choice(["add_", "mul_", "sub_", "copy_", "zero_", "item", "+="])
    if kind == "+=":
        x += 0.25
    elif kind == "zero_":
        x.zero_()
    elif kind != "item":
        getattr(x, kind)(gf.tanh(other))
    elif x.ndim:
        at = rnd.choice([rnd.randrange(x.shape[0]), slice(0, None, 2), slice(0, 1)])
        x[at] = gf.tanh(x[at]) * 0.5 if rnd.random() < 0.5 else rnd.uniform(-1, 1)
    return x


def compute(x: gf.Tensor, other: gf.Tensor, rnd: Pick) -> gf.Tensor:
    """Something new from ``x``."""
    axis = rnd.randrange(x.ndim) if x.ndim else 0
    choices: list[Callable[[], gf.Tensor]] = [
        lambda: rnd.choice(UNARY)(x),
        lambda: x + other,
        lambda: gf.tanh(x * other),
        lambda: gf.where(x > 0.05, x, other * 0.5),
        lambda: x + x.mean(),
        lambda: x + gf.rand(*x.shape) * 0.1,
        lambda: x.clone(),
    ]
    if x.ndim:
        choices += [
            lambda: x.mean(axis),
            lambda: x.amax(axis, keepdim=True),
            lambda: F.softmax(x, dim=axis),
            lambda: gf.cat([x, other], axis),
            lambda: x[gf.tensor([0, x.shape[0] - 1, 0])],
        ]
    if x.ndim == 2:
        choices.append(lambda: gf.tanh(x @ other.t()))
    return rnd.choice(choices)()


def program(seed: int, captured: Sequence[gf.Tensor]) -> Callable[..., tuple[gf.Tensor, ...]]:
    """The random program of ``seed``, over arguments and ``captured``."""

    def function(*arguments: gf.Tensor) -> tuple[gf.Tensor, ...]:
        rnd = Pick(seed)
        pool = [*arguments, *captured]
        for _ in range(STEPS):
            x = rnd.choice(pool if rnd.random() < 0.5 else pool[-6:])
            other = rnd.choice([t for t in pool if t.shape == x.shape])
            kind = rnd.choice("compute compute compute view view write write".split())
            if kind == "view" and x.ndim:
                pool.append(view(x, rnd))
            elif kind == "write":
                pool.append(write(x, other, rnd))
            else:
                made = compute(x, other, rnd)
                pool += [made] if made.numel() <= LARGEST else []
        return tuple(pool[-5:])

    return function


def tensors(seed: int) -> tuple[list[gf.Tensor], list[gf.Tensor]]:
    """Arguments, one strided, sometimes two in one memory; and captured tensors."""
    numbers = np.random.default_rng(seed)
    a, b, c = (int(n) for n in numbers.choice([1, 2, 3, 5, 16, 33, 40], 3))

    def fresh(*shape: int) -> gf.Tensor:
        return gf.tensor(np.asarray(numbers.uniform(-1, 1, shape).astype(np.float32)))

    arguments = [fresh(a, b), fresh(2 * b + 1, 2 * a)[1::2, ::2].t(), fresh(b), fresh()]
    captured = [fresh(a, b), fresh(c, a, b)]
    if seed % 3 == 0:
        arguments.append(arguments[0][:, :])
    if seed % 4 == 0:
        captured.append(captured[1][0])
    return arguments, captured


def everything(seed: int, compile: bool) -> list[np.ndarray]:
    """Results of two calls, and all that they may have changed."""
    gf.manual_seed(seed)
    arguments, captured = tensors(seed)
    function = program(seed, captured)
    run = gf.compile(function) if compile else function
    found = [result.numpy().copy() for _ in range(2) for result in run(*arguments)]
    return [*found, *(t.numpy().copy() for t in (*arguments, *captured)), gf.rand(3).numpy()]


@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_and_eager_programs_agree(seed: int) -> None:
    print("seed", seed)
    eager, static = everything(seed, False), everything(seed, True)
    for number, (want, got) in enumerate(zip(eager, static, strict=True)):
        assert (want.dtype, want.shape) == (got.dtype, got.shape), number
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4, err_msg=f"value {number}")
    np.testing.assert_array_equal(eager[-1], static[-1])  # the generator, to the last bit


def test_the_programs_write_to_what_they_are_given() -> None:
    changed = 0
    for seed in SEEDS:
        arguments, captured = tensors(seed)
        before = [t.numpy().copy() for t in (*arguments, *captured)]
        program(seed, captured)(*arguments)
        after = [t.numpy() for t in (*arguments, *captured)]
        changed += sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert changed >= len(SEEDS)
