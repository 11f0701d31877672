"""The part of NVIDIA's module ``cudnn`` that attention uses, in NumPy over ordinary memory.

What is asked for is checked as the documentation says it: graphs are validated, built, planned
and executed in that order; tensors have four axes; memory is what the addresses say.
"""

from __future__ import annotations

import ctypes
from enum import Enum
from typing import Any, ClassVar

import numpy as np

from graphflow.ir.types import dtype_named

Array = np.ndarray[Any, Any]


class data_type(Enum):
    HALF, BFLOAT16, FLOAT = "f16", "bf16", "f32"


class diagonal_alignment(Enum):
    TOP_LEFT, BOTTOM_RIGHT = range(2)


class heur_mode(Enum):
    A, B, FALLBACK = range(3)


class cudnnGraphNotSupportedError(Exception):
    """Raised for what there is no engine for."""


class Tensor:
    """A tensor of a graph; setters return the tensor."""

    def __init__(self, dim: list[int], stride: list[int], type: data_type) -> None:
        self.dim, self.stride, self.type, self.is_output = dim, stride, type, False

    def set_output(self, on: bool) -> Tensor:
        self.is_output = on
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.stride = stride
        return self

    def set_data_type(self, type: data_type) -> Tensor:
        self.type = type
        return self

    def at(self, address: int) -> Array:
        """The tensor in memory."""
        dtype = dtype_named(self.type.value).numpy
        assert len(self.dim) == len(self.stride) == 4 and address % 16 == 0
        reach = 1 + sum((n - 1) * s for n, s in zip(self.dim, self.stride, strict=True))
        memory = (ctypes.c_uint8 * (reach * dtype.itemsize)).from_address(address)
        steps = tuple(step * dtype.itemsize for step in self.stride)
        return np.ndarray(tuple(self.dim), dtype, memory, 0, steps)


class pygraph:
    """One operation, its tensors and its state."""

    ORDER = ("validate", "build_operation_graph", "create_execution_plans", "check_support",
             "build_plans")  # fmt: skip
    made: ClassVar[list[pygraph]] = []
    refuse = ""

    def __init__(self, **given: Any) -> None:
        assert given["intermediate_data_type"] is given["compute_data_type"] is data_type.FLOAT
        self.io, self.handle = given["io_data_type"], given["handle"]
        self.done: list[str] = []
        self.options: dict[str, Any] = {}
        self.inputs: dict[str, Tensor] = {}
        self.outputs: list[Tensor] = []
        pygraph.made.append(self)

    def tensor(self, *, name: str, dim: list[int], stride: list[int], data_type: Any) -> Tensor:
        return Tensor(dim, stride, data_type)

    def _operation(self, results: int, options: dict[str, Any], **inputs: Tensor) -> list[Tensor]:
        known = {"name", "attn_scale", "diagonal_alignment", "diagonal_band_right_bound",
                 "generate_stats", "use_deterministic_algorithm"}  # fmt: skip
        assert options.keys() <= known, options
        self.options, self.inputs = options, inputs
        self.outputs = [Tensor([], [], self.io) for _ in range(results)]
        return self.outputs

    def sdpa(self, *, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> list[Tensor]:
        assert options["generate_stats"] is True
        return self._operation(2, options, q=q, k=k, v=v)

    def sdpa_backward(
        self, *, q: Tensor, k: Tensor, v: Tensor, o: Tensor, dO: Tensor, stats: Tensor,
        **options: Any,
    ) -> list[Tensor]:  # fmt: skip
        return self._operation(3, options, q=q, k=k, v=v, o=o, dO=dO, stats=stats)

    def _next(self, name: str) -> None:
        assert name == self.ORDER[len(self.done)], f"{name} after {self.done}"
        self.done.append(name)

    def validate(self) -> None:
        self._next("validate")
        assert all(t.is_output and len(t.dim) == 4 for t in self.outputs)

    def build_operation_graph(self) -> None:
        self._next("build_operation_graph")

    def create_execution_plans(self, modes: list[heur_mode]) -> None:
        self._next("create_execution_plans")
        assert heur_mode.A in modes

    def check_support(self) -> None:
        self._next("check_support")
        if self.refuse:
            raise cudnnGraphNotSupportedError(self.refuse)

    def build_plans(self) -> None:
        self._next("build_plans")

    def get_workspace_size(self) -> int:
        return 1000

    def execute(self, places: dict[Tensor, int], workspace: int, *, handle: Any) -> None:
        assert tuple(self.done) == self.ORDER and handle is self.handle and workspace
        assert {*places} == {*self.inputs.values(), *self.outputs}
        given = {name: t.at(places[t]).astype(np.float64) for name, t in self.inputs.items()}
        results = self._backward(**given) if "dO" in given else self._forward(**given)
        for tensor, result in zip(self.outputs, results, strict=True):
            found = tensor.at(places[tensor])
            assert found.shape == result.shape
            found[...] = result.astype(found.dtype)

    def _scores(self, q: Array, k: Array) -> Array:
        scores = np.einsum("bhie,bhje->bhij", q, k) * self.options["attn_scale"]
        if "diagonal_alignment" in self.options:
            assert self.options["diagonal_alignment"] is diagonal_alignment.TOP_LEFT
            assert self.options["diagonal_band_right_bound"] == 0
            seen = np.tri(*scores.shape[-2:], dtype=np.bool_)
            scores = np.where(seen, scores, -np.inf)
        return scores

    def _forward(self, q: Array, k: Array, v: Array) -> list[Array]:
        scores = self._scores(q, k)
        stats = np.logaddexp.reduce(scores, -1, keepdims=True)
        return [np.exp(scores - stats) @ v, stats]

    def _backward(
        self, q: Array, k: Array, v: Array, o: Array, dO: Array, stats: Array
    ) -> list[Array]:
        p = np.exp(self._scores(q, k) - stats)
        ds = p * (dO @ v.swapaxes(-1, -2) - (dO * o).sum(-1, keepdims=True))
        ds *= self.options["attn_scale"]
        return [ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dO]


handles: list[Any] = []
streams: list[int] = []


def create_handle() -> Any:
    handles.append(object())
    return handles[-1]


def set_stream(*, handle: Any, stream: int) -> None:
    assert handle in handles
    streams.append(stream)


def backend_version() -> int:
    return 91900
