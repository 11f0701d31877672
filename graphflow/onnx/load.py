"""``gf.onnx.load``: an ONNX file as a program, a graph or a module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphflow.api import compile as compile_graph
from graphflow.api import trace
from graphflow.errors import GraphError
from graphflow.functions.creation import tensor
from graphflow.ir.graph import Graph
from graphflow.mode import mode
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.onnx.model_file import array_of, check_supported, read_model
from graphflow.onnx.operators.everything import OPERATORS
from graphflow.onnx.operators.table import as_tensor, dtype_of
from graphflow.onnx.translate import Translation
from graphflow.primitives import fresh
from graphflow.program import Program
from graphflow.specs import TensorSpec
from graphflow.tensor import Tensor

EXAMPLE_SIZE = 8
"""Of symbolic dimensions, where something depends on their sizes."""


def load(
    path: str | Path | bytes | Any,
    *,
    values: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
) -> Program:
    """The program of an ONNX model, which takes and returns what the model does, in order.

    ``values`` fixes inputs whose numbers must be known beforehand because they decide
    shapes (they are no inputs of the program then); ``shapes`` gives inputs shapes in place
    of those in the file.  Weights are the program's state, under their names; sequences
    among the results are taken apart.  Raises GraphError for a file that is no model, is
    damaged, or is newer than this version, and for operators that are not supported: all
    of them at once.
    """
    made = compile_graph(load_graph(path, values=values, shapes=shapes))
    assert isinstance(made, Program)
    return made


def load_graph(
    path: str | Path | bytes | Any,
    *,
    values: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
) -> Graph:
    """The traced graph of an ONNX model; see :func:`load`."""
    model = read_model(path)
    loaded = _translated(model, trainable=False)
    given = {name: _given(value) for name, value in (values or {}).items()}
    known = [i.name for i in model.graph.input]
    unknown = [name for name in (*given, *(shapes or {})) if name not in known]
    if unknown:
        raise GraphError(f"the model has no input {', '.join(unknown)}; it has {', '.join(known)}")
    free = [i for i in _free_inputs(model) if i.name not in given]
    specs = [spec_of(i, (shapes or {}).get(i.name)) for i in free]

    def model_function(*tensors: Tensor) -> tuple[Tensor, ...]:
        _give_examples(specs)
        named = dict(zip((i.name for i in free), tensors))
        return tuple(map(fresh, _flat(loaded.run({**given, **named}))))

    model_function.__name__ = _identifier(model.graph.name) or "model"
    graph = trace(model_function, *specs)
    assert isinstance(graph, Graph)
    return graph


def load_module(path: str | Path | bytes | Any) -> Module:
    """An ONNX model as a module: weights are parameters, to be trained or replaced."""
    return Model(read_model(path))


class Model(Module):
    """A module that runs an ONNX model, eagerly or compiled.

    ``forward`` takes the model's inputs in order (arrays that decide shapes as NumPy
    arrays) and returns its outputs, one or a tuple.  Parameters have the names of the
    weights, dots replaced by ``/``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._translation = _translated(model, trainable=True)
        self._inputs = tuple(i.name for i in _free_inputs(model))
        for name, weight in self._translation.weights.items():
            self.register_parameter(name.replace(".", "/"), weight)  # type: ignore[arg-type]

    def forward(self, *inputs: Any) -> Any:
        """The outputs of the model."""
        if len(inputs) > len(self._inputs):
            raise TypeError(f"the model takes {len(self._inputs)} inputs, got {len(inputs)}")
        found = self._translation.run(dict(zip(self._inputs, inputs)))
        made = tuple(as_tensor(value) for value in found)
        return made[0] if len(made) == 1 else made


def _translated(model: Any, trainable: bool) -> Translation:
    """The model as a function, its weights (:func:`_is_weight`) as tensors."""
    assert OPERATORS  # filled
    check_supported(model)
    weights: dict[str, Tensor] = {}
    for item in model.graph.initializer:
        array = array_of(item) if item.dims else None
        if array is None or not _is_weight(array):
            continue
        made: Any = tensor(np.array(array))
        floats = made.dtype.is_floating_point
        weights[item.name] = Parameter(made, requires_grad=floats) if trainable else made
        weights[item.name].name = item.name
    return Translation(model, weights)


def _is_weight(array: np.ndarray[Any, Any]) -> bool:
    """Numbers, and matrices of 8-bit integers; other integers decide shapes, or are zero points."""
    return array.dtype.kind in "fV" or (array.dtype.itemsize == 1 and array.ndim > 1)


def _give_examples(specs: Sequence[TensorSpec]) -> None:
    """Let questions about symbolic sizes be answered, and the answers be assumed."""
    names = dict.fromkeys(d for spec in specs for d in spec.shape if isinstance(d, str))
    tracer = mode.tracer
    assert tracer is not None
    tracer.sizes = {name: EXAMPLE_SIZE + k for k, name in enumerate(names)}


def _given(value: Any) -> Any:
    """A value for an input: an array, a sequence of them, or nothing."""
    if isinstance(value, (list, tuple)) and any(np.ndim(v) for v in value):
        return [_given(v) for v in value]
    if isinstance(value, Tensor):
        return value.numpy(force=True)
    return value if value is None else np.asarray(value)


def _free_inputs(model: Any) -> list[Any]:
    """The inputs that have no initial value."""
    initial = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in initial]


def spec_of(value: Any, shape: Sequence[int | str] | None) -> TensorSpec:
    """What ``gf.trace`` takes for an input of a model: unknown extents become symbols."""
    if value.type.WhichOneof("value") != "tensor_type":
        kind = str(value.type.WhichOneof("value") or "none").removesuffix("_type")
        raise GraphError(
            f"input '{value.name}' of the model is no tensor (its type: {kind}); give it a value "
            f"with values={{{value.name!r}: …}}"
        )
    held = value.type.tensor_type
    if shape is None:
        if not held.HasField("shape"):
            raise GraphError(
                f"input '{value.name}' of the model has no shape; give it one with "
                f"shapes={{{value.name!r}: (…)}}"
            )
        shape = [_extent(d, value.name, axis) for axis, d in enumerate(held.shape.dim)]
    return TensorSpec(tuple(shape), dtype_of(held.elem_type), name=value.name)


def _extent(dim: Any, name: str, axis: int) -> int | str:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return _identifier(dim.dim_param) or _identifier(f"{name}_{axis}")


def _identifier(text: str) -> str:
    """``text`` as an identifier."""
    plain = re.sub(r"\W", "_", text, flags=re.ASCII)
    return f"_{plain}" if plain[:1].isdigit() else plain


def _flat(results: Sequence[Any]) -> list[Any]:
    """The tensors among results, sequences taken apart."""
    found: list[Any] = []
    for value in results:
        if value is not None:
            made = as_tensor(value)
            found += made if isinstance(made, list) else [made]
    return found
