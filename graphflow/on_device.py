"""Tensors on a device: operations run eagerly, views, copies, and moves between memories.

An eager operation is a program of one operation, kept by operation, attributes and types.
Operands lie on one device, but for 0-d tensors on the CPU, which go where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from graphflow.codegen.buffers import BufferTable
from graphflow.codegen.cuda.convolution import Convolution
from graphflow.codegen.cuda.lower import CUDA, DETERMINISTIC
from graphflow.codegen.cuda.matmul import Matmul
from graphflow.codegen.layout import Layout, contiguous_in, real_layout, reshaped
from graphflow.codegen.layout import viewed as viewed_layout
from graphflow.codegen.library import Numerics
from graphflow.codegen.lower import lower_group
from graphflow.codegen.schedule import VECTOR_BYTES, Buffer, BufferKind, Schedule
from graphflow.codegen.task import Backend
from graphflow.codegen.units import copy_body
from graphflow.device import device_of
from graphflow.errors import GraphFlowError
from graphflow.ir import build
from graphflow.ir.graph import Graph
from graphflow.ir.node import attrs_key
from graphflow.ir.op import OpDef
from graphflow.ir.types import TensorType, TupleType, from_numpy_dtype
from graphflow.passes.pipeline import PORTABLE, run_pipeline
from graphflow.records import replace
from graphflow.runtime.cuda.current import current
from graphflow.runtime.cuda.launch import CudaProgram
from graphflow.runtime.cuda.library import Wanted
from graphflow.runtime.cuda.memory import DeviceArray

_programs: dict[Any, CudaProgram | None] = {}
_copies: dict[Any, CudaProgram] = {}


def type_of(array: Any) -> TensorType:
    """The type of an array, wherever it lies."""
    return TensorType(from_numpy_dtype(array.dtype), array.shape)


def together(what: str, arrays: Sequence[Any], device: int | None = None) -> list[DeviceArray]:
    """The operands of ``what`` on one device (that of the first, unless one is given).

    Raises :class:`GraphFlowError` if one lies elsewhere, but for 0-d tensors of the CPU.
    """
    if device is None:
        device = next((a.block.device for a in arrays if isinstance(a, DeviceArray)), current())
    found = []
    for array in arrays:
        if isinstance(array, DeviceArray) and array.block.device == device:
            found.append(array)
        elif not isinstance(array, DeviceArray) and array.ndim == 0:
            found.append(DeviceArray.of(array, device))
        else:
            types = ", ".join(f"{type_of(a)} on {device_of(a)}" for a in arrays)
            raise GraphFlowError(
                f"{what} takes tensors that are all on one device, here cuda:{device}, not "
                f"{types}; move them with .to(device)"
            )
    return found


def evaluate(op: OpDef, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """The result of ``op`` on the device: fresh row-major memory (a tuple for several)."""
    operands = [ready(array) for array in together(op.name, arrays)]
    types = [type_of(array) for array in operands]
    device = operands[0].block.device
    key = (op.name, attrs_key(attrs), tuple(types), backend(device), device)
    if key not in _programs:
        _programs[key] = _program(op, types, attrs, device)
    program = _programs[key]
    if program is None:
        with np.errstate(all="ignore"):
            value = op.reference(*(array.numpy() for array in operands), **attrs)
        return tuple(DeviceArray.of(np.asarray(item), device) for item in value)
    made = program.run(operands)[0]
    return shown(program.schedule, 0, operands) if made is None else made


def _program(
    op: OpDef, types: Sequence[TensorType], attrs: dict[str, Any], device: int
) -> CudaProgram | None:
    """The program of one operation; None for one with several results."""
    from graphflow.codegen.build_schedule import build_schedule

    leaves = tuple(build.input_node(f"x{i}", type) for i, type in enumerate(types))
    if isinstance(build.infer_type(op, leaves, attrs), TupleType):
        return None
    graph = Graph(inputs=leaves, outputs=(build.emit(op, *leaves, **attrs),))
    schedule = build_schedule(run_pipeline(graph, PORTABLE)[-1].graph, backend=backend(device))
    return CudaProgram(schedule, device=device, library=wanted())


def wanted() -> Wanted:
    """Which products libraries may compute now, as ``gf.backends`` says."""
    from graphflow.backends import cuda, cudnn

    return Wanted(cuda.library, cudnn.enabled)


def attention_switches() -> tuple[str, str]:
    """Why no library may attend now, and why products and a softmax may not, as ``gf.backends``
    says; each empty if they may."""
    from graphflow.backends import cuda, cudnn

    off = "" if cuda.cudnn_sdp_enabled() else "gf.backends.cuda.enable_cudnn_sdp(False)"
    if not (cuda.library and cudnn.enabled):
        off = f"gf.backends.{'cudnn.enabled' if cuda.library else 'cuda.library'} is off"
    return off, "" if cuda.math_sdp_enabled() else "gf.backends.cuda.enable_math_sdp(False)"


def backend(device: int) -> Backend:
    """How kernels are written now for a device: the switches of ``gf.backends`` say, and
    whether there are libraries."""
    from graphflow.backends import cuda, cudnn

    matmuls, convolutions = (
        not isinstance(wanted().found(device, kind), str) for kind in (Matmul, Convolution)
    )
    numerics = Numerics(
        cuda.matmul.allow_tf32, cudnn.allow_tf32, cuda.deterministic or cudnn.deterministic
    )
    return _backend(cuda.deterministic, matmuls, convolutions, numerics)


@cache
def _backend(deterministic: bool, matmuls: bool, convolutions: bool, numerics: Numerics) -> Backend:
    plain = DETERMINISTIC if deterministic else CUDA
    return replace(plain, matmuls=matmuls, convolutions=convolutions, numerics=numerics)


def shown(schedule: Schedule, position: int, inputs: Sequence[DeviceArray]) -> DeviceArray:
    """A copy of a result that lies in an input."""
    result = schedule.results[position]
    base = inputs[schedule.inputs.index(result.buffer)]
    return copied(part(base, result.type, result.offset, result.strides))


def part(base: DeviceArray, type: TensorType, offset: int, strides: Sequence[int]) -> DeviceArray:
    """A view of ``base``; offset and strides count elements of ``type``."""
    size = type.dtype.itemsize
    return DeviceArray(
        base.block, type.static_shape, type.dtype.numpy, base.offset + offset * size,
        tuple(step * size for step in strides),
    )  # fmt: skip


def viewed(op: OpDef, array: DeviceArray, attrs: dict[str, Any]) -> DeviceArray:
    """View ``op`` of ``array``, over the same memory.

    Where that lies in another order than a reshape shows, it is of a copy, as in NumPy.
    """
    type = type_of(array)
    result = build.infer_type(op, (build.input_node("x", type),), attrs)
    assert isinstance(result, TensorType)
    found = viewed_layout(op, attrs, _layout(0, array, 0), result)
    if found is None and not array.is_contiguous:
        array = copied(array)
        found = viewed_layout(op, attrs, _layout(0, array, 0), result)
    if found is None:
        raise GraphFlowError(f"{op.name} of {type} is no view of the memory it lies in")
    return part(array, result, found.offset, found.strides)


def has_view(array: DeviceArray, shape: tuple[int, ...]) -> bool:
    """Whether strides can show the elements in another shape."""
    type = type_of(array)
    return reshaped(_layout(0, array, 0), TensorType(type.dtype, shape)) is not None


def _layout(buffer: int, array: DeviceArray, offset: int) -> Layout:
    size = array.dtype.itemsize
    return Layout(buffer, type_of(array), offset, tuple(s // size for s in array.strides))


def ready(array: DeviceArray) -> DeviceArray:
    """The array itself if kernels can take it, or a row-major copy that they can."""
    return array if array.is_ready else copied(array)


def copied(array: DeviceArray) -> DeviceArray:
    """A row-major copy in memory of its own."""
    made = DeviceArray.empty(array.shape, array.dtype, array.block.device)
    copy_into(made, array)
    return made


def copy_into(target: Any, source: Any) -> None:
    """``target[...] = source``, between any memories; shapes and dtypes are the same."""
    if not isinstance(target, DeviceArray):
        np.copyto(target, source.numpy())
        return
    device = target.block.device
    if isinstance(source, DeviceArray) and source.block.device != device:
        source = source.numpy()  # from one device to another by way of the CPU
    if not isinstance(source, DeviceArray):
        if target.is_contiguous:
            target.block.write(target.offset, source)
            return
        source = DeviceArray.of(source, device)
    if not target.size:
        return
    lows = [sum(min(0, (n - 1) * s) for n, s in zip(a.shape, a.strides)) for a in (source, target)]
    size = target.dtype.itemsize
    source_layout, target_layout = (
        _layout(number, array, -low // size)
        for number, (array, low) in enumerate(zip((source, target), lows))
    )
    places = [
        DeviceArray(array.block, (), array.dtype, array.offset + low)
        for array, low in zip((source, target), lows)
    ]
    vectors = all((place.block.address + place.offset) % VECTOR_BYTES == 0 for place in places)
    key = (source_layout, target_layout, device, vectors)
    if key not in _copies:
        _copies[key] = _copy_program(*key)
    _copies[key].run(places)


def _copy_program(source: Layout, target: Layout, device: int, vectors: bool) -> CudaProgram:
    table = BufferTable(1, replace(CUDA, vectors=vectors))
    for layout in (source, target):
        table.buffer(BufferKind.INPUT, layout.type)
    body = copy_body(source.type)
    steps = lower_group(body, [real_layout(source)], [real_layout(target)], table)
    buffers: tuple[Buffer, ...] = tuple(table.buffers)
    return CudaProgram(Schedule(buffers, tuple(steps), (0, 1), (), ()), device=device)


def is_dense(array: Any) -> bool:
    """Whether an array, wherever it lies, is row-major."""
    size = array.dtype.itemsize
    return contiguous_in(array.shape, tuple(step // size for step in array.strides))
