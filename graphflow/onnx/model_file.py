"""Reading ONNX files: what is wrong with one is said in one error."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, GraphError
from graphflow.ir.types import from_numpy_dtype
from graphflow.onnx.operators.table import OPERATORS, type_name

STANDARD = ("", "ai.onnx")
"""Names of the domain of the standard operators."""


def onnx_package() -> Any:
    """The package ``onnx``, or an error that says how to get it."""
    try:
        return import_module("onnx")
    except ImportError as error:
        raise ImportError(
            "ONNX files need the package onnx: pip install 'graphflow[onnx]'"
        ) from error


def read_model(source: Any) -> Any:
    """The ``ModelProto`` in a file (or bytes, or itself), checked as far as ONNX can.

    Raises GraphError for what is no model, is damaged, or is newer than this version.
    """
    onnx = onnx_package()
    if isinstance(source, onnx.ModelProto):
        model, what = source, "the model"
    else:
        model, what = _parsed(onnx, source)
    if not model.HasField("graph") or not model.ir_version or not model.opset_import:
        raise GraphError(f"{what} is not an ONNX model: it has no graph, or no versions")
    _check_versions(onnx, model, what)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's own, and those of its parts in C++
        raise GraphError(f"{what} is not valid ONNX: {error}") from None
    return model


def _parsed(onnx: Any, source: Any) -> tuple[Any, str]:
    decode_error = import_module("google.protobuf.message").DecodeError
    what = "the model" if isinstance(source, bytes) else f"'{source}'"
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source), what
        if not Path(source).is_file():
            raise FileNotFoundError(f"there is no file {what}")
        return onnx.load_model(str(source)), what
    except FileNotFoundError:
        raise
    except (decode_error, ValueError, RuntimeError, OSError, onnx.checker.ValidationError) as error:
        raise GraphError(f"{what} cannot be read as an ONNX model: {error}") from None


def _check_versions(onnx: Any, model: Any, what: str) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise GraphError(
            f"{what} has IR version {model.ir_version}; this version reads up to "
            f"{onnx.IR_VERSION} (onnx {onnx.__version__})"
        )
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in STANDARD and entry.version > newest:
            raise GraphError(
                f"{what} uses version {entry.version} of the ONNX operators; this version "
                f"knows up to {newest} (onnx {onnx.__version__})"
            )


def opset_of(model: Any) -> int:
    """The version of the standard operators that ``model`` uses."""
    versions = [e.version for e in model.opset_import if e.domain in STANDARD]
    return int(versions[0]) if versions else 1


def array_of(tensor: Any) -> np.ndarray[Any, Any]:
    """The data of a ``TensorProto``; DTypeError for element types that we lack."""
    onnx = onnx_package()
    try:
        array: np.ndarray[Any, Any] = onnx.numpy_helper.to_array(tensor)
        from_numpy_dtype(array.dtype)
    except (DTypeError, TypeError, ValueError):
        raise DTypeError(
            f"tensor '{tensor.name}' has element type {type_name(tensor.data_type)}, "
            "which has no counterpart here"
        ) from None
    return array


def attributes_of(node: Any) -> dict[str, Any]:
    """The attributes of a ``NodeProto`` as Python values, tensors as arrays."""
    onnx = onnx_package()
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = array_of(value)
        elif isinstance(value, list):
            value = tuple(
                v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value
            )
        found[attribute.name] = _text(value)
    return found


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def key_of(node: Any) -> tuple[str, str]:
    """Domain and operator of a node."""
    return ("" if node.domain in STANDARD else node.domain, node.op_type)


def check_supported(model: Any) -> None:
    """Raise one GraphError that names every node whose operator is not supported."""
    functions = {(f.domain, f.name) for f in model.functions}
    missing: dict[str, list[str]] = {}
    for node, where in _all_nodes(model):
        key = key_of(node)
        if key in functions:
            continue
        problem = _problem(node, key, opset_of(model))
        if problem:
            missing.setdefault(problem, []).append(node.name or f"%{node.output[0]}{where}")
    if missing:
        lines = [f"  {what}: {', '.join(names)}" for what, names in missing.items()]
        raise GraphError(
            "the model uses operators that are not supported (after each: the nodes)\n"
            + "\n".join(lines)
        )


def _problem(node: Any, key: tuple[str, str], opset: int) -> str:
    """What of this node is not supported; nothing if all is."""
    spelled = ".".join(part for part in key if part)
    found = OPERATORS.get(key)
    if found is None:
        return "" if definition(key, opset) is not None else spelled
    unknown = [a.name for a in node.attribute if a.name not in found.attributes]
    return f"{spelled} with attribute {', '.join(unknown)}" if unknown else ""


def definition(key: tuple[str, str], opset: int) -> Any:
    """The schema of an operator that the standard defines by others; None if it does not."""
    defs = onnx_package().defs
    domain, name = key
    version = opset if domain == "" else 1
    if not defs.has(name, version, domain):
        return None
    schema = defs.get_schema(name, version, domain)
    return schema if schema.has_function or schema.has_context_dependent_function else None


def _all_nodes(model: Any) -> Iterator[tuple[Any, str]]:
    """Every node of a model, its functions and the graphs inside nodes, with where it is."""
    pending = [(node, "") for node in model.graph.node]
    for function in model.functions:
        pending += [(node, f" in {function.name}") for node in function.node]
    for node, where in pending:
        yield node, where
        for attribute in node.attribute:
            graphs = [attribute.g, *attribute.graphs]
            pending += [(inner, where) for graph in graphs for inner in graph.node]
