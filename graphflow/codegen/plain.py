"""The kernel vocabulary in plain Python: what a generated kernel means without a compiler.

With ``GRAPHFLOW_DISABLE_JIT=1`` generated kernels run as ordinary Python over
raw memory, so that ``pdb``, ``print`` and coverage work inside them.  When
Numba compiles a kernel, these same functions are the *names* it sees; their
compiled meaning is in :mod:`graphflow.codegen.intrinsics` and
:mod:`graphflow.codegen.pointers`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from graphflow.errors import CompileError

Scalar: TypeAlias = Any  # a NumPy scalar or Python number
Function = TypeVar("Function", bound=Callable[..., None])

KERNEL_ARITY = 3
EPILOGUE_ARITY = 6
ALIGNED_ITEMS = 16  # one cache line of float32
LARGE_SHARE = 1024  # items per thread from which shares are cut at whole cache lines

_CTYPES: dict[str, Any] = {
    "bool": ctypes.c_uint8, "u8": ctypes.c_uint8, "u16": ctypes.c_uint16,
    "u32": ctypes.c_uint32, "u64": ctypes.c_uint64, "i8": ctypes.c_int8,
    "i16": ctypes.c_int16, "i32": ctypes.c_int32, "i64": ctypes.c_int64,
    "f16": ctypes.c_uint16, "bf16": ctypes.c_uint16, "f32": ctypes.c_float,
    "f64": ctypes.c_double,
}  # fmt: skip
ELEMENTS: tuple[str, ...] = tuple(_CTYPES)
"""Short names of the element types a kernel can load and store."""

_KERNEL_ABI = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 2)
_EPILOGUE_ABI = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 5)


def kernel(function: Function) -> Function:
    """Mark the entry of a generated file.  Compiles nothing.

    Three parameters make a kernel ``(args, tid, nth)``, six an epilogue
    ``(args, batch, i0, i1, j0, j1)``.
    """
    arity = function.__code__.co_argcount
    if arity not in (KERNEL_ARITY, EPILOGUE_ARITY):
        raise TypeError(
            f"{function.__name__} has {arity} parameters; a kernel has (args, tid, nth), "
            "an epilogue (args, batch, i0, i1, j0, j1)"
        )
    function.__dict__["__graphflow_kernel__"] = True
    return function


class Arguments:
    """The int64 argument block of a call: ``args[k]`` reads word ``k``."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address

    def __getitem__(self, index: int) -> int:
        return int(ctypes.c_int64.from_address(self.address + 8 * int(index)).value)


class Pointer:
    """Elements at an address: ``p[i]``, ``p[i] = x``, ``p + items``.  Bounds are not known."""

    __slots__ = ("_ctype", "_size", "address", "element")

    def __init__(self, element: str, address: int) -> None:
        self.element, self.address = element, int(address)
        self._ctype = _CTYPES[element]
        self._size = ctypes.sizeof(self._ctype)

    def __repr__(self) -> str:
        return f"<pointer to {self.element} at {self.address:#x}; p[i] is an element>"

    def __add__(self, items: int) -> Pointer:
        return Pointer(self.element, self.address + int(items) * self._size)

    def __getitem__(self, index: int) -> Scalar:
        raw = self._ctype.from_address(self.address + int(index) * self._size).value
        return _from_raw(self.element, raw)

    def __setitem__(self, index: int, value: Scalar) -> None:
        cell = self._ctype.from_address(self.address + int(index) * self._size)
        cell.value = _to_raw(self.element, value)


_NUMPY: dict[str, Any] = {
    "bool": np.bool_, "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "f32": np.float32, "f64": np.float64,
}  # fmt: skip


def _from_raw(element: str, raw: Any) -> Scalar:
    if element == "f16":
        return np.float32(np.uint16(raw).view(np.float16))
    if element == "bf16":
        return np.uint32(raw << 16).view(np.float32)
    return _NUMPY[element](raw)


def _to_raw(element: str, value: Scalar) -> Any:
    if element == "f16":
        return int(np.float16(value).view(np.uint16))
    if element == "bf16":
        return _bfloat_bits(value)
    if element == "bool":
        return int(bool(value))
    return _cast(element, value).item()


def _bfloat_bits(value: Scalar) -> int:
    bits = int(np.float32(value).view(np.uint32))
    if np.isnan(np.float32(value)):
        return (bits >> 16) | 0x40
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


def _cast(element: str, value: Scalar) -> Scalar:
    if element in ("f32", "f64"):
        return _NUMPY[element](value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        whole = int(number) if -(2.0**63) <= number < 2.0**63 else -(2**63)
        if element == "i32" and not -(2**31) <= whole < 2**31:
            whole = -(2**31)
    else:
        whole = int(value)
    bits = 8 * np.dtype(_NUMPY[element]).itemsize
    whole &= (1 << bits) - 1
    if element.startswith("i") and whole >> (bits - 1):
        whole -= 1 << bits
    return _NUMPY[element](whole)


def _pointer_constructor(element: str) -> Callable[[Arguments, int], Pointer]:
    def pointer(args: Arguments, slot: int) -> Pointer:
        return Pointer(element, args[slot])

    pointer.__name__ = pointer.__qualname__ = f"pointer_{element}"
    pointer.__doc__ = f"{element} elements at the address in ``args[slot]`` (``slot`` a literal)."
    return pointer


def _raw_pointer_constructor(element: str) -> Callable[[int], Pointer]:
    def pointer_at(address: int) -> Pointer:
        return Pointer(element, address)

    pointer_at.__name__ = pointer_at.__qualname__ = f"pointer_at_{element}"
    pointer_at.__doc__ = f"{element} elements at ``address``, which may alias anything."
    return pointer_at


POINTERS = {element: _pointer_constructor(element) for element in ELEMENTS}
RAW_POINTERS = {element: _raw_pointer_constructor(element) for element in ELEMENTS}


def _cast_function(element: str) -> Callable[[Scalar], Scalar]:
    def cast(value: Scalar) -> Scalar:
        return _cast(element, value)

    cast.__name__ = cast.__qualname__ = element
    cast.__doc__ = f"``value`` converted to {element}; integers wrap, floats truncate to integers."
    return cast


CASTS = {name: _cast_function(name) for name in _NUMPY if name != "bool"}


def f16(value: Scalar) -> Scalar:
    """``value`` rounded to half precision, held as f32 (kernels compute in f32)."""
    return np.float32(np.float16(value))


def bf16(value: Scalar) -> Scalar:
    """``value`` rounded to bfloat16, held as f32 (kernels compute in f32)."""
    return np.uint32(_bfloat_bits(value) << 16).view(np.float32)


def share(n: int, tid: int, nth: int) -> tuple[int, int]:
    """The part ``begin, end`` of ``range(n)`` that thread ``tid`` of ``nth`` takes.

    Shares differ by at most one item; when they are large they are cut at
    multiples of 16 items, so that two threads do not write one cache line.
    """
    mask = -ALIGNED_ITEMS if n >= LARGE_SHARE * nth else -1
    begin = (n * tid // nth) & mask
    end = n if tid + 1 == nth else (n * (tid + 1) // nth) & mask
    return begin, end


def select(condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """``a`` where ``condition`` holds, else ``b``; both are evaluated."""
    return a if condition else b


def add_fast(a: Scalar, b: Scalar) -> Scalar:
    """``a + b`` that the compiler may regroup (accumulators)."""
    return a + b


def mul_fast(a: Scalar, b: Scalar) -> Scalar:
    """``a * b`` that the compiler may regroup (accumulators)."""
    return a * b


def address_of(block: Arguments | Pointer) -> int:
    """The address an argument block or a pointer stands for."""
    return block.address


def call_kernel(address: int, args_address: int, tid: int, nth: int) -> None:
    """Call the kernel at ``address`` with the argument block at ``args_address``."""
    _KERNEL_ABI(int(address))(int(args_address), int(tid), int(nth))


def call_epilogue(
    address: int, args_address: int, batch: int, i0: int, i1: int, j0: int, j1: int
) -> None:
    """Call the epilogue at ``address`` for the tile ``[i0:i1, j0:j1]`` of ``batch``."""
    _EPILOGUE_ABI(int(address))(int(args_address), *map(int, (batch, i0, i1, j0, j1)))


_MODULE_PREFIX = "graphflow_kernels."
_failures: list[BaseException] = []


class _TextLoader(SourceFileLoader):
    """Imports a kernel file's text: no bytecode is left behind, and a full disk does not matter."""

    def __init__(self, name: str, source: str, path: Path) -> None:
        super().__init__(name, str(path))
        self._source = source

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Nothing to hold bytecode against: there is none, and none is written."""
        raise OSError(f"{path} is text in memory")

    def get_data(self, path: str) -> bytes:
        """The text itself."""
        if path != self.path:
            raise OSError(f"{path} does not exist")
        return self._source.encode()


def load_function(name: str, source: str, path: Path) -> Callable[..., None]:
    """Import kernel file ``path`` holding ``source`` and return its ``@kernel`` entry ``name``.

    Raises :class:`CompileError` when the text fails to import or defines no such kernel.
    """
    module_name = _MODULE_PREFIX + path.stem
    loader = _TextLoader(module_name, source, path)
    spec = importlib.util.spec_from_loader(module_name, loader, origin=str(path))
    if spec is None or spec.loader is None:
        raise CompileError(f"kernel {name}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CompileError(f"kernel {name}: importing {path} failed: {error}") from error
    function = getattr(module, name, None)
    if function is None or not getattr(function, "__graphflow_kernel__", False):
        raise CompileError(f"kernel {name}: {path} has no @kernel function of that name")
    entry: Callable[..., None] = function
    return entry


def raise_failure() -> None:
    """Raise the first exception that plain kernels met since the last call, if any."""
    if _failures:
        failure = _failures[0]
        _failures.clear()
        raise failure


class PlainKernel:
    """A kernel that runs as plain Python behind a C function pointer.

    A C caller cannot receive a Python exception, so it is kept for
    :func:`raise_failure`, which whoever started the call runs afterwards.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        epilogue = function.__code__.co_argcount == EPILOGUE_ARITY
        self._callback = (_EPILOGUE_ABI if epilogue else _KERNEL_ABI)(self._run)

    @property
    def address(self) -> int:
        """Address of the C entry point, valid while this object lives."""
        return int(ctypes.cast(self._callback, ctypes.c_void_p).value or 0)

    def _run(self, args: int, *rest: int) -> None:
        try:
            with np.errstate(all="ignore"):
                self.function(Arguments(args), *rest)
        except BaseException as error:
            _failures.append(error)
