"""cuBLASLt through nvmath-python's bindings: a product's descriptors, its algorithm, the call.

Memory is ours: the library gets addresses, and a workspace that is allocated once a device.  All
of our work is on one stream, so that one workspace does.  Calls may be captured in a CUDA graph.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.codegen.cuda.matmul import Matmul, Matrix
from graphflow.codegen.library import GELU, IDENTITY, RELU
from graphflow.errors import GraphFlowError
from graphflow.runtime.cuda.current import on
from graphflow.runtime.cuda.library import BINDING, Launch
from graphflow.runtime.cuda.memory import Block

WORKSPACE = 32 * 2**20
"""Bytes: what NVIDIA advises for sm_90, and more than older devices use."""
MOST_KNOWN = 1024
"""Products of which descriptors are kept; the one used longest ago goes."""
_NAMES = {"f16": "CUDA_R_16F", "bf16": "CUDA_R_16BF", "f32": "CUDA_R_32F", "f64": "CUDA_R_64F"}
_COMPUTE = {"f32": "COMPUTE_32F", "tf32": "COMPUTE_32F_FAST_TF32", "f64": "COMPUTE_64F"}
_EPILOGUES = {
    (IDENTITY, False): "DEFAULT", (IDENTITY, True): "BIAS", (RELU, False): "RELU",
    (RELU, True): "RELU_BIAS", (GELU, False): "GELU", (GELU, True): "GELU_BIAS",
}  # fmt: skip
_SCALARS = {"f32": np.float32, "tf32": np.float32, "f64": np.float64}


class Binding:
    """The modules of nvmath-python that are used; needs the libraries, but no device."""

    def __init__(self) -> None:
        self.lt: Any = importlib.import_module(BINDING)
        self._compute: Any = importlib.import_module("nvmath.bindings.cublas").ComputeType
        self._types: Any = importlib.import_module("nvmath").CudaDataType

    def type(self, short: str) -> int:
        """The number of an element type."""
        return int(getattr(self._types, _NAMES[short]))

    def set(self, what: str, record: int, name: str, value: int) -> None:
        """Set attribute ``name`` of a ``matmul_desc``, ``matrix_layout`` or
        ``matmul_preference``."""
        camel = "".join(part.capitalize() for part in what.split("_"))
        attribute = getattr(getattr(self.lt, f"{camel}Attribute"), name)
        dtype = getattr(self.lt, f"get_{what}_attribute_dtype")(attribute)
        held = np.array([value], dtype)
        setter = getattr(self.lt, f"{what}_set_attribute")
        setter(record, int(attribute), held.ctypes.data, held.nbytes)

    def description(self, matmul: Matmul) -> int:
        """A ``matmul_desc``; the address of its bias is set before each call."""
        compute = getattr(self._compute, _COMPUTE[matmul.compute])
        scale = "f64" if matmul.compute == "f64" else "f32"
        made = self.lt.matmul_desc_create(int(compute), self.type(scale))
        self.set("matmul_desc", made, "TRANSA", int(matmul.transpose_a))
        self.set("matmul_desc", made, "TRANSB", int(matmul.transpose_b))
        epilogue = getattr(self.lt.Epilogue, _EPILOGUES[matmul.activation, matmul.bias])
        self.set("matmul_desc", made, "EPILOGUE", int(epilogue))
        if matmul.bias and matmul.bias_step:
            self.set("matmul_desc", made, "BIAS_BATCH_STRIDE", matmul.bias_step)
        return int(made)

    def layout(self, matrix: Matrix, batch: int) -> int:
        """A ``matrix_layout``."""
        made = self.lt.matrix_layout_create(
            self.type(matrix.dtype), matrix.rows, matrix.columns, matrix.leading
        )
        if batch != 1:
            self.set("matrix_layout", made, "BATCH_COUNT", batch)
            self.set("matrix_layout", made, "STRIDED_BATCH_OFFSET", matrix.step)
        return int(made)

    def preference(self, alignments: Sequence[int]) -> int:
        """A ``matmul_preference`` for operands so aligned."""
        made = self.lt.matmul_preference_create()
        self.set("matmul_preference", made, "MAX_WORKSPACE_BYTES", WORKSPACE)
        for name, bytes_ in zip("ABCD", alignments):
            self.set("matmul_preference", made, f"MIN_ALIGNMENT_{name}_BYTES", bytes_)
        return int(made)


class CublasLt:
    """cuBLASLt on one device: a handle, a workspace, and the products asked for so far."""

    def __init__(self, device: int) -> None:
        self.device, self._binding = device, Binding()
        self._lock = threading.Lock()
        self._known: dict[tuple[Matmul, tuple[int, ...]], _Product | str] = {}
        self._workspace = Block(WORKSPACE, device)
        with on(device):
            self._handle = self._binding.lt.create()
            version = self._binding.lt.get_version()
        self.name = f"cuBLASLt {version // 10000}.{version // 100 % 100}.{version % 100}"

    def prepared(self, matmul: Matmul, alignments: tuple[int, ...]) -> Launch:
        """See :class:`~graphflow.runtime.cuda.library.Library`."""
        key = matmul, alignments
        with self._lock:
            found = self._known.pop(key, None) or self._product(matmul, alignments)
            self._known[key] = found
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        if isinstance(found, str):
            raise GraphFlowError(found)
        return found.start

    def _product(self, matmul: Matmul, alignments: tuple[int, ...]) -> _Product | str:
        try:
            with on(self.device):
                return _Product(self, matmul, alignments)
        except self._binding.lt.cuBLASLtError as error:
            return self._said(error, matmul)

    def algorithm(self, product: _Product, preference: int) -> Any:
        """The library's first choice for a product; raises its error if it has none."""
        lt, count = self._binding.lt, np.zeros(1, np.int32)
        result = lt.MatmulHeuristicResult(1)
        a, b, c, d = product.layouts
        lt.matmul_algo_get_heuristic(
            self._handle, product.description, a, b, c, d, preference, 1, result.ptr,
            count.ctypes.data,
        )  # fmt: skip
        status = int(result.state) if count[0] else _NOT_SUPPORTED
        if status:
            lt.check_status(status)
        return result

    def start(self, product: _Product, addresses: Sequence[int], stream: Any) -> None:
        """Start a product on a stream.

        Raises :class:`GraphFlowError` with what the library says if it cannot.
        """
        try:
            with self._lock, on(self.device):
                self._start(product, addresses, stream)
        except self._binding.lt.cuBLASLtError as error:
            raise GraphFlowError(self._said(error, product.matmul)) from error

    def _said(self, error: Exception, matmul: Matmul) -> str:
        rows, columns = matmul.d.rows, matmul.d.columns
        shape = f"{rows} by {columns} sums of {matmul.depth} products, {matmul.batch} times"
        return f"{self.name}: {' '.join(str(error).split())} ({shape})"

    def _start(self, product: _Product, addresses: Sequence[int], stream: Any) -> None:
        a, b, c, d, bias = addresses
        lt, layouts = self._binding.lt, product.layouts
        if product.matmul.bias:  # which is read here, when the call is made
            self._binding.set("matmul_desc", product.description, "BIAS_POINTER", bias)
        lt.matmul(
            self._handle, product.description, product.scalars.ctypes.data, a, layouts[0],
            b, layouts[1], product.scalars.ctypes.data + product.scalars.itemsize, c,
            layouts[2], d, layouts[3], product.algorithm.ptr, self._workspace.address,
            WORKSPACE, int(stream),
        )  # fmt: skip


_NOT_SUPPORTED = 15
"""``CUBLAS_STATUS_NOT_SUPPORTED``."""


class _Product:
    """A product's descriptors and algorithm, destroyed with the last reference."""

    def __init__(self, library: CublasLt, matmul: Matmul, alignments: tuple[int, ...]) -> None:
        binding = library._binding
        self.matmul, self._library = matmul, library
        self.scalars = np.array([matmul.alpha, matmul.beta], _SCALARS[matmul.compute])
        self.description = binding.description(matmul)
        self.layouts = [
            binding.layout(matrix, matmul.batch)
            for matrix in (matmul.a, matmul.b, matmul.c, matmul.d)
        ]
        preference = binding.preference(alignments)
        try:
            if matmul.bias:
                binding.set(
                    "matmul_desc", self.description, "BIAS_POINTER", library._workspace.address
                )
            self.algorithm = library.algorithm(self, preference)
        finally:
            binding.lt.matmul_preference_destroy(preference)
        weakref.finalize(
            self, _destroyed, binding.lt, self.description, self.layouts
        ).atexit = False

    def start(self, addresses: Sequence[int], stream: Any) -> None:
        """Start it."""
        self._library.start(self, addresses, stream)


def _destroyed(lt: Any, description: int, layouts: Sequence[int]) -> None:
    lt.matmul_desc_destroy(description)
    for layout in layouts:
        lt.matrix_layout_destroy(layout)
