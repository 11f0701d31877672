"""Names of ``gf`` itself that few programs use, and where what they name is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from graphflow import ops
from graphflow.tensor import Tensor

if TYPE_CHECKING:  # what type checkers find in gf
    from graphflow import compiler as compiler
    from graphflow import cpu as cpu
    from graphflow import mps as mps
    from graphflow import multiprocessing as multiprocessing
    from graphflow import overrides as overrides
    from graphflow import signal as signal
    from graphflow import testing as testing
    from graphflow import xpu as xpu
    from graphflow.accelerator import get_device_module as get_device_module
    from graphflow.amp.grad_scaler import GradScaler as GradScaler
    from graphflow.autograd.anomaly import is_anomaly_enabled as is_anomaly_enabled
    from graphflow.autograd.anomaly import set_anomaly_enabled as set_anomaly_enabled
    from graphflow.device import get_default_device as get_default_device
    from graphflow.device import set_default_device as set_default_device
    from graphflow.errors import OutOfMemoryError as OutOfMemoryError
    from graphflow.formats import sparse_coo as sparse_coo
    from graphflow.formats import sparse_csr as sparse_csr
    from graphflow.functions.typed import set_default_tensor_type as set_default_tensor_type
    from graphflow.functions.typed import typename as typename
    from graphflow.nn.functional import adaptive_avg_pool1d as adaptive_avg_pool1d
    from graphflow.nn.functional import avg_pool1d as avg_pool1d
    from graphflow.nn.functional import bilinear as bilinear
    from graphflow.nn.functional import celu as celu
    from graphflow.nn.functional import celu_ as celu_
    from graphflow.nn.functional import conv1d as conv1d
    from graphflow.nn.functional import conv2d as conv2d
    from graphflow.nn.functional import conv3d as conv3d
    from graphflow.nn.functional import conv_tbc as conv_tbc
    from graphflow.nn.functional import conv_transpose1d as conv_transpose1d
    from graphflow.nn.functional import conv_transpose2d as conv_transpose2d
    from graphflow.nn.functional import conv_transpose3d as conv_transpose3d
    from graphflow.nn.functional import hardshrink as hardshrink
    from graphflow.nn.functional import max_pool1d as max_pool1d
    from graphflow.nn.functional import max_pool2d as max_pool2d
    from graphflow.nn.functional import max_pool3d as max_pool3d
    from graphflow.nn.functional import prelu as prelu
    from graphflow.nn.functional import rms_norm as rms_norm
    from graphflow.nn.functional import rrelu as rrelu
    from graphflow.nn.functional import rrelu_ as rrelu_
    from graphflow.nn.functional import selu as selu
    from graphflow.nn.functional import selu_ as selu_
    from graphflow.nn.functional import threshold as threshold
    from graphflow.nn.functional import threshold_ as threshold_
    from graphflow.nn.outer import adaptive_max_pool1d as adaptive_max_pool1d
    from graphflow.nn.outer import alpha_dropout as alpha_dropout
    from graphflow.nn.outer import alpha_dropout_ as alpha_dropout_
    from graphflow.nn.outer import batch_norm as batch_norm
    from graphflow.nn.outer import (
        binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
    )
    from graphflow.nn.outer import cosine_embedding_loss as cosine_embedding_loss
    from graphflow.nn.outer import ctc_loss as ctc_loss
    from graphflow.nn.outer import dropout as dropout
    from graphflow.nn.outer import dropout_ as dropout_
    from graphflow.nn.outer import embedding as embedding
    from graphflow.nn.outer import feature_alpha_dropout as feature_alpha_dropout
    from graphflow.nn.outer import feature_alpha_dropout_ as feature_alpha_dropout_
    from graphflow.nn.outer import feature_dropout as feature_dropout
    from graphflow.nn.outer import feature_dropout_ as feature_dropout_
    from graphflow.nn.outer import group_norm as group_norm
    from graphflow.nn.outer import hinge_embedding_loss as hinge_embedding_loss
    from graphflow.nn.outer import instance_norm as instance_norm
    from graphflow.nn.outer import kl_div as kl_div
    from graphflow.nn.outer import layer_norm as layer_norm
    from graphflow.nn.outer import margin_ranking_loss as margin_ranking_loss
    from graphflow.nn.outer import max_pool1d_with_indices as max_pool1d_with_indices
    from graphflow.nn.outer import poisson_nll_loss as poisson_nll_loss
    from graphflow.nn.outer import triplet_margin_loss as triplet_margin_loss
    from graphflow.numerics import get_deterministic_debug_mode as get_deterministic_debug_mode
    from graphflow.numerics import get_num_interop_threads as get_num_interop_threads
    from graphflow.numerics import is_warn_always_enabled as is_warn_always_enabled
    from graphflow.numerics import set_deterministic_debug_mode as set_deterministic_debug_mode
    from graphflow.numerics import set_flush_denormal as set_flush_denormal
    from graphflow.numerics import set_num_interop_threads as set_num_interop_threads
    from graphflow.numerics import set_warn_always as set_warn_always

InPlace: TypeAlias = Callable[..., Tensor]
"""The method of that name, as a function: it writes to its first argument."""
abs_: InPlace
acos_: InPlace
acosh_: InPlace
addmv_: InPlace
arccos_: InPlace
arccosh_: InPlace
arcsin_: InPlace
arcsinh_: InPlace
arctan_: InPlace
arctanh_: InPlace
asin_: InPlace
asinh_: InPlace
atan_: InPlace
atanh_: InPlace
ceil_: InPlace
clamp_: InPlace
clamp_max_: InPlace
clamp_min_: InPlace
clip_: InPlace
conj_physical_: InPlace
cos_: InPlace
cosh_: InPlace
deg2rad_: InPlace
detach_: InPlace
erf_: InPlace
erfc_: InPlace
exp2_: InPlace
exp_: InPlace
expm1_: InPlace
fill_: InPlace
fix_: InPlace
floor_: InPlace
frac_: InPlace
gcd_: InPlace
i0_: InPlace
index_put_: InPlace
lcm_: InPlace
ldexp_: InPlace
log10_: InPlace
log1p_: InPlace
log2_: InPlace
log_: InPlace
logit_: InPlace
nan_to_num_: InPlace
neg_: InPlace
negative_: InPlace
rad2deg_: InPlace
reciprocal_: InPlace
relu_: InPlace
round_: InPlace
rsqrt_: InPlace
sigmoid_: InPlace
sin_: InPlace
sinc_: InPlace
sinh_: InPlace
sqrt_: InPlace
square_: InPlace
tan_: InPlace
tanh_: InPlace
trunc_: InPlace
xlogy_: InPlace
zero_: InPlace
_IN_PLACE = frozenset(__annotations__) - {"InPlace"}

_LIKE_FUNCTIONAL = """
adaptive_avg_pool1d avg_pool1d bilinear celu celu_ conv1d conv2d conv3d conv_tbc
conv_transpose1d conv_transpose2d conv_transpose3d hardshrink max_pool1d max_pool2d max_pool3d prelu
rms_norm rrelu rrelu_ selu selu_ threshold threshold_
"""
_UNLIKE_FUNCTIONAL = """
adaptive_max_pool1d alpha_dropout alpha_dropout_ batch_norm binary_cross_entropy_with_logits
cosine_embedding_loss ctc_loss dropout dropout_ embedding feature_alpha_dropout
feature_alpha_dropout_ feature_dropout feature_dropout_ group_norm hinge_embedding_loss
instance_norm kl_div layer_norm margin_ranking_loss max_pool1d_with_indices poisson_nll_loss
triplet_margin_loss
"""
_SWITCHES = """
get_deterministic_debug_mode get_num_interop_threads is_warn_always_enabled
set_deterministic_debug_mode set_flush_denormal set_num_interop_threads set_warn_always
"""
_MODULES = "compiler cpu mps multiprocessing overrides signal testing xpu"

PLACES = {
    **dict.fromkeys(_LIKE_FUNCTIONAL.split(), "graphflow.nn.functional"),
    **dict.fromkeys(_UNLIKE_FUNCTIONAL.split(), "graphflow.nn.outer"),
    **dict.fromkeys(_SWITCHES.split(), "graphflow.numerics"),
    "GradScaler": "graphflow.amp.grad_scaler",
    "OutOfMemoryError": "graphflow.errors",
    "typename": "graphflow.functions.typed",
    "get_default_device": "graphflow.device",
    "get_device_module": "graphflow.accelerator",
    "is_anomaly_enabled": "graphflow.autograd.anomaly",
    "set_anomaly_enabled": "graphflow.autograd.anomaly",
    "set_default_device": "graphflow.device",
    "sparse_coo": "graphflow.formats",
    "sparse_csr": "graphflow.formats",
    "set_default_tensor_type": "graphflow.functions.typed",
}
"""The module that each name is in."""


def find(name: str) -> Any:
    """What ``gf.<name>`` is; AttributeError if there is no such thing."""
    if name in _MODULES.split():
        return import_module(f"graphflow.{name}")
    if name in PLACES:
        return getattr(import_module(PLACES[name]), name)
    if name in _IN_PLACE:
        return getattr(Tensor, name)
    if name.startswith("_foreach_"):
        return import_module("graphflow.foreach").find(name)
    return ops.find(name)
