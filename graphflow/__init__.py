"""GraphFlow: a deep-learning framework in pure Python whose compiler is Numba.

PyTorch's names, plus ``gf.compile``, ``gf.trace`` and the graphs in between.
"""

from math import e, inf, nan, pi
from typing import TYPE_CHECKING

import graphflow.begin as _begin  # imports most of what follows
from graphflow import autograd, nn, optim
from graphflow import ops as _ops
from graphflow.api import compile, grad, trace, value_and_grad
from graphflow.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphflow.device import Device, device
from graphflow.errors import (
    CacheWarning,
    CompileError,
    DTypeError,
    GraphError,
    GraphFlowError,
    NonFiniteError,
    ShapeError,
    TraceError,
)
from graphflow.formats import Layout as layout
from graphflow.formats import MemoryFormat as memory_format
from graphflow.formats import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    preserve_format,
    strided,
)
from graphflow.ir.graph import Graph
from graphflow.ir.types import DType as dtype
from graphflow.ir.types import (
    bfloat16,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from graphflow.ir.types import bool_ as bool
from graphflow.later import importer
from graphflow.ops import *
from graphflow.program import Program
from graphflow.promotion import (
    get_default_dtype,
    promote_types,
    result_type,
    set_default_dtype,
)
from graphflow.rng import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from graphflow.runtime.threads import get_num_threads, set_num_threads
from graphflow.specs import TensorSpec, static
from graphflow.tensor import Size, Tensor
from graphflow.version import __version__

qint8, quint8 = int8, uint8
double, float, half, int, long, short = float64, float32, float16, int32, int64, int16
cfloat, cdouble = complex64, complex128
newaxis = None

# Not needed to train a model: imported when first asked for, so that start-up stays short.
if TYPE_CHECKING:
    from graphflow import (
        accelerator,
        amp,
        ao,
        backends,
        cuda,
        distributed,
        distributions,
        fft,
        func,
        hub,
        jit,
        linalg,
        onnx,
        primitives,
        profiler,
        quantization,
        random,
        serialization,
        special,
        training,
        types,
        utils,
        vision,
    )
    from graphflow.amp.autocast_mode import (
        autocast,
        clear_autocast_cache,
        get_autocast_dtype,
        is_autocast_cache_enabled,
        is_autocast_enabled,
        set_autocast_cache_enabled,
        set_autocast_dtype,
    )
    from graphflow.comparison import Comparison, benchmark
    from graphflow.debugging.effects import breakpoint as breakpoint
    from graphflow.debugging.effects import callback
    from graphflow.debugging.effects import print as print
    from graphflow.debugging.nonfinite import nan_guard
    from graphflow.debugging.verification import verify
    from graphflow.frozen import load_program
    from graphflow.func import vmap
    from graphflow.number_formats import can_cast, finfo, iinfo
    from graphflow.numerics import (
        are_deterministic_algorithms_enabled,
        get_float32_matmul_precision,
        is_deterministic_algorithms_warn_only_enabled,
        set_float32_matmul_precision,
        use_deterministic_algorithms,
    )
    from graphflow.outer_names import *
    from graphflow.printing import set_printoptions
    from graphflow.profiling.record import profile
    from graphflow.quantization.schemes import (
        per_channel_affine,
        per_channel_affine_float_qparams,
        per_channel_symmetric,
        per_tensor_affine,
        per_tensor_symmetric,
    )
    from graphflow.serialization import load, save
else:

    def _outer(name):
        import graphflow.outer_names as outer_names

        return outer_names.find(name)

    __getattr__ = importer(
        globals(),
        {
            "amp": "graphflow.amp",
            "autocast": "graphflow.amp.autocast_mode:autocast",
            "clear_autocast_cache": "graphflow.amp.autocast_mode:clear_autocast_cache",
            "get_autocast_dtype": "graphflow.amp.autocast_mode:get_autocast_dtype",
            "is_autocast_cache_enabled": "graphflow.amp.autocast_mode:is_autocast_cache_enabled",
            "is_autocast_enabled": "graphflow.amp.autocast_mode:is_autocast_enabled",
            "set_autocast_cache_enabled": "graphflow.amp.autocast_mode:set_autocast_cache_enabled",
            "set_autocast_dtype": "graphflow.amp.autocast_mode:set_autocast_dtype",
            "benchmark": "graphflow.comparison:benchmark",
            "Comparison": "graphflow.comparison:Comparison",
            "fft": "graphflow.fft",
            "func": "graphflow.func",
            "vmap": "graphflow.func:vmap",
            "hub": "graphflow.hub",
            "jit": "graphflow.jit",
            "linalg": "graphflow.linalg",
            "load_program": "graphflow.frozen:load_program",
            "load": "graphflow.serialization:load",
            "save": "graphflow.serialization:save",
            "serialization": "graphflow.serialization",
            "set_printoptions": "graphflow.printing:set_printoptions",
            "accelerator": "graphflow.accelerator",
            "backends": "graphflow.backends",
            "breakpoint": "graphflow.debugging.effects:breakpoint",
            "callback": "graphflow.debugging.effects:callback",
            "can_cast": "graphflow.number_formats:can_cast",
            "cuda": "graphflow.cuda",
            "distributed": "graphflow.distributed",
            "distributions": "graphflow.distributions",
            "nan_guard": "graphflow.debugging.nonfinite:nan_guard",
            "onnx": "graphflow.onnx",
            "primitives": "graphflow.primitives",
            "print": "graphflow.debugging.effects:print",
            "profile": "graphflow.profiling.record:profile",
            "profiler": "graphflow.profiler",
            "quantization": "graphflow.quantization",
            "ao": "graphflow.ao",
            "random": "graphflow.random",
            "finfo": "graphflow.number_formats:finfo",
            "iinfo": "graphflow.number_formats:iinfo",
            "special": "graphflow.special",
            "training": "graphflow.training",
            "types": "graphflow.types",
            "utils": "graphflow.utils",
            "verify": "graphflow.debugging.verification:verify",
            "vision": "graphflow.vision",
            **{
                name: f"graphflow.quantization.schemes:{name}"
                for name in (
                    "per_channel_affine",
                    "per_channel_affine_float_qparams",
                    "per_channel_symmetric",
                    "per_tensor_affine",
                    "per_tensor_symmetric",
                )
            },
            **{
                name: f"graphflow.numerics:{name}"
                for name in (
                    "are_deterministic_algorithms_enabled",
                    "get_float32_matmul_precision",
                    "is_deterministic_algorithms_warn_only_enabled",
                    "set_float32_matmul_precision",
                    "use_deterministic_algorithms",
                )
            },
        },
        _outer,
    )


__all__ = [
    "CacheWarning",
    "Comparison",
    "CompileError",
    "DTypeError",
    "Device",
    "Generator",
    "Graph",
    "GraphError",
    "GraphFlowError",
    "NonFiniteError",
    "Program",
    "ShapeError",
    "Size",
    "Tensor",
    "TensorSpec",
    "TraceError",
    "__version__",
    "accelerator",
    "amp",
    "ao",
    "are_deterministic_algorithms_enabled",
    "autocast",
    "autograd",
    "backends",
    "benchmark",
    "bfloat16",
    "bool",
    "callback",
    "can_cast",
    "cdouble",
    "cfloat",
    "channels_last",
    "channels_last_3d",
    "clear_autocast_cache",
    "compile",
    "complex64",
    "complex128",
    "contiguous_format",
    "cuda",
    "default_generator",
    "device",
    "distributed",
    "distributions",
    "double",
    "dtype",
    "e",
    "enable_grad",
    "fft",
    "finfo",
    "float",
    "float16",
    "float32",
    "float64",
    "func",
    "get_autocast_dtype",
    "get_default_dtype",
    "get_float32_matmul_precision",
    "get_num_threads",
    "get_rng_state",
    "grad",
    "half",
    "hub",
    "iinfo",
    "inf",
    "inference_mode",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
    "is_deterministic_algorithms_warn_only_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "jit",
    "layout",
    "linalg",
    "load",
    "load_program",
    "long",
    "manual_seed",
    "memory_format",
    "nan",
    "nan_guard",
    "nn",
    "no_grad",
    "onnx",
    "optim",
    "per_channel_affine",
    "per_channel_affine_float_qparams",
    "per_channel_symmetric",
    "per_tensor_affine",
    "per_tensor_symmetric",
    "pi",
    "preserve_format",
    "primitives",
    "profile",
    "profiler",
    "promote_types",
    "qint8",
    "quantization",
    "quint8",
    "random",
    "result_type",
    "save",
    "seed",
    "serialization",
    "set_autocast_cache_enabled",
    "set_autocast_dtype",
    "set_default_dtype",
    "set_float32_matmul_precision",
    "set_grad_enabled",
    "set_num_threads",
    "set_printoptions",
    "set_rng_state",
    "short",
    "special",
    "static",
    "strided",
    "trace",
    "training",
    "types",
    "uint8",
    "use_deterministic_algorithms",
    "utils",
    "value_and_grad",
    "verify",
    "vision",
    "vmap",
]  # fmt: skip
if not TYPE_CHECKING:
    __all__ += _ops.__all__
