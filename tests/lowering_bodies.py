"""Random bodies of fused groups, with operands laid out in every odd way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES as b
from graphflow.ir.build import constant, emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32, int64

Array = np.ndarray[Any, Any]
UNARY = ("neg", "exp", "tanh", "relu", "abs", "sigmoid", "sqrt", "floor")
BINARY = ("add", "sub", "mul", "maximum", "minimum", "div")


@dataclass
class Maker:
    """Grows one body; ``arrays`` are the operands, in any layout."""

    rng: np.random.Generator
    shape: tuple[int, ...]
    plainly: bool = False
    """Operands are read at their own index only, so that results may overwrite them."""
    inputs: list[Node] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)

    def operand(self, shape: tuple[int, ...], dtype: Any = np.float32, high: int = 0) -> Node:
        """A new operand of the body."""
        if high:
            dense = self.rng.integers(0, high, shape)
        else:
            dense = self.rng.uniform(0.1, 2.0, shape).astype(dtype)
        array = laid_out(self.rng, dense)
        kind = int64 if high else float32
        node = input_node(f"x{len(self.inputs)}", TensorType(kind, shape))
        self.inputs.append(node)
        self.arrays.append(array)
        return node

    def leaf(self) -> Node:
        """An operand, a view of one, or a number, which broadcasts to the shape."""
        rng, shape = self.rng, self.shape
        kinds = [
            self.plain, self.broadcast, self.permuted, self.sliced, self.padded, self.joined,
            self.gathered, self.flipped, self.positions, self.number,
        ]  # fmt: skip
        if not shape or self.plainly:
            kinds = [self.plain, self.number]
        return kinds[rng.integers(len(kinds))]() if rng.random() < 0.6 else self.plain()

    def plain(self) -> Node:
        return self.operand(self.shape)

    def number(self) -> Node:
        return constant(float(self.rng.uniform(0.5, 2)), float32)

    def broadcast(self) -> Node:
        shape = tuple(1 if self.rng.random() < 0.5 else d for d in self.shape)
        return self.operand(shape[self.rng.integers(len(shape) + 1) :])

    def permuted(self) -> Node:
        axes = tuple(int(a) for a in self.rng.permutation(len(self.shape)))
        shape = [0] * len(axes)
        for k, a in enumerate(axes):
            shape[a] = self.shape[k]
        return b.permute(self.operand(tuple(shape)), axes=axes)

    def sliced(self) -> Node:
        starts = tuple(int(s) for s in self.rng.integers(0, 3, len(self.shape)))
        steps = tuple(int(s) for s in self.rng.integers(1, 3, len(self.shape)))
        whole = tuple(s + d * t + 1 for s, d, t in zip(starts, self.shape, steps))
        parts = zip(starts, self.shape, steps)
        limits = tuple(s + (d - 1) * t + 1 if d else s for s, d, t in parts)
        return b.slice(self.operand(whole), starts=starts, limits=limits, steps=steps)

    def flipped(self) -> Node:
        return b.flip(self.operand(self.shape), axes=(int(self.rng.integers(len(self.shape))),))

    def padded(self) -> Node:
        low = tuple(int(self.rng.integers(0, d + 1)) for d in self.shape)
        high = tuple(int(self.rng.integers(0, d - p + 1)) for p, d in zip(low, self.shape))
        inner = tuple(d - p - q for p, q, d in zip(low, high, self.shape))
        if 0 in inner:
            return self.plain()
        value = b.abs(self.operand(inner)) if self.rng.random() < 0.5 else self.operand(inner)
        return b.pad(value, low=low, high=high, value=0.5)

    def joined(self) -> Node:
        axis = int(self.rng.integers(len(self.shape)))
        cut = int(self.rng.integers(0, self.shape[axis] + 1))
        sizes = [cut, self.shape[axis] - cut]
        parts = [self.operand((*self.shape[:axis], s, *self.shape[axis + 1 :])) for s in sizes]
        return b.concatenate(b.neg(parts[0]), parts[1], axis=axis)

    def gathered(self) -> Node:
        axis = int(self.rng.integers(len(self.shape)))
        source = (*self.shape[:axis], 7, *self.shape[axis + 1 :])
        index = self.operand(self.shape, high=7)
        return b.gather(self.operand(source), index, axis=axis)

    def positions(self) -> Node:
        axis = int(self.rng.integers(len(self.shape)))
        return b.iota(shape=self.shape, axis=axis, dtype=float32) * 0.125

    def chain(self, values: list[Node], count: int) -> list[Node]:
        """``count`` more values over the given ones."""
        rng = self.rng
        for _ in range(count):
            x = values[rng.integers(len(values))]
            if rng.random() < 0.35:
                op = UNARY[rng.integers(len(UNARY))]
                y = b.emit(op, b.minimum(x, 3.0)) if op == "exp" else b.emit(op, x)
            elif rng.random() < 0.2:
                y = b.where(b.gt(x, 0.7), x, values[rng.integers(len(values))])
            else:
                op = BINARY[rng.integers(len(BINARY))]
                other = values[rng.integers(len(values))]
                y = b.emit(op, x, b.abs(other) + 0.5 if op == "div" else other)
            values.append(y)
        return values

    def full(self, node: Node) -> Node:
        """``node`` over the whole shape."""
        if node.shape == self.shape:
            return node
        return node + emit("expand", constant(0.0, float32), shape=self.shape)

    def graph(self, outputs: list[Node]) -> Graph:
        """The body, operands that nothing reads left out."""
        body = Graph(tuple(self.inputs), tuple(outputs))
        used = set(Graph((), tuple(outputs)).nodes)
        keep = [k for k, n in enumerate(self.inputs) if n in used]
        self.inputs = [self.inputs[k] for k in keep]
        self.arrays = [self.arrays[k] for k in keep]
        return Graph(tuple(self.inputs), body.outputs)


def laid_out(rng: np.random.Generator, dense: Array) -> Array:
    """``dense`` copied into memory of its own: dense, transposed, spread out or reversed."""
    kind = rng.integers(4)
    rank = dense.ndim
    if kind == 0 or dense.size == 0 or rank == 0:
        array = np.empty(dense.size, dense.dtype).reshape(dense.shape)
    elif kind == 1:
        order = rng.permutation(rank)
        shape = tuple(dense.shape[a] for a in order)
        array = np.empty(dense.size, dense.dtype).reshape(shape).transpose(np.argsort(order))
    else:
        steps = rng.integers(1, 3, rank)
        whole = tuple(int(d * t) + 1 for d, t in zip(dense.shape, steps))
        array = np.empty(int(np.prod(whole)), dense.dtype).reshape(whole)
        array = array[tuple(slice(1, 1 + d * t, t) for d, t in zip(dense.shape, steps))]
        if kind == 3:
            array = array[(slice(None, None, -1),) * rank]
    array[...] = dense
    return array


def random_shape(rng: np.random.Generator, least: int = 0) -> tuple[int, ...]:
    rank = int(rng.integers(least, 4))
    return tuple(int(rng.choice([0, 1, 2, 3, 5, 9], p=[0.03, 0.17, 0.2, 0.2, 0.2, 0.2]))
                 for _ in range(rank))  # fmt: skip


def map_body(seed: int, plainly: bool = False) -> tuple[Graph, list[Array]]:
    """Elementwise work over views, one to three results."""
    rng = np.random.default_rng(seed)
    make = Maker(rng, random_shape(rng), plainly)
    values = make.chain([make.leaf() for _ in range(rng.integers(1, 4))], int(rng.integers(1, 9)))
    picks = [make.full(values[-1 - k]) for k in range(min(len(values), int(rng.integers(1, 4))))]
    return make.graph(picks), make.arrays


def fold_body(seed: int, plainly: bool = False) -> tuple[Graph, list[Array]]:
    """Reductions over one set of axes in up to three stages, kept and full results."""
    rng = np.random.default_rng(seed)
    make = Maker(rng, random_shape(rng, 1), plainly)
    rank = len(make.shape)
    axes = tuple(a for a in range(rank) if rng.random() < 0.5) or (int(rng.integers(rank)),)
    if any(make.shape[a] == 0 for a in axes):
        axes = tuple(a for a in axes if make.shape[a]) or axes
    kept_shape = tuple(1 if a in axes else d for a, d in enumerate(make.shape))
    values = [make.leaf() for _ in range(rng.integers(1, 4))]
    outputs: list[Node] = []
    for _ in range(int(rng.integers(1, 4))):
        values = make.chain(values, int(rng.integers(1, 4)))
        operand = b.maximum(b.minimum(make.full(values[-1]), 5.0), -5.0)
        empty = any(make.shape[a] == 0 for a in axes)
        kinds = ["reduce_sum"] if empty else ["reduce_sum", "reduce_max", "reduce_min"]
        folded = b.emit(kinds[rng.integers(len(kinds))], operand, axes=axes)
        if rng.random() < 0.5:
            outputs.append(folded * 0.5 if rng.random() < 0.5 else folded)
        if rng.random() < 0.2 and len(axes) == 1 and not empty:
            outputs.append(b.argmax(operand, axis=axes[0]))
        if rng.random() < 0.4:
            outputs.append(operand)
        spread = b.expand(b.reshape(folded, shape=kept_shape), shape=make.shape)
        values.append(spread * 0.25)
    if rng.random() < 0.5 or not outputs:
        outputs.append(make.full(make.chain(values, 2)[-1]))
    return make.graph(outputs), make.arrays
