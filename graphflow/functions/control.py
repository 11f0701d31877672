"""Control flow: ``cond``, ``while_loop``, ``scan`` and ``map`` over nests of tensors.

Eagerly they are Python's own ``if``, ``while`` and ``for``.  In a compiled function each
is one operation whose body is traced once, however often it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import graphflow.regions as regions  # `from graphflow import` would ask for all functions first
from graphflow import pytree
from graphflow.errors import DTypeError, GraphFlowError, ShapeError
from graphflow.functions.creation import tensor
from graphflow.functions.shaping import reshape, stack
from graphflow.ir.types import TensorType
from graphflow.ir.types import bool_ as bool_type
from graphflow.mode import mode
from graphflow.tensor import Tensor

__all__ = ["cond", "map", "scan", "while_loop"]


class Nest:
    """A nest taken apart: its tensors (numbers become tensors), ``None`` kept as it is."""

    def __init__(self, tree: Any, what: str, like: Nest | None = None) -> None:
        leaves, self.structure = pytree.flatten(tree)
        self.holes = tuple(leaf is None for leaf in leaves)
        given = [leaf for leaf in leaves if leaf is not None]
        types = [None] * len(given) if like is None else [t.dtype for t in like.tensors]
        if like is not None and not self.fits(like):
            raise GraphFlowError(
                f"{what} has another structure than before: {_spelled(self.structure)} instead "
                f"of {_spelled(like.structure)}"
            )
        self.tensors: list[Tensor] = [
            _tensor(leaf, dtype, what) for leaf, dtype in zip(given, types)
        ]

    def fits(self, other: Nest) -> bool:
        """Whether both nests are built alike."""
        return (self.structure, self.holes) == (other.structure, other.holes)

    def build(self, tensors: Sequence[Tensor]) -> Any:
        """The nest with other tensors."""
        rest = iter(tensors)
        return pytree.unflatten(self.structure, [None if h else next(rest) for h in self.holes])

    @property
    def types(self) -> list[TensorType]:
        """The types of the tensors."""
        return [t._type for t in self.tensors]

    def expect(self, other: Nest, what: str) -> None:
        """Raise unless ``other`` has the same types."""
        for i, (found, want) in enumerate(zip(other.types, self.types)):
            if found != want:
                error = DTypeError if found.dtype is not want.dtype else ShapeError
                raise error(f"{what}: tensor {i} is {found}, but must be {want} as before")


def _spelled(structure: pytree.Structure) -> str:
    if structure.kind is None:
        return "*"
    return f"{structure.kind.__name__}({', '.join(_spelled(c) for c in structure.children)})"


def _tensor(leaf: Any, dtype: Any, what: str) -> Tensor:
    if isinstance(leaf, Tensor):
        return leaf
    if isinstance(leaf, (bool, int, float)):
        made: Tensor = tensor(leaf, dtype=dtype)
        return made
    raise TypeError(f"{what} must hold tensors and numbers, not {type(leaf).__name__}")


def _condition(value: Any, what: str) -> Tensor:
    if isinstance(value, bool):
        return tensor(value)
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} must be a bool or a tensor, not {type(value).__name__}")
    if value.dtype is not bool_type:
        raise DTypeError(f"{what} must have dtype bool, not {value.dtype.name}")
    if value.numel() != 1:
        raise ShapeError(f"{what} must be a single bool, not of shape {list(value.shape)}")
    return reshape(value, ())


def cond(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any
) -> Any:
    """``true_fn(*operands)`` where ``pred`` holds, else ``false_fn(*operands)``.

    ``pred`` is a bool or a bool tensor of one element.  In a compiled function both are
    traced and must return nests of the same structure, shapes and dtypes.
    """
    if isinstance(pred, bool):
        return (true_fn if pred else false_fn)(*operands)
    flag = _condition(pred, "cond(): pred")
    tracer = mode.tracer
    if tracer is None:
        return (true_fn if flag.item() else false_fn)(*operands)
    given = Nest(operands, "cond(): operands")
    before, results = regions.numbers_drawn(tracer), []
    most = dict(before)
    bodies = []
    for name, function in (("then", true_fn), ("otherwise", false_fn)):
        regions.set_numbers_drawn(tracer, before)

        def body(tensors: list[Tensor], function: Callable[..., Any] = function) -> list[Tensor]:
            results.append(Nest(function(*given.build(tensors)), "cond(): a result"))
            return results[-1].tensors

        bodies.append((name, regions.trace_body("cond", body, given.types, "once")))
        for cell, number in regions.numbers_drawn(tracer).items():
            most[cell] = max(number, most.get(cell, 0))
    regions.set_numbers_drawn(tracer, most)
    first, second = results
    if not second.fits(first):
        raise GraphFlowError(
            "cond(): the branches return nests of different structure: "
            f"{_spelled(first.structure)} and {_spelled(second.structure)}"
        )
    first.expect(second, "cond(): the result of false_fn differs from that of true_fn")
    (then, otherwise), captured = regions.capture(bodies)
    operands_ = [flag, *given.tensors, *captured]
    outs = regions.apply_control("cond", operands_, {"then": then, "otherwise": otherwise})
    return first.build(outs)


def while_loop(
    cond_fn: Callable[[Any], Any],
    body_fn: Callable[[Any], Any],
    init: Any,
    max_trips: int | None = None,
) -> Any:
    """``carry = body_fn(carry)`` as long as ``cond_fn(carry)`` holds, from ``carry = init``.

    The carry keeps its structure, shapes and dtypes.  With ``max_trips`` the body runs at
    most that often, and a compiled function can differentiate the loop.
    """
    carry = Nest(init, "while_loop(): init")
    if max_trips is not None:
        return _bounded(cond_fn, body_fn, carry, max_trips)
    what = "while_loop(): the result of body_fn"
    if mode.tracer is None:
        value = carry
        while _holds(cond_fn, value):
            value = Nest(body_fn(value.build(value.tensors)), what, carry)
            carry.expect(value, what)
        return value.build(value.tensors)

    def condition(tensors: list[Tensor]) -> list[Tensor]:
        return [_condition(cond_fn(carry.build(tensors)), "while_loop(): the condition")]

    def body(tensors: list[Tensor]) -> list[Tensor]:
        result = Nest(body_fn(carry.build(tensors)), what, carry)
        carry.expect(result, what)
        return result.tensors

    traced = [
        (name, regions.trace_body("while_loop", function, carry.types, "unknown"))
        for name, function in (("condition", condition), ("body", body))
    ]
    (first, second), captured = regions.capture(traced)
    attrs = {"condition": first, "body": second, "carried": len(carry.tensors)}
    return carry.build(regions.apply_control("while_loop", [*carry.tensors, *captured], attrs))


def _holds(cond_fn: Callable[[Any], Any], carry: Nest) -> bool:
    flag = _condition(cond_fn(carry.build(carry.tensors)), "while_loop(): the condition")
    return bool(flag.item())


def _bounded(
    cond_fn: Callable[[Any], Any], body_fn: Callable[[Any], Any], carry: Nest, trips: int
) -> Any:
    """A loop of at most ``trips`` steps: once the condition fails, the carry stays."""

    def step(value: Any, _: Any) -> tuple[Any, None]:
        flag = _condition(cond_fn(value), "while_loop(): the condition")
        return cond(flag, body_fn, lambda same: same, value), None

    if mode.tracer is not None:
        return scan(step, carry.build(carry.tensors), None, length=trips)[0]
    value, what = carry, "while_loop(): the result of body_fn"
    for _ in range(trips):
        if not _holds(cond_fn, value):
            break
        value = Nest(body_fn(value.build(value.tensors)), what, carry)
        carry.expect(value, what)
    return value.build(value.tensors)


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """``carry, y = f(carry, x)`` for every ``x`` along axis 0 of the tensors ``xs``.

    Returns the last carry and the stacked ``y`` (a nest; None where ``f`` returns None).
    ``length`` is needed where ``xs`` is None; ``reverse`` goes from the last item to the
    first, and stacks in the order of ``xs``.  The carry keeps its structure, shapes and
    dtypes.  Of no items the result is ``init`` and, compiled, empty stacks.
    """
    carry, items = Nest(init, "scan(): init"), Nest(xs, "scan(): xs")
    steps = _length(items, length)
    if mode.tracer is None or mode.tracer.unrolls:
        if not steps:
            return _scan_nothing(f, carry, items)
        return _scan_eagerly(f, carry, items, steps, reverse)
    ys: list[Nest] = []
    count = len(carry.tensors)

    def body(tensors: list[Tensor]) -> list[Tensor]:
        after, y = _step(f, carry, carry.build(tensors[:count]), items.build(tensors[count:]))
        ys.append(y)
        return [*after.tensors, *y.tensors]

    rows = [TensorType(t.dtype, t.shape[1:]) for t in items.types]
    traced = regions.trace_body("scan", body, [*carry.types, *rows], "steps")
    drawn = traced.region.drawn
    states = regions.step_states(traced.region, int(steps), reverse) if drawn else []
    (graph,), captured = regions.capture([("body", traced)])
    attrs = {
        "body": graph, "carried": count, "scanned": len(rows) + len(states),
        "reverse": bool(reverse), "length": items.types[0].shape[0] if rows else steps,
    }  # fmt: skip
    given = [*carry.tensors, *items.tensors, *states, *captured]
    outs = regions.apply_control("scan", given, attrs)
    return carry.build(outs[:count]), ys[0].build(outs[count:])


def _length(items: Nest, length: int | None) -> int:
    for t in items.tensors:
        if t.dim() == 0:
            raise ShapeError("scan(): xs holds a tensor without axes; there is nothing to scan")
        if length is None:
            length = t.shape[0]
        elif t.shape[0] != length:
            raise ShapeError(f"scan(): a tensor of xs has {t.shape[0]} items, not {length}")
    if length is None:
        raise ShapeError("scan(): needs tensors in xs, or a length")
    if length < 0:
        raise ShapeError(f"scan(): the length must not be negative, it is {length}")
    return length


def _step(f: Callable[[Any, Any], Any], like: Nest, carry: Any, item: Any) -> tuple[Nest, Nest]:
    """One call of ``f``: the new carry, checked, and what is stacked."""
    result = f(carry, item)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError("scan(): f must return a pair, the new carry and what to stack")
    after = Nest(result[0], "scan(): the carry that f returns", like)
    like.expect(after, "scan(): the carry that f returns")
    return after, Nest(result[1], "scan(): what f returns to stack")


def _scan_eagerly(
    f: Callable[[Any, Any], Any], carry: Nest, items: Nest, steps: int, reverse: bool
) -> tuple[Any, Any]:
    value, rows = carry, []
    for i in reversed(range(steps)) if reverse else range(steps):
        item = items.build([t[i] for t in items.tensors])
        value, y = _step(f, carry, value.build(value.tensors), item)
        rows.append(y)
    if reverse:
        rows.reverse()
    columns = [stack(list(column)) for column in zip(*(y.tensors for y in rows))]
    return value.build(value.tensors), rows[0].build(columns)


def _scan_nothing(f: Callable[[Any, Any], Any], carry: Nest, items: Nest) -> tuple[Any, Any]:
    """No items: ``f`` is called on zeros, only to learn what it would stack."""
    from graphflow.autograd.modes import no_grad
    from graphflow.dispatch import full

    with no_grad():
        zeros = [full(tuple(t.shape[1:]), 0, t.dtype) for t in items.tensors]
        copies = [t.clone() for t in carry.tensors]
        _, y = _step(f, carry, carry.build(copies), items.build(zeros))
    empty = [full((0, *t.shape), 0, t.dtype) for t in y.tensors]
    return carry.build(carry.tensors), y.build(empty)


def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """``f(x)`` for every ``x`` along axis 0 of the tensors ``xs``, stacked."""
    return scan(lambda _, x: (None, f(x)), None, xs)[1]
