"""Which types operators are given while a graph is written, held against the standard's table.

A file whose operators get types that the standard does not list for them is not ONNX: it may be
refused, or loaded and give other numbers.  So every node is looked up as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphflow.errors import GraphError
from graphflow.ir.types import DType
from graphflow.onnx.model_file import onnx_package
from graphflow.onnx.operators.table import number_of_dtype


def spelled(number: int) -> str:
    """An element type as the standard's tables spell it: ``tensor(float)``."""
    return f"tensor({onnx_package().TensorProto.DataType.Name(number).lower()})"


class Types:
    """The types of the values that have been written, and the nodes that do not take theirs."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._wrong: dict[str, None] = {}

    def know(self, name: str, dtype: DType) -> None:
        """Say what type a value has."""
        self._of[name] = spelled(number_of_dtype(dtype))

    def check(self, node: Any, opset: int, attributes: Mapping[str, Any], source: str) -> None:
        """Look up a node's operator: what it takes, and what its results are.

        ``source`` says what it was written for, in an error.
        """
        schema = onnx_package().defs.get_schema(node.op_type, opset)
        bound: dict[str, str] = {}
        for k, name in enumerate(node.input):
            formal, own = _at(schema.inputs, k), self._of.get(name)
            if own is None:
                continue
            same = bound.setdefault(formal.type_str, own) if formal.is_homogeneous else own
            if own not in formal.types or own != same:
                self._wrong[f"  {source}: {node.op_type} of {_plain(own)}"] = None
        for k, name in enumerate(node.output):
            formal = _at(schema.outputs, k)
            found = bound.get(formal.type_str)
            if "to" in attributes:
                found = spelled(attributes["to"])
            elif found is None and len(formal.types) == 1:
                (found,) = formal.types
            if found is not None:
                self._of[name] = found

    def agree(self, name: str, dtype: DType, source: str) -> None:
        """A value that is written for one of this dtype has it."""
        wanted = spelled(number_of_dtype(dtype))
        if self._of.get(name, wanted) != wanted:
            self._wrong[f"  {source}: {_plain(self._of[name])} instead of {_plain(wanted)}"] = None

    def refuse(self) -> None:
        """Raise one GraphError for all that is wrong."""
        if self._wrong:
            raise GraphError(
                "ONNX's operators do not take these types; cast what they are given "
                "(before each: what it is in the program, and where)\n" + "\n".join(self._wrong)
            )


def _at(formals: Sequence[Any], position: int) -> Any:
    """A parameter of a schema; the last may stand for several."""
    return formals[min(position, len(formals) - 1)]


def _plain(spelling: str) -> str:
    return spelling.removeprefix("tensor(").removesuffix(")")
