"""Random graphs for kernels: every dtype, extents that make loops, most primitives.

The graphs of :mod:`graphs` are small and float32; these have rows longer than a
vector, several dtypes side by side, broadcasting, empty axes, reductions of every
kind, gathers and scatters with indices that are in range, state that is updated
from itself and from other state, and results that lie in inputs or state.

Compiled results are compared with the interpreter in double precision, so steps
of a staircase (comparisons, ``floor``, casts to integers) are only taken on
numbers that every precision holds exactly: small whole ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from graphs import Case

from graphflow.ir import ops as _ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES, constant, emit, input_node, state_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import (
    DType,
    TensorType,
    bool_,
    broadcast_shapes,
    float32,
    float64,
    int32,
    int64,
    uint8,
)

EXTENTS = (2, 3, 4, 7, 16, 17, 33, 64, 65, 130)
ELEMENTS = 40_000
"""The largest tensor."""
WHOLE = 2.0**20
"""Whole numbers up to here count as exact."""

SMOOTH = {
    "exp": (-3.0, 3.0), "log": (0.1, 9.0), "log1p": (-0.5, 9.0), "expm1": (-3.0, 3.0),
    "sqrt": (0.1, 9.0), "rsqrt": (0.1, 9.0), "sin": (-9.0, 9.0), "cos": (-9.0, 9.0),
    "tanh": (-4.0, 4.0), "sigmoid": (-6.0, 6.0), "erf": (-3.0, 3.0), "reciprocal": (0.3, 4.0),
}  # fmt: skip
STAIRS = "floor ceil round sign".split()
COMPARE = "eq ne lt le gt ge logical_and logical_or logical_xor".split()
BITS = "bitwise_and bitwise_or bitwise_xor".split()


@dataclass(frozen=True)
class Value:
    """A node and the largest magnitude it can have if it is exact (None: rounded)."""

    node: Node
    bound: float | None = None


def wide_graph(seed: int, size: int = 50, empty: bool = False) -> Case:
    """A graph of about ``size`` operations; with ``empty``, some axes have no elements."""
    return _Maker(seed, empty).make(size)


class _Maker:
    def __init__(self, seed: int, empty: bool) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.float = self.random.choice([float32, float32, float64])
        self.extents = [1, *self.random.sample(EXTENTS, 3)] + [0] * empty
        self.pool: list[Value] = []
        self.rng = state_node("rng", TensorType(int64, (2,)))
        self.args: list[np.ndarray] = []
        self.state: dict[str, np.ndarray] = {}
        self.steps = [
            (4, self.smooth), (3, self.plain), (6, self.binary), (2, self.integers),
            (2, self.compare), (2, self.choose), (2, self.cast), (1, self.stairs),
            (5, self.view), (1, self.join), (5, self.reduce), (1, self.position),
            (2, self.matmul), (2, self.softmax), (1, self.draw), (1, self.take),
            (1, self.gather), (1, self.scatter), (1, self.replace), (1, self.iota),
        ]  # fmt: skip

    # ---- the whole ---------------------------------------------------------------

    def make(self, size: int) -> Case:
        rnd = self.random
        dtypes = [self.float, self.float, int64, bool_, rnd.choice([int32, uint8, float64])]
        inputs = [self.leaf(f"x{i}", dtype, input_node) for i, dtype in enumerate(dtypes)]
        inputs.append(self.leaf("whole", self.float, input_node, whole=True))
        state = [self.leaf(f"w{i}", self.float, state_node) for i in range(2)]
        state.append(self.leaf("count", int64, state_node))
        state += [input_like(self, cell) for cell in state[:2]]
        self.state["rng"] = np.array([self.seed, 3])
        while len(self.pool) < size:
            (_, step) = rnd.choices(self.steps, [w for w, _ in self.steps])[0]
            made = step()
            if made is None or any(v.node is made.node for v in self.pool):
                continue
            if made.node.tensor_type.numel <= ELEMENTS and made.node.tensor_type.rank <= 4:
                self.pool.append(made)
        updates = [(cell, self.update(cell)) for cell in state if rnd.random() < 0.8]
        if rnd.random() < 0.5:
            step = constant(np.array([0, 1]))
            updates.append((self.rng, emit("add", self.rng, step)))
        outputs = [v.node for v in rnd.sample(self.pool[-30:], k=8)]
        outputs += [self.shown(rnd.choice([*inputs, *state])) for _ in range(rnd.randint(0, 2))]
        graph = Graph(tuple(inputs), tuple(outputs), (*state, self.rng), tuple(updates), "wide")
        return Case(self.seed, graph, tuple(self.args), self.state)

    def update(self, cell: Node) -> Node:
        """A new value for ``cell``: made from it, found in the pool, or other state."""
        fitting = [v.node for v in self.pool if v.node.type == cell.type and v.node is not cell]
        if fitting and self.random.random() < 0.7:
            found = self.random.choice(fitting[-6:])
            return found if self.random.random() < 0.5 else emit("sub", cell, found)
        return emit("add", cell, constant(1, cell.dtype))

    def shown(self, node: Node) -> Node:
        """A leaf, or a view of it that is a layout."""
        if not node.shape or self.random.random() < 0.5:
            return node
        axes = tuple(reversed(range(len(node.shape))))
        return NODES.flip(NODES.permute(node, axes=axes), axes=(0,))

    def leaf(self, name: str, dtype: DType, kind: object, whole: bool = False) -> Node:
        rank = self.random.choice([0, 1, 2, 2, 2, 3])
        type = TensorType(dtype, tuple(self.random.choice(self.extents) for _ in range(rank)))
        while type.numel > ELEMENTS // 4:
            type = TensorType(dtype, type.shape[1:])
        node = kind(name, type)  # type: ignore[operator]
        array = self.array(type, whole)
        if kind is input_node:
            self.args.append(array)
        else:
            self.state[name] = array
        exact = 8.0 if whole or dtype.kind != "float" else None
        self.pool.append(Value(node, exact))
        return node

    def array(self, type: TensorType, whole: bool = False) -> np.ndarray:
        shape, dtype = type.static_shape, type.dtype
        if dtype is bool_:
            return np.asarray(self.numbers.integers(0, 2, shape).astype(bool))
        if dtype.kind == "float" and not whole:
            return np.asarray(self.numbers.uniform(-2, 2, shape).astype(dtype.numpy))
        low = 0 if dtype is uint8 else -8
        return np.asarray(self.numbers.integers(low, 9, shape).astype(dtype.numpy))

    def pick(self, *, dtype: object = None, rank: int = 0, exact: bool = False) -> Value | None:
        fitting = [
            v for v in self.pool
            if (v.node.dtype is dtype if dtype else v.node.dtype.is_floating_point)
            and len(v.node.shape) >= rank and (v.bound is not None or not exact)
        ]  # fmt: skip
        return self.random.choice(fitting[-15:]) if fitting else None

    def partner(self, value: Value, exact: bool = False) -> Value:
        """A value that broadcasts with ``value``, which is one itself."""
        found = [
            v for v in self.pool
            if v.node.dtype is value.node.dtype and broadcasts(v.node, value.node)
            and (v.bound is not None or not exact)
        ]  # fmt: skip
        return self.random.choice(found or [value])

    def within(self, x: Node, low: float, high: float) -> Node:
        """``x`` squeezed into (low, high)."""
        return NODES.tanh(x) * ((high - low) / 2) + (high + low) / 2

    # ---- elementwise ---------------------------------------------------------------

    def smooth(self) -> Value | None:
        x = self.pick()
        op = self.random.choice(sorted(SMOOTH))
        return x and Value(emit(op, self.within(x.node, *SMOOTH[op])))

    def plain(self) -> Value | None:
        x = self.pick(dtype=self.random.choice([None, None, int64, int32]))
        op = self.random.choice("neg abs relu copy stop_gradient".split())
        if x is None or (op == "copy" and x.node.dtype is int32):
            return None
        return Value(emit(op, x.node), x.bound)

    def stairs(self) -> Value | None:
        x = self.pick(exact=True)
        if x is None:
            return None
        half = NODES.mul(x.node, 0.5)
        return Value(emit(self.random.choice(STAIRS), half), x.bound)

    def binary(self) -> Value | None:
        x = self.pick()
        if x is None:
            return None
        y = self.partner(x)
        op = self.random.choice("add sub mul maximum minimum div pow atan2".split())
        if op == "div":
            return Value(NODES.div(x.node, self.within(y.node, 0.5, 3.0)))
        if op == "pow":
            return Value(NODES.pow(self.within(x.node, 0.3, 2.0), self.within(y.node, -2, 2)))
        if op == "atan2":
            return Value(NODES.atan2(x.node, self.within(y.node, 0.3, 2.0)))
        bound = None
        if x.bound is not None and y.bound is not None:
            bound = x.bound * max(y.bound, 1) if op == "mul" else x.bound + y.bound
            bound = bound if bound < WHOLE else None
        made = emit(op, x.node, y.node)
        return Value(made, bound) if bound is not None else Value(NODES.tanh(made))

    def integers(self) -> Value | None:
        dtype = self.random.choice([int64, int64, int32, uint8])
        x = self.pick(dtype=dtype)
        if x is None:
            return None
        y = self.partner(x).node
        op = self.random.choice(
            ["add", "mul", "maximum", "floor_divide", "remainder", "shift_left", "shift_right"]
            + ["sub"] * (dtype is not uint8) + BITS
        )  # fmt: skip
        if op in ("floor_divide", "remainder"):
            if dtype is uint8:
                return None
            y = NODES.maximum(y, 1)
        if op.startswith("shift"):
            y = NODES.bitwise_and(y, constant(7, dtype))
        return Value(emit(op, x.node, y), WHOLE)

    def compare(self) -> Value | None:
        x = self.pick(dtype=self.random.choice([None, int64, int32, uint8, bool_]), exact=True)
        if x is None:
            return None
        return Value(emit(self.random.choice(COMPARE), x.node, self.partner(x, True).node), 1)

    def choose(self) -> Value | None:
        c = self.pick(dtype=bool_)
        x = self.pick()
        if c is None or x is None or not broadcasts(c.node, x.node):
            return None
        y = self.partner(x)
        if not broadcasts(c.node, y.node):
            return None
        exact = None if x.bound is None or y.bound is None else max(x.bound, y.bound)
        return Value(NODES.where(c.node, x.node, y.node), exact)

    def cast(self) -> Value | None:
        source = self.random.choice([None, None, int64, int32, uint8, bool_])
        x = self.pick(dtype=source, exact=True)
        if x is None or x.bound is None:
            return None
        if x.node.dtype in (int64, int32) and x.bound >= WHOLE:
            small = NODES.bitwise_and(x.node, constant(255, x.node.dtype))
            x = Value(small, 255)
        target = self.random.choice([float32, float64, int64, int32, bool_, self.float])
        if x.node.dtype.kind == "float" and target.kind == "float":
            target = self.float
        return Value(NODES.cast(x.node, dtype=target), 1 if target is bool_ else x.bound)

    # ---- generators, views, indexing -----------------------------------------------

    def shape(self, rank: int) -> tuple[int, ...]:
        return tuple(self.random.choice(self.extents) for _ in range(rank))

    def iota(self) -> Value | None:
        shape = self.shape(2)
        dtype = self.random.choice([self.float, int64])
        made = emit("iota", shape=shape, axis=self.random.randrange(2), dtype=dtype)
        return Value(made, 200)

    def draw(self) -> Value | None:
        call, word = self.random.randrange(3), self.random.randrange(4)
        bits = NODES.random_bits(self.rng, shape=self.shape(2), call=call, word=word)
        whole = NODES.shift_right(bits, constant(8, bits.dtype))
        return Value(NODES.cast(whole, dtype=self.float) * 2.0**-24)

    def any(self, rank: int = 1) -> Value | None:
        dtype = self.random.choice([None, None, None, int64, bool_])
        return self.pick(dtype=dtype, rank=rank)

    def view(self) -> Value | None:
        x = self.any()
        if x is None:
            return None
        kind = self.random.choice(["reshape", "permute", "expand", "slice", "flip", "pad"])
        return Value(getattr(self, "_" + kind)(x.node), x.bound)

    def _reshape(self, x: Node) -> Node:
        kind = self.random.random()
        at = self.random.randint(0, len(x.shape))
        if kind < 0.3:
            return NODES.reshape(x, shape=(*x.shape[:at], 1, *x.shape[at:]))
        if kind < 0.6 or len(x.shape) < 2 or 0 in x.shape:
            return NODES.reshape(x, shape=(x.tensor_type.numel,))
        first, second, *rest = x.shape
        start = (first * second,) if kind < 0.8 else (second, first)
        return NODES.reshape(x, shape=(*start, *rest))

    def _permute(self, x: Node) -> Node:
        axes = list(range(len(x.shape)))
        self.random.shuffle(axes)
        return NODES.permute(x, axes=tuple(axes))

    def _expand(self, x: Node) -> Node:
        shape = [self.random.choice(self.extents) if d == 1 else d for d in x.shape]
        if len(shape) < 3 and self.random.random() < 0.5:
            shape.insert(0, self.random.choice(self.extents))
        return NODES.expand(x, shape=tuple(shape))

    def _slice(self, x: Node) -> Node:
        starts, limits, steps = [], [], []
        for extent in x.shape:
            start = self.random.randint(0, max(0, extent - 1) // 2)
            starts.append(start)
            limits.append(self.random.randint(min(extent, start + 1), extent))
            steps.append(self.random.choice([1, 1, 2, 3]))
        return NODES.slice(x, starts=tuple(starts), limits=tuple(limits), steps=tuple(steps))

    def _flip(self, x: Node) -> Node:
        return NODES.flip(x, axes=(self.random.randrange(len(x.shape)),))

    def _pad(self, x: Node) -> Node:
        low = tuple(self.random.randint(0, 2) for _ in x.shape)
        high = tuple(self.random.randint(0, 2) for _ in x.shape)
        value = self.random.choice([0, 1]) if x.dtype.kind != "float" else 0.0
        value = bool(value) if x.dtype is bool_ else value
        return NODES.pad(x, low=low, high=high, value=value)

    def join(self) -> Value | None:
        x = self.any()
        if x is None:
            return None
        axis = self.random.randrange(len(x.node.shape))
        same = [
            v for v in self.pool
            if v.node.dtype is x.node.dtype and len(v.node.shape) == len(x.node.shape)
            and all(a == b for i, (a, b) in enumerate(zip(v.node.shape, x.node.shape)) if i != axis)
        ]  # fmt: skip
        y = self.random.choice(same)
        bound = None if x.bound is None or y.bound is None else max(x.bound, y.bound)
        return Value(NODES.concatenate(x.node, y.node, axis=axis), bound)

    def index(self, shape: tuple[int, ...], extent: int) -> Node | None:
        """Whole numbers in range, from an input or computed."""
        if not extent:
            return None
        if self.random.random() < 0.5:
            return constant(self.numbers.integers(0, extent, shape))
        x = self.pick(dtype=int64)
        if x is None:
            return None
        flat = NODES.reduce_sum(x.node, axes=tuple(range(len(x.node.shape))))
        place = emit("iota", shape=shape, axis=0, dtype=int64) if shape else constant(0, int64)
        small = NODES.bitwise_and(NODES.add(place * 5, flat), constant(1023, int64))
        return NODES.remainder(small, constant(extent, int64))

    def take(self) -> Value | None:
        x = self.any()
        if x is None:
            return None
        axis = self.random.randrange(len(x.node.shape))
        index = self.index(self.shape(self.random.choice([0, 1, 1])), x.node.shape[axis])
        return index and Value(NODES.take(x.node, index, axis=axis), x.bound)

    def gather(self) -> Value | None:
        x = self.any()
        if x is None:
            return None
        axis = self.random.randrange(len(x.node.shape))
        shape = list(x.node.shape)
        shape[axis] = self.random.choice([1, 2, 5])
        index = self.index(tuple(shape), x.node.shape[axis])
        return index and Value(NODES.gather(x.node, index, axis=axis), x.bound)

    def scatter(self) -> Value | None:
        x = self.pick(rank=1)
        if x is None:
            return None
        axis = self.random.randrange(len(x.node.shape))
        shape = list(x.node.shape)
        shape[axis] = self.random.choice([1, 3, 40])
        if np.prod(shape) > ELEMENTS:
            return None
        index = self.index(tuple(shape), x.node.shape[axis])
        if index is None:
            return None
        whole = emit("iota", shape=tuple(shape), axis=axis, dtype=int64)
        source = NODES.cast(whole, dtype=x.node.dtype) * 0.01
        return Value(NODES.tanh(NODES.scatter_add(x.node, index, source, axis=axis)))

    def replace(self) -> Value | None:
        x = self.any()
        if x is None:
            return None
        part = self._slice(x.node)
        if 0 in part.shape:
            return None
        steps, starts = part.attrs["steps"], part.attrs["starts"]
        y = self.partner(Value(part))
        if broadcast_shapes(y.node.shape, part.shape) != part.shape:
            return None
        new = NODES.expand(y.node, shape=part.shape) if y.node.shape != part.shape else y.node
        bound = None if x.bound is None or y.bound is None else max(x.bound, y.bound)
        return Value(NODES.slice_update(x.node, new, starts=starts, steps=steps), bound)

    # ---- reductions and contractions -------------------------------------------------

    def axes(self, x: Node) -> tuple[int, ...]:
        rank = len(x.shape)
        return tuple(a for a in range(rank) if self.random.random() < 0.5) or (rank - 1,)

    def reduce(self) -> Value | None:
        x = self.pick(dtype=self.random.choice([None, None, None, int64, bool_, uint8]), rank=1)
        if x is None:
            return None
        axes = self.axes(x.node)
        count = float(np.prod([x.node.shape[a] for a in axes]))
        float_ = x.node.dtype.is_floating_point
        kind = self.random.choice(["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])
        if x.node.dtype in (bool_, uint8) and kind in ("reduce_sum", "reduce_prod"):
            kind = "reduce_max"
        if not count:
            if x.node.dtype in (bool_, uint8):
                return None
            kind = self.random.choice(["reduce_sum", "reduce_prod"])
        if kind == "reduce_prod" and float_:
            near = NODES.tanh(x.node) * 0.01 + 1.0
            return Value(NODES.reduce_prod(near, axes=axes))
        made = emit(kind, x.node, axes=axes)
        if kind != "reduce_sum" or not float_:
            return Value(made, x.bound if float_ else WHOLE)
        if x.bound is not None and x.bound * count < WHOLE:
            return Value(made, x.bound * count)
        return Value(NODES.tanh(made * (1 / max(count, 1))))

    def position(self) -> Value | None:
        x = self.pick(dtype=self.random.choice([None, int64, uint8]), rank=1, exact=True)
        if x is None or 0 in x.node.shape:
            return None
        axis = self.random.randrange(len(x.node.shape))
        return Value(emit(self.random.choice(["argmax", "argmin"]), x.node, axis=axis), 200)

    def softmax(self) -> Value | None:
        x = self.pick(rank=1)
        if x is None or 0 in x.node.shape:
            return None
        axes = self.axes(x.node)
        kept = tuple(1 if a in axes else d for a, d in enumerate(x.node.shape))
        top = NODES.reshape(NODES.reduce_max(x.node, axes=axes), shape=kept)
        raised = NODES.exp(x.node - top)
        total = NODES.reshape(NODES.reduce_sum(raised, axes=axes), shape=kept)
        return Value(raised / total)

    def matmul(self) -> Value | None:
        x = self.pick(rank=2)
        if x is None:
            return None
        if self.random.random() < 0.3:
            axes = (*range(len(x.node.shape) - 2), len(x.node.shape) - 1, len(x.node.shape) - 2)
            y = NODES.permute(x.node, axes=axes)
        else:
            width = self.random.choice([1, 3, 20])
            data = self.numbers.uniform(-1, 1, (x.node.shape[-1], width))
            y = constant(data.astype(x.node.dtype.numpy))
        made = NODES.matmul(x.node, y) * (1 / max(x.node.shape[-1], 1))
        return Value(NODES.tanh(made) if self.random.random() < 0.5 else made)


def broadcasts(a: Node, b: Node) -> bool:
    """Whether the shapes fit together, in at most four axes and not too many elements."""
    try:
        shape = broadcast_shapes(a.shape, b.shape)
    except RuntimeError:
        return False
    return len(shape) <= 4 and int(np.prod(shape)) <= ELEMENTS


def input_like(maker: _Maker, cell: Node) -> Node:
    """Another state of the same type, so that the two can be exchanged."""
    name = cell.attrs["name"] + "_twin"
    node = state_node(name, cell.tensor_type)
    maker.state[name] = maker.array(cell.tensor_type)
    maker.pool.append(Value(node))
    return node
