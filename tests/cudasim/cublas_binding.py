"""The calls of cuBLASLt's binding, with the real library as far as it goes without a GPU.

Needs nvmath-python, the library and a C compiler, but no driver: a stand-in for ``libcuda`` is
loaded first, since the binding asks it for its version.  Descriptors, layouts and preferences are
the library's own; handles, the choice of an algorithm and the product itself need a GPU.  Run by
``make test-ptx``, in a process of its own.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphflow.codegen.cuda.matmul import Matmul, Matrix
from graphflow.errors import GraphFlowError
from graphflow.runtime.cuda import cublas

STAND_IN = "int cuDriverGetVersion(int *version) { *version = 13000; return 0; }\n"
PLAIN = Matmul(
    "f32", Matrix("f32", 5, 4, 7, 35), Matrix("f32", 3, 4, 3, 12), Matrix("f32", 5, 3, 5, 15),
    Matrix("f32", 5, 3, 6, 18), False, True, 2, 0.5, 1.0, True, 5, "gelu",
)  # fmt: skip
HALVES = Matmul(
    "f32", Matrix("f16", 4, 5, 4), Matrix("f16", 4, 3, 4), Matrix("f32", 5, 3, 5),
    Matrix("f32", 5, 3, 5), True, False, 1, 1.0, 0.0, False, 0, "",
)  # fmt: skip


@pytest.fixture(scope="module")
def binding(tmp_path_factory: pytest.TempPathFactory) -> cublas.Binding:
    compiler = shutil.which("cc") or shutil.which("gcc")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        if compiler is None:
            pytest.skip("no C compiler for a stand-in for libcuda")
        folder = tmp_path_factory.mktemp("driver")
        (folder / "driver.c").write_text(STAND_IN)
        made = folder / "libcuda.so.1"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(made),
             str(folder / "driver.c")], check=True,
        )  # fmt: skip
        ctypes.CDLL(str(made), ctypes.RTLD_GLOBAL)
    pytest.importorskip("nvmath.bindings.cublasLt")
    return cublas.Binding()


def attribute(binding: cublas.Binding, what: str, record: int, kind: str, name: str) -> int:
    """An attribute read back from the library."""
    number = getattr(getattr(binding.lt, kind), name)
    held = np.zeros(1, getattr(binding.lt, f"get_{what}_attribute_dtype")(number))
    size = np.zeros(1, np.uint64)
    read = getattr(binding.lt, f"{what}_get_attribute")
    read(record, int(number), held.ctypes.data, held.nbytes, size.ctypes.data)
    return int(held[0])


@pytest.mark.parametrize("matmul", [PLAIN, HALVES], ids=["epilogue", "halves"])
def test_descriptions_are_what_was_asked_for(binding: cublas.Binding, matmul: Matmul) -> None:
    record = binding.description(matmul)
    names = ("COMPUTE_TYPE", "SCALE_TYPE", "TRANSA", "TRANSB", "EPILOGUE", "BIAS_BATCH_STRIDE")
    found = [attribute(binding, "matmul_desc", record, "MatmulDescAttribute", n) for n in names]
    epilogue = 36 if matmul.bias else 1  # CUBLASLT_EPILOGUE_GELU_BIAS, CUBLASLT_EPILOGUE_DEFAULT
    assert found == [
        68, 0, int(matmul.transpose_a), int(matmul.transpose_b), epilogue, matmul.bias_step,
    ], "CUBLAS_COMPUTE_32F, CUDA_R_32F"  # fmt: skip
    binding.lt.matmul_desc_destroy(record)


@pytest.mark.parametrize("matmul", [PLAIN, HALVES], ids=["batch", "halves"])
def test_layouts_are_too(binding: cublas.Binding, matmul: Matmul) -> None:
    types = {"f16": 2, "bf16": 14, "f32": 0, "f64": 1}
    names = ("TYPE", "ORDER", "ROWS", "COLS", "LD", "BATCH_COUNT", "STRIDED_BATCH_OFFSET")
    for m in (matmul.a, matmul.b, matmul.c, matmul.d):
        record = binding.layout(m, matmul.batch)
        found = [
            attribute(binding, "matrix_layout", record, "MatrixLayoutAttribute", n) for n in names
        ]
        assert found == [types[m.dtype], 0, m.rows, m.columns, m.leading, matmul.batch, m.step]
        binding.lt.matrix_layout_destroy(record)


def test_preferences(binding: cublas.Binding) -> None:
    record = binding.preference((16, 4, 8, 2, 16))
    names = ["MAX_WORKSPACE_BYTES", *(f"MIN_ALIGNMENT_{x}_BYTES" for x in "ABCD")]
    found = [
        attribute(binding, "matmul_preference", record, "MatmulPreferenceAttribute", n)
        for n in names
    ]
    assert found == [cublas.WORKSPACE, 16, 4, 8, 2]


class WithoutDevice:
    """The binding with a handle, a choice of algorithm and a product that need no GPU."""

    def __init__(self, real: Any) -> None:
        self.real, self.asked, self.made = real, 0, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def create(self) -> int:
        return 7

    def matmul_algo_get_heuristic(self, handle: int, description: int, *rest: int) -> None:
        self.asked += 1
        *layouts, _, wanted, result, count = rest
        assert handle == 7 and wanted == 1 and len(layouts) == 4
        ctypes.c_int32.from_address(count).value = 0 if self.asked > 1 else 1
        ctypes.c_uint64.from_address(result).value = 99  # the first word of the algorithm
        ctypes.c_int32.from_address(result + 72).value = 0  # the state, after algorithm and size

    def matmul(self, *given: int) -> None:
        assert len(given) == 16, "as cublasLtMatmul takes them"
        self.made.append(given)


@pytest.fixture
def library(
    binding: cublas.Binding, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[cublas.CublasLt, WithoutDevice]]:
    lt = WithoutDevice(binding.lt)
    monkeypatch.setattr(cublas, "Block", lambda size, device: SimpleNamespace(address=4096))
    monkeypatch.setattr(cublas, "on", lambda device: nullcontext())
    monkeypatch.setattr(binding, "lt", lt)
    monkeypatch.setattr(cublas, "Binding", lambda: binding)
    yield cublas.CublasLt(0), lt


def test_a_product_is_chosen_once_and_called(
    library: tuple[cublas.CublasLt, WithoutDevice], binding: cublas.Binding
) -> None:
    found, lt = library
    assert found.name.startswith("cuBLASLt 13.")
    start = found.prepared(PLAIN, (16,) * 5)
    assert found.prepared(PLAIN, (16,) * 5) == start and lt.asked == 1
    for _ in range(2):
        start((16, 32, 48, 64, 80), SimpleNamespace(__int__=lambda: 5).__int__())
    assert lt.asked == 1 and len(lt.made) == 2
    handle, record, alpha, a, _, b, _, beta, c, _, d, _, algorithm, room, size, stream = lt.made[0]
    assert (handle, a, b, c, d, room, size, stream) == (7, 16, 32, 48, 64, 4096, 2**25, 5)
    scalars = [ctypes.c_float.from_address(x).value for x in (alpha, beta)]
    assert scalars == [0.5, 1.0] and ctypes.c_uint64.from_address(algorithm).value == 99
    bias = attribute(binding, "matmul_desc", record, "MatmulDescAttribute", "BIAS_POINTER")
    assert bias == 80


def test_a_call_that_fails_says_what_the_library_said(
    library: tuple[cublas.CublasLt, WithoutDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, lt = library
    start = found.prepared(PLAIN, (16,) * 5)
    monkeypatch.setattr(lt, "matmul", lambda *given: lt.check_status(13), raising=False)
    said = r"cuBLASLt 13\..*EXECUTION_FAILED.*\(5 by 3 sums of 4 products, 2 times\)"
    with pytest.raises(GraphFlowError, match=said):
        start((16, 32, 48, 64, 80), 0)


def test_no_algorithm_is_an_error_that_says_so(
    library: tuple[cublas.CublasLt, WithoutDevice],
) -> None:
    found, lt = library
    lt.asked = 1
    for _ in range(2):
        with pytest.raises(GraphFlowError, match=r"cuBLASLt 13\..*NOT_SUPPORTED"):
            found.prepared(HALVES, (16,) * 5)
    assert lt.asked == 2, "it is asked once"


def test_the_real_library_asks_for_a_device(
    binding: cublas.Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphflow.runtime.cuda import library as chosen

    monkeypatch.setattr(cublas, "Block", lambda size, device: SimpleNamespace(address=4096))
    monkeypatch.setattr(cublas, "on", lambda device: nullcontext())
    monkeypatch.setattr(chosen, "missing", lambda: "")
    found = chosen.library.__wrapped__(0)
    assert isinstance(found, cublas.CublasLt) or found.startswith("cuBLASLt does not start")
