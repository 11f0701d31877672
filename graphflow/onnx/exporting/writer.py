"""What an ONNX graph is written with: names, nodes, constants, sizes at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir.dims import Dim, Rounded, SymDim
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, from_numpy_dtype
from graphflow.onnx.exporting.typing import Types
from graphflow.onnx.model_file import onnx_package
from graphflow.onnx.operators.table import number_of_dtype

END = 2**63 - 1
"""A limit that means: to the end."""


class Writer:
    """One ONNX graph being written; ``names`` are those of the values that nodes have."""

    def __init__(self, opset: int, outer: Writer | None = None) -> None:
        self.onnx = onnx_package()
        self.opset, self.outer = opset, outer
        self.nodes: list[Any] = []
        self.names: dict[Node, str] = {}
        self.initial: dict[str, np.ndarray[Any, Any]] = {} if outer is None else outer.initial
        self.sizes: dict[str, str] = {} if outer is None else outer.sizes
        self.values: dict[str, np.ndarray[Any, Any]] = {} if outer is None else outer.values
        """Weights, by the name of their state."""
        self._taken: set[str] = set() if outer is None else outer._taken
        self._constants: dict[Any, str] = {} if outer is None else outer._constants
        self.types: Types = Types() if outer is None else outer.types
        self.module = ""
        self.source: str = "" if outer is None else outer.source
        """What is being written, for errors: the operation in the program, and where it is."""

    # ---- names -----------------------------------------------------------------------

    def unique(self, stem: str) -> str:
        """A name that no value or node has yet."""
        name, count = stem, 1
        while name in self._taken:
            name, count = f"{stem}_{count}", count + 1
        self._taken.add(name)
        return name

    def name(self, node: Node) -> str:
        """The name of the value that a node has, here or in a graph around this one."""
        found = self.names.get(node)
        if found is not None:
            self.types.know(found, node.dtype)
            return found
        if self.outer is None:
            raise GraphError(f"{node!r} has not been written")
        return self.outer.name(node)

    # ---- nodes -----------------------------------------------------------------------

    def add(self, op: str, *inputs: str | Node, outputs: int = 1, **attributes: Any) -> Any:
        """A node of operator ``op``; the names of its results (its result, if there is one)."""
        names = [x if isinstance(x, str) else self.name(x) for x in inputs]
        made = [self.unique(f"{self.module}{op.lower()}") for _ in range(outputs)]
        node = self.onnx.helper.make_node(op, names, made, name=made[0], **attributes)
        self.types.check(node, self.opset, attributes, self.source)
        self.nodes.append(node)
        return made[0] if outputs == 1 else tuple(made)

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of a constant; equal ones are kept once."""
        array = np.array(value, None if dtype is None else dtype)
        key = (array.dtype.str, array.dtype.name, array.shape, array.tobytes())
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = self.unique("constant")
            self.initial[found] = array
            self.types.know(found, from_numpy_dtype(array.dtype))
        return found

    def like(self, value: Any, node: Node) -> str:
        """A number as a constant of the dtype of ``node``."""
        return self.constant(value, node.dtype.numpy)

    def ints(self, values: Sequence[int]) -> str:
        """A vector of whole numbers."""
        return self.constant(np.array(list(values), np.int64).reshape(-1))

    # ---- sizes -----------------------------------------------------------------------

    def size(self, dim: Dim) -> str:
        """A dimension as a vector of one number, computed at run time if it is symbolic."""
        if isinstance(dim, int):
            return self.ints([dim])
        total = ""
        for monomial, factor in dim.terms:
            parts = [self.atom(atom) for atom in monomial]
            if factor != 1 or not parts:
                parts.insert(0, self.ints([factor]))
            product = parts[0]
            for part in parts[1:]:
                product = self.add("Mul", product, part)
            total = self.add("Add", total, product) if total else product
        return total

    def atom(self, atom: Any) -> str:
        """A symbol's size, or a rounded quotient or an extreme of two dimensions."""
        if isinstance(atom, Rounded):
            name = {"//": "Div", "min": "Min", "max": "Max"}[atom.function]
            return str(self.add(name, self.size(atom.left), self.size(atom.right)))
        found = self.sizes.get(atom)
        if found is None:
            raise GraphError(f"no input has the symbolic dimension '{atom}' for one of its own")
        return found

    def shape(self, dims: Sequence[Dim]) -> str:
        """A shape as a vector."""
        if all(isinstance(d, int) for d in dims):
            return self.ints([d for d in dims if isinstance(d, int)])
        return str(self.add("Concat", *[self.size(d) for d in dims], axis=0))

    def reshape(self, value: str | Node, dims: Sequence[Dim]) -> str:
        """``value`` in another shape; a single symbolic extent is what is left (-1)."""
        unknown = [d for d in dims if isinstance(d, SymDim)]
        if len(unknown) == 1 and 0 not in dims:
            return str(self.add("Reshape", value, self.ints(
                [-1 if isinstance(d, SymDim) else d for d in dims])))  # fmt: skip
        return str(self.add("Reshape", value, self.shape(dims), allowzero=1))

    def find_sizes(self, inputs: Sequence[Node]) -> None:
        """Let the sizes of symbols be read from the inputs that have them."""
        for node in inputs:
            for axis, dim in enumerate(node.shape):
                if isinstance(dim, SymDim) and str(dim) in dim.symbols:
                    if str(dim) not in self.sizes:
                        shape = self.add("Shape", node)
                        place = self.ints([axis])
                        self.sizes[str(dim)] = self.add("Gather", shape, place, axis=0)

    # ---- the graph -------------------------------------------------------------------

    def value_info(self, name: str, type: TensorType) -> Any:
        """The type of an input or output."""
        dims = [str(d) if isinstance(d, SymDim) else d for d in type.shape]
        number = number_of_dtype(type.dtype)
        return self.onnx.helper.make_tensor_value_info(name, number, dims)

    def finish(self, graph: Graph, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """The ``GraphProto``, with the constants if it is the outermost."""
        held = [] if self.outer is not None else [
            self.onnx.numpy_helper.from_array(np.ascontiguousarray(a).reshape(a.shape), name)
            for name, a in self.initial.items()
        ]  # fmt: skip
        return self.onnx.helper.make_graph(self.nodes, graph.name, inputs, outputs, held)
