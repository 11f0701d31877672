"""Random graphs with values to run them on: the raw material of the fuzz tests.

``random_graph(seed)`` returns the same graph and values for the same seed.  A
test that fails prints the seed and the graph's text.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphflow.ir import ops as _ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES, constant, emit, input_node, splat, state_node
from graphflow.ir.dims import SymDim, evaluate_dim, symbol
from graphflow.ir.graph import Graph, Location
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, bool_, broadcast_shapes, float32, int64

SIZES = {"batch": 3, "seq": 2}
"""The sizes of the symbols that random graphs use."""


@dataclass(frozen=True)
class Case:
    """A graph and what to run it on (``interpret(case.graph, case.args, case.state)``)."""

    seed: int
    graph: Graph
    args: tuple[np.ndarray, ...]
    state: dict[str, np.ndarray]

    def __str__(self) -> str:
        return f"seed {self.seed}\n{self.graph}"


def random_graph(
    seed: int, size: int = 30, *, symbolic: bool = False, control: bool = True,
    differentiable: bool = False,
) -> Case:  # fmt: skip
    """A graph of about ``size`` operations, with inputs, state, updates and locations.

    ``symbolic`` gives some shapes symbols; ``control`` allows ``cond``, ``scan``
    and ``while_loop``; ``differentiable`` keeps to smooth floating-point work and
    makes output 0 a scalar.
    """
    return _Maker(seed, symbolic, control, differentiable).make(size)


def assert_same_results(before: Graph, after: Graph, case: Case, tolerance: float = 0.0) -> None:
    """Both graphs yield the same outputs and state on the values of ``case``.

    With ``tolerance`` 0, to the last bit (all NaNs are alike); else relatively.
    """
    one = interpret(before, case.args, case.state)
    other = interpret(after, case.args, case.state)
    pairs = list(zip(one.outputs, other.outputs, strict=True))
    pairs += [(one.state[n.attrs["name"]], other.state[n.attrs["name"]]) for n in after.state]
    for left, right in pairs:
        assert_same_array(left, right, tolerance, f"seed {case.seed}\n{before}\n{after}")


def assert_same_array(
    left: np.ndarray, right: np.ndarray, tolerance: float = 0.0, message: str = ""
) -> None:
    """Equal dtype, shape and values: to the last bit, or within ``tolerance``."""
    assert left.dtype == right.dtype and left.shape == right.shape, message
    if tolerance:
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance, err_msg=message)
        return
    np.testing.assert_array_equal(left, right, err_msg=message)
    if left.dtype.kind == "f":
        number = ~np.isnan(left)
        signs = np.signbit(left[number]), np.signbit(right[number])
        np.testing.assert_array_equal(*signs, err_msg=f"signs of zeros\n{message}")


UNARY = "tanh sigmoid sin cos neg relu abs floor sign".split()
SMOOTH = "tanh sigmoid sin cos neg".split()
BINARY = "add sub mul maximum minimum".split()
COMPARE = "eq ne lt le gt ge".split()


class _Maker:
    def __init__(self, seed: int, symbolic: bool, control: bool, differentiable: bool) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.values = np.random.default_rng(seed)
        self.smooth = differentiable
        self.pool: list[Node] = []
        self.locations: dict[Node, Location] = {}
        self.names: dict[Node, str] = {}
        self.extents: list[int | SymDim] = [1, 2, 3, 4]
        self.symbolic = symbolic
        if symbolic:
            self.extents += [symbol("batch"), symbol("seq"), symbol("batch") * 2]
        self.steps: list[tuple[int, Callable[[], Node | None]]] = [
            (5, self.unary), (5, self.binary), (2, self.scalar), (4, self.view),
            (3, self.reduce), (2, self.matmul), (1, self.joined),
        ]  # fmt: skip
        if not differentiable:
            self.steps += [
                (2, self.compare), (2, self.choose), (1, self.cast), (1, self.iota),
                (1, self.bits), (1, self.take), (1, self.position),
            ]  # fmt: skip
        if control:
            self.steps.append((1, self.control))

    # ---- the whole ---------------------------------------------------------------

    def make(self, size: int) -> Case:
        rnd = self.random
        inputs = [input_node(f"x{i}", self.type()) for i in range(rnd.randint(1, 3))]
        if self.symbolic:  # an argument that gives every symbol its size
            sizes = TensorType(float32, tuple(map(symbol, SIZES)))
            inputs.append(input_node("sizes", sizes))
        state = [state_node(f"w{i}", self.type()) for i in range(rnd.randint(1, 3))]
        rng = state_node("rng", TensorType(int64, (2,)))
        if not self.smooth:
            state.append(rng)
        self.rng = rng
        self.pool = [n for n in (*inputs, *state) if n is not rng]
        weights = [w for w, _ in self.steps]
        while len(self.pool) < size:
            (_, step) = rnd.choices(self.steps, weights)[0]
            made = step()
            if made is not None and made not in self.pool:
                self.pool.append(made)
                if rnd.random() < 0.5:
                    self.locations[made] = Location("model.py", rnd.randint(1, 99), "model.fc")
                if rnd.random() < 0.2:
                    self.names[made] = rnd.choice(["h", "hidden", "odd name", "9"])
        graph = self.finish(inputs, state)
        args = tuple(self.array(n.tensor_type) for n in inputs)
        values = {n.attrs["name"]: self.array(n.tensor_type) for n in state}
        return Case(self.seed, graph, args, values)

    def finish(self, inputs: list[Node], state: list[Node]) -> Graph:
        rnd = self.random
        outputs = rnd.sample(self.pool[-8:], k=min(3, len(self.pool)))
        if self.smooth:
            total: Node | None = None
            for node in outputs:
                part = NODES.reduce_sum(NODES.tanh(node), axes=tuple(range(len(node.shape))))
                total = part if total is None else total + part
            outputs = [total] if total is not None else []
        updates = []
        for cell in state:
            fitting = [n for n in self.pool if n.type == cell.type and n is not cell]
            if fitting and rnd.random() < 0.7:
                updates.append((cell, rnd.choice(fitting)))
            elif rnd.random() < 0.2:
                updates.append((cell, cell))
        reached = set(Graph(tuple(inputs), tuple(outputs), tuple(state), tuple(updates)).nodes)
        return Graph(
            tuple(inputs), tuple(outputs), tuple(state), tuple(updates), "random",
            {n: p for n, p in self.locations.items() if n in reached},
            {n: s for n, s in self.names.items() if n in reached},
        )  # fmt: skip

    def type(self, rank: int | None = None) -> TensorType:
        rank = self.random.choice([0, 1, 2, 2, 3]) if rank is None else rank
        return TensorType(float32, tuple(self.random.choice(self.extents) for _ in range(rank)))

    def array(self, type: TensorType) -> np.ndarray:
        shape = tuple(evaluate_dim(d, SIZES) for d in type.shape)
        if type.dtype is int64:
            return self.values.integers(0, 5, shape)
        return self.values.uniform(-2, 2, shape).astype(np.float32)

    def pick(self, *, dtype: object = float32, rank: int = 0) -> Node | None:
        fitting = [n for n in self.pool if n.dtype is dtype and len(n.shape) >= rank]
        return self.random.choice(fitting[-12:]) if fitting else None

    def partner(self, node: Node) -> Node:
        """Something that broadcasts with ``node``."""
        found = []
        for other in self.pool:
            if other.dtype is node.dtype:
                try:
                    shape = broadcast_shapes(node.shape, other.shape)
                except RuntimeError:
                    continue
                if len(shape) <= 3:
                    found.append(other)
        return self.random.choice(found)

    # ---- one operation each --------------------------------------------------------

    def unary(self) -> Node | None:
        x = self.pick()
        return x and emit(self.random.choice(SMOOTH if self.smooth else UNARY), x)

    def binary(self) -> Node | None:
        x = self.pick()
        if x is None:
            return None
        op = self.random.choice(BINARY[:3] if self.smooth else BINARY)
        made = emit(op, x, self.partner(x))
        return NODES.tanh(made) if op == "mul" else made  # keeps values small

    def scalar(self) -> Node | None:
        x = self.pick()
        if x is None:
            return None
        value = self.random.choice([0.0, -0.0, 1.0, 2.0, 0.5, -1.0])
        other = constant(value, float32)
        if self.random.random() < 0.5:
            other = splat(value, x.tensor_type)
        op = self.random.choice(["add", "sub", "mul"] if self.smooth else ["add", "mul", "sub"])
        return emit(op, x, other)

    def compare(self) -> Node | None:
        x = self.pick()
        return x and emit(self.random.choice(COMPARE), x, self.partner(x))

    def choose(self) -> Node | None:
        c = self.pick(dtype=bool_)
        return c and NODES.where(c, NODES.cast(c, dtype=float32), constant(0.25, float32))

    def cast(self) -> Node | None:
        x = self.pick()
        return x and NODES.cast(NODES.cast(x, dtype=int64), dtype=float32)

    def iota(self) -> Node | None:
        axis_shape = (self.random.randint(1, 4), self.random.randint(1, 4))
        axis = self.random.randrange(2)
        return emit("iota", shape=axis_shape, axis=axis, dtype=float32)  # type: ignore[arg-type]

    def bits(self) -> Node | None:
        word, call = self.random.randrange(4), self.random.randrange(3)
        bits = NODES.random_bits(self.rng, shape=(2, 3), call=call, word=word)
        eight = constant(8, bits.dtype)
        return NODES.cast(NODES.shift_right(bits, eight), dtype=float32) * (2.0**-24)

    def take(self) -> Node | None:
        x = self.pick(rank=1)
        if x is None:
            return None
        axis = self.random.randrange(len(x.shape))
        if isinstance(x.shape[axis], SymDim) or x.shape[axis] == 0:
            return None
        index = constant(self.values.integers(0, x.shape[axis], (2,)))
        return NODES.take(x, index, axis=axis)

    def position(self) -> Node | None:
        x = self.pick(rank=1)
        if x is None:
            return None
        axis = self.random.randrange(len(x.shape))
        if x.shape[axis] == 0:
            return None
        return NODES.cast(NODES.argmax(x, axis=axis), dtype=float32)

    def view(self) -> Node | None:
        x = self.pick(rank=1)
        if x is None:
            return None
        kind = self.random.choice(["reshape", "permute", "expand", "slice", "flip", "pad"])
        return getattr(self, "_" + kind)(x)

    def _reshape(self, x: Node) -> Node:
        at = self.random.randint(0, len(x.shape))
        if self.random.random() < 0.5 or not x.tensor_type.is_static:
            shape = (*x.shape[:at], 1, *x.shape[at:])
        else:
            shape = (x.tensor_type.numel,)
        return NODES.reshape(x, shape=shape) if len(shape) <= 3 else x

    def _permute(self, x: Node) -> Node:
        axes = list(range(len(x.shape)))
        self.random.shuffle(axes)
        return NODES.permute(x, axes=tuple(axes))

    def _expand(self, x: Node) -> Node:
        shape = [self.random.choice(self.extents) if d == 1 else d for d in x.shape]
        if len(shape) < 3:
            shape.insert(0, self.random.choice(self.extents))
        return NODES.expand(x, shape=tuple(shape))

    def _slice(self, x: Node) -> Node:
        starts, limits, steps = [], [], []
        for d in x.shape:
            whole = isinstance(d, SymDim) or d == 0 or self.random.random() < 0.4
            start = 0 if whole else self.random.randrange(d)
            starts.append(start)
            limits.append(d if whole else self.random.randint(start + 1, d))
            steps.append(1 if whole else self.random.randint(1, 2))
        return NODES.slice(x, starts=tuple(starts), limits=tuple(limits), steps=tuple(steps))

    def _flip(self, x: Node) -> Node:
        axes = [a for a in range(len(x.shape)) if self.random.random() < 0.6]
        return NODES.flip(x, axes=tuple(axes))

    def _pad(self, x: Node) -> Node:
        low = tuple(self.random.randint(0, 1) for _ in x.shape)
        high = tuple(self.random.randint(0, 1) for _ in x.shape)
        return NODES.pad(x, low=low, high=high, value=self.random.choice([0.0, -0.0, 1.5]))

    def joined(self) -> Node | None:
        x = self.pick(rank=1)
        if x is None:
            return None
        axis = self.random.randrange(len(x.shape))
        same = [
            n for n in self.pool
            if n.dtype is x.dtype and len(n.shape) == len(x.shape)
            and all(a == b for i, (a, b) in enumerate(zip(n.shape, x.shape)) if i != axis)
        ]  # fmt: skip
        return NODES.concatenate(x, self.random.choice(same), axis=axis)

    def reduce(self) -> Node | None:
        x = self.pick(rank=1)
        if x is None:
            return None
        axes = [a for a in range(len(x.shape)) if self.random.random() < 0.5] or [0]
        op = self.random.choice(["reduce_sum", "reduce_max", "reduce_min"])
        if self.smooth or any(x.shape[a] == 0 for a in axes):
            op = "reduce_sum"
        return emit(op, x, axes=tuple(axes))

    def matmul(self) -> Node | None:
        x = self.pick(rank=2)
        if x is None:
            return None
        width = self.random.choice([1, 2, 3])
        inner = x.shape[-1]
        if isinstance(inner, SymDim):
            axes = (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)
            other = NODES.permute(x, axes=axes)
        else:
            other = constant(self.values.uniform(-1, 1, (inner, width)).astype(np.float32))
        return NODES.tanh(NODES.matmul(x, other))

    def control(self) -> Node | None:
        x = self.pick(rank=1)
        if x is None:
            return None
        kinds = [self._cond, self._scan] if self.smooth else [self._cond, self._scan, self._while]
        return self.random.choice(kinds)(x)

    def _cond(self, x: Node) -> Node:
        a = input_node("a", x.tensor_type)
        then = Graph((a,), (NODES.sin(a), a), name="then")
        otherwise = Graph((a,), (NODES.tanh(a), NODES.mul(a, 0.5)), name="otherwise")
        first = NODES.reduce_sum(x, axes=tuple(range(len(x.shape))))
        limit = constant(0.0, float32)
        both = NODES.cond(NODES.gt(first, limit), x, then=then, otherwise=otherwise)
        return NODES.get(both, index=self.random.randrange(2))

    def _scan(self, x: Node) -> Node:
        row = TensorType(float32, x.shape[1:])
        carry, item, fixed = (input_node(n, row) for n in ("carry", "item", "fixed"))
        new = NODES.tanh(carry * 0.5 + item)
        body = Graph((carry, item, fixed), (new, NODES.sin(new) * fixed), name="body")
        start = NODES.reduce_sum(x, axes=(0,))
        reverse = self.random.random() < 0.5
        both = NODES.scan(
            start, x, start,
            body=body, carried=1, scanned=1, length=x.shape[0], reverse=reverse,
        )  # fmt: skip
        return NODES.get(both, index=self.random.randrange(2))

    def _while(self, x: Node) -> Node:
        i, a = input_node("i", TensorType(int64, ())), input_node("a", x.tensor_type)
        three = constant(3, int64)
        body = Graph((i, a), (NODES.add(i, constant(1, int64)), NODES.cos(a)), name="body")
        condition = Graph((i, a), (NODES.lt(i, three),), name="condition")
        both = NODES.while_loop(constant(0, int64), x, body=body, condition=condition, carried=2)
        return NODES.get(both, index=1)
