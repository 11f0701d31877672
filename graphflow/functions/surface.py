"""What a tensor says about itself, and how it changes hands: memory, dtypes, devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow.cell import Cell
from graphflow.checks import need_dtype, need_tensor
from graphflow.codegen.cuda.toolchain import state
from graphflow.device import devices
from graphflow.dispatch import apply, full
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.formats import Layout, strided
from graphflow.functions import elementwise
from graphflow.functions.shaping import broadcast_to
from graphflow.ir import types as T
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.moves import moved
from graphflow.promotion import as_operand, cast
from graphflow.tensor import Tensor

__all__ = [
    "UntypedStorage", "detach", "detach_", "fill", "get_device", "is_inference", "is_nonzero",
    "is_same_size", "is_signed", "is_storage",
]  # fmt: skip
METHODS = """
apply_ cuda data_ptr dim_order get_device is_inference is_nonzero is_pinned is_same_size is_set_to
is_shared is_signed map_ ndimension new pin_memory record_stream share_memory_
storage_offset to_dense to_numpy type untyped_storage where xpu
""".split()
PROPERTIES = """
__cuda_array_interface__ is_cpu is_cuda is_meta is_mkldnn is_mps is_nested is_quantized is_sparse
is_sparse_csr is_xla is_xpu itemsize layout nbytes output_nr retains_grad
""".split()

_CLASSES: dict[DType, str] = {
    T.float32: "FloatTensor", T.float64: "DoubleTensor", T.float16: "HalfTensor",
    T.bfloat16: "BFloat16Tensor", T.uint8: "ByteTensor", T.int8: "CharTensor",
    T.int16: "ShortTensor", T.int32: "IntTensor", T.int64: "LongTensor", T.bool_: "BoolTensor",
    T.complex64: "ComplexFloatTensor", T.complex128: "ComplexDoubleTensor",
}  # fmt: skip


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like ``input`` with ``value``, a number or a 0-d tensor, everywhere."""
    if isinstance(value, Tensor) and value.ndim:
        raise GraphFlowError(f"fill takes a number or a 0-d tensor, not {list(value.shape)}")
    shape = tuple(need_tensor("fill", input).shape)
    # Through where, so that the gradient of input is 0 and not missing.
    everywhere = full(shape, True, T.bool_)
    return apply("where", everywhere, broadcast_to(as_operand(value, input.dtype), shape), input)


def type(input: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The name of the tensor's type, or the tensor in ``dtype`` (a dtype or such a name).

    That of a type on a CUDA device, "graphflow.cuda.FloatTensor", moves it there.
    """
    if dtype is None:
        return f"graphflow.{'cuda.' if is_cuda(input) else ''}{_CLASSES[input.dtype]}"
    place = getattr(dtype, "place", None)
    dtype = getattr(dtype, "dtype", dtype)  # of a typed constructor
    if isinstance(dtype, str):
        path, _, wanted = dtype.rpartition(".")
        found = [d for d, name in _CLASSES.items() if name == wanted]
        if not found:
            raise DTypeError(f"no tensor type is called {dtype!r}")
        dtype, place = found[0], "cuda" if path.endswith("cuda") else None
    made = cast(input, need_dtype(dtype) or input.dtype)
    return made if place is None else moved(made, place, not non_blocking)


def detach(input: Tensor) -> Tensor:
    """The same memory without history."""
    return need_tensor("detach", input).detach()


def detach_(input: Tensor) -> Tensor:
    """``input``, whose history is forgotten."""
    return need_tensor("detach_", input).detach_()


def is_inference(input: Tensor) -> bool:
    """False: what ``inference_mode`` makes are ordinary tensors without history."""
    return False


def is_storage(obj: Any) -> bool:
    """Whether it is what ``untyped_storage()`` gives."""
    return isinstance(obj, UntypedStorage)


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not 0."""
    return bool(need_tensor("is_nonzero", input))


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return need_tensor("is_signed", input).dtype.is_signed


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have one shape."""
    return input.shape == other.shape


def dim_order(input: Tensor) -> tuple[int, ...]:
    """The dimensions in the order in which they lie in memory, the widest steps first."""
    steps = input.stride()
    return tuple(sorted(range(input.ndim), key=lambda d: -steps[d]))


def record_stream(input: Tensor, stream: Any) -> None:
    """Accepted: all work is done on one stream, in order."""


def ndimension(input: Tensor) -> int:
    """Number of dimensions."""
    return input.ndim


def property_output_nr(input: Tensor) -> int:
    """0: every result has a history of its own."""
    return 0


def new(input: Tensor, *args: Any) -> Tensor:
    """A tensor of the dtype and device of ``input``, of the data given, or of zeros of a size."""
    from graphflow.functions.typed import of_data_or_extents

    return moved(of_data_or_extents("new", input.dtype, args), input.device)


def to_dense(input: Tensor, dtype: DType | None = None, *, masked_grad: Any = None) -> Tensor:
    """``input``, in ``dtype`` if one is given: no tensor is sparse."""
    return input if dtype is None else cast(input, dtype)


def property_retains_grad(input: Tensor) -> bool:
    """Whether ``retain_grad`` was called on this result of an operation."""
    node = input.grad_fn
    return node is not None and node.retain is not None


def where(input: Tensor, condition: Tensor, other: Any) -> Tensor:
    """The tensor where ``condition`` holds, else ``other``."""
    return elementwise.where(condition, input, other)


# ---- memory ------------------------------------------------------------------------------


class UntypedStorage:
    """The memory that a tensor and its views have: where it is and how long, not what is in it."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def data_ptr(self) -> int:
        """The address of its first byte, on the device."""
        start: int = storage_offset(self._tensor) * self._tensor.dtype.itemsize
        return data_ptr(self._tensor) - start

    def nbytes(self) -> int:
        """How many bytes it has."""
        memory: Any = self._tensor._cell.value
        return int(memory.block.nbytes if is_cuda(self._tensor) else memory.nbytes)

    size = __len__ = nbytes

    @property
    def device(self) -> Any:
        """Where it is."""
        return self._tensor.device

    def row(self, dtype: DType) -> Tensor:
        """All of it as a row of ``dtype``."""
        tensor = self._tensor
        whole: Tensor = tensor.__class__._of(tensor._cell)
        row: Tensor = whole.reshape(-1)
        return row if dtype is row.dtype else row.view(dtype)

    def is_shared(self) -> bool:
        """Whether processes share it."""
        return is_shared(self._tensor)

    def __repr__(self) -> str:
        return f"UntypedStorage({self.nbytes()} bytes on {self.device})"


def untyped_storage(input: Tensor) -> UntypedStorage:
    """The memory of the tensor, to be compared with that of others."""
    input._concrete("untyped_storage()")
    return UntypedStorage(input)


def storage_offset(input: Tensor) -> int:
    """Elements between the start of the memory and that of the tensor."""
    placed = mode.tracer is None and is_cuda(input)
    start = input._cell.value.block.address if placed else input._cell.address
    return int(data_ptr(input) - start) // input.dtype.itemsize


def data_ptr(input: Tensor) -> int:
    """The address of the first element, on the device that the tensor is on."""
    if mode.tracer is None and is_cuda(input):
        array: Any = input._eager()
        return int(array.block.address + array.offset)
    return int(input._lent("data_ptr()").__array_interface__["data"][0])


def is_set_to(input: Tensor, tensor: Tensor) -> bool:
    """Whether both show the same elements of the same memory in the same way."""
    same = input.device == tensor.device and data_ptr(input) == data_ptr(tensor)
    return same and input.shape == tensor.shape and input.stride() == tensor.stride()


def is_shared(input: Tensor) -> bool:
    """Whether the memory is one that processes share: that of :func:`share_memory_`."""
    from graphflow import sharing

    return sharing.is_shared(input)


def share_memory_(input: Tensor) -> Tensor:
    """``input``, moved to memory that processes share; its views stay where they were.

    Processes that are forked later, and those that it is sent to by ``multiprocessing``, see
    what is written to it.  Nothing keeps two from writing at once.
    """
    from graphflow import sharing

    return sharing.share(input)


def property_itemsize(input: Tensor) -> int:
    """Bytes an element."""
    return input.dtype.itemsize


def property_nbytes(input: Tensor) -> int:
    """Bytes of all elements."""
    return input.dtype.itemsize * input.shape.numel()


def property_layout(input: Tensor) -> Layout:
    """``gf.strided``."""
    return strided


def to_numpy(input: Tensor) -> np.ndarray[Any, Any]:
    """The data as a NumPy array that shares memory."""
    return input.numpy()


# ---- devices -----------------------------------------------------------------------------


def property_is_cpu(input: Tensor) -> bool:
    """Whether the tensor is on the CPU."""
    return input.device.type == "cpu"


def property___cuda_array_interface__(input: Tensor) -> dict[str, Any]:
    """The memory on a CUDA device, shared; tensors on the CPU have none."""
    array: Any = input._concrete("__cuda_array_interface__") if input.is_cpu else input._eager()
    if isinstance(array, np.ndarray):
        raise AttributeError("a tensor on the CPU has no __cuda_array_interface__")
    if input._requires_grad:
        raise GraphFlowError("a tensor that requires grad does not lend memory; detach() it")
    found: dict[str, Any] = array.__cuda_array_interface__
    return found


def is_cuda(input: Tensor) -> bool:
    """Whether the tensor is on a CUDA device."""
    return input.device.type == "cuda"


property_is_cuda = is_cuda


def cuda(
    input: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None
) -> Tensor:
    """On a CUDA device; an error says what there is where there is none."""
    return moved(input, "cuda" if device is None else device, not non_blocking)


def xpu(input: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """On a device of Intel's; an error says that there is none."""
    return moved(input, "xpu" if device is None else device, not non_blocking)


def pin_memory(input: Tensor, device: Any = None) -> Tensor:
    """A copy in page-locked memory, from which a device can be given it while Python goes on.

    The tensor itself where it is such memory already, or there is no device to copy to.
    Raises for a tensor that is on a device.
    """
    if is_cuda(input):
        raise GraphFlowError(f"pin_memory() of a tensor on {input.device}: only the CPU's can be")
    array = input._concrete("pin_memory()")
    if not state().usable or is_pinned(input):
        return input
    from graphflow.runtime.cuda.pinned import pinned

    devices.used = True
    made: Tensor = Tensor._of(Cell(pinned(array)))
    return made


def is_pinned(input: Tensor) -> bool:
    """Whether the tensor is in page-locked memory, see :meth:`Tensor.pin_memory`."""
    if mode.tracer is not None or not devices.used or not property_is_cpu(input):
        return False
    from graphflow.runtime.cuda import pinned

    return pinned.is_pinned(input._eager())


def get_device(input: Tensor) -> int:
    """The number of the device; -1 for the CPU."""
    index = input.device.index
    return -1 if index is None else index


def _no(input: Tensor) -> bool:
    """False: such tensors do not exist here."""
    return False


property_is_meta = property_is_mps = _no


def property_is_quantized(input: Tensor) -> bool:
    """Whether it is what ``quantize_per_tensor`` or ``quantize_per_channel`` returned."""
    return hasattr(input, "_range")


property_is_sparse = property_is_xpu = property_is_nested = property_is_mkldnn = _no
property_is_sparse_csr = property_is_xla = _no

# ---- Python functions over elements --------------------------------------------------------


def apply_(input: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace every element by ``callable`` of it, one at a time, in Python."""
    return _replace(input, [callable(x) for x in _elements(input, "apply_()")])


def map_(input: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace every element by ``callable`` of it and its partner in ``tensor``."""
    other = broadcast_to(tensor, tuple(input.shape))
    pairs = zip(_elements(input, "map_()"), _elements(other, "map_()"))
    return _replace(input, [callable(a, b) for a, b in pairs])


def _elements(input: Tensor, what: str) -> list[Any]:
    if input.requires_grad:
        raise GraphFlowError(f"{what} does not work on tensors that require grad; detach() first")
    found: list[Any] = input._concrete(what).ravel().tolist()
    return found


def _replace(input: Tensor, values: list[Any]) -> Tensor:
    array = input._eager()
    array[...] = np.array(values, array.dtype).reshape(array.shape)
    input._cell.version += 1
    return input
