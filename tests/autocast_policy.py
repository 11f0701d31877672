"""What autocast makes of functions: PyTorch's table for CUDA, ``ATen/autocast_mode.h`` of 2.13.

Every entry is a call on operands that a :class:`Operands` makes, on the device in question.
Left out are recurrent cells (``docs/differences.md``) and what there is no function for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import graphflow as gf
import graphflow.nn.functional as F

Call = Callable[["Operands"], gf.Tensor]


class Operands:
    """Operands on a device: ``f`` of float32, ``h`` of ``half``, ``i`` integers."""

    def __init__(self, device: str, half: gf.dtype) -> None:
        self.device, self.half = device, half
        self.rng = np.random.default_rng(0)

    def f(self, *shape: int) -> gf.Tensor:
        """Numbers between 0.1 and 0.9: every function is defined there."""
        return gf.tensor(self.rng.uniform(0.1, 0.9, shape).astype(np.float32)).to(self.device)

    def h(self, *shape: int) -> gf.Tensor:
        """The same in ``half``."""
        return self.f(*shape).to(self.half)

    def i(self, *values: int) -> gf.Tensor:
        """These integers."""
        return gf.tensor(values).to(self.device)


def attention(o: Operands) -> gf.Tensor:
    return F.scaled_dot_product_attention(o.f(1, 3, 4), o.f(1, 3, 4), o.f(1, 3, 4))


def baddbmm(o: Operands) -> gf.Tensor:
    return gf.baddbmm(o.f(2, 3, 5), o.f(2, 3, 4), o.f(2, 4, 5))


LOWER: dict[str, Call] = {
    "conv1d": lambda o: F.conv1d(o.f(1, 2, 5), o.f(3, 2, 3)),
    "conv2d": lambda o: F.conv2d(o.h(1, 2, 5, 5), o.f(3, 2, 3, 3), o.f(3)),
    "conv3d": lambda o: F.conv3d(o.f(1, 1, 3, 3, 3), o.f(1, 1, 2, 2, 2)),
    "conv_transpose1d": lambda o: F.conv_transpose1d(o.f(1, 2, 5), o.f(2, 3, 3)),
    "conv_transpose2d": lambda o: F.conv_transpose2d(o.f(1, 2, 4, 4), o.f(2, 3, 3, 3)),
    "prelu": lambda o: F.prelu(o.f(2, 3), o.f(3)),
    "addmm": lambda o: gf.addmm(o.f(3), o.f(2, 4), o.h(4, 3)),
    "addmv": lambda o: gf.addmv(o.f(2), o.f(2, 3), o.f(3)),
    "addr": lambda o: gf.addr(o.f(2, 3), o.f(2), o.f(3)),
    "matmul": lambda o: o.f(4, 3) @ o.h(3, 2),
    "einsum": lambda o: gf.einsum("ab,bc->ac", o.f(2, 3), o.h(3, 2)),
    "mm": lambda o: gf.mm(o.f(2, 3), o.f(3, 2)),
    "mv": lambda o: gf.mv(o.f(2, 3), o.f(3)),
    "linalg.vecdot": lambda o: gf.linalg.vecdot(o.f(2, 3), o.f(2, 3)),
    "linear": lambda o: F.linear(o.h(2, 3), o.f(4, 3), o.f(4)),
    "addbmm": lambda o: gf.addbmm(o.f(3, 5), o.f(2, 3, 4), o.f(2, 4, 5)),
    "baddbmm": baddbmm,
    "bmm": lambda o: gf.bmm(o.f(2, 3, 4), o.f(2, 4, 5)),
    "chain_matmul": lambda o: gf.chain_matmul(o.f(2, 3), o.f(3, 2)),
    "linalg.multi_dot": lambda o: gf.linalg.multi_dot([o.f(2, 3), o.f(3, 2), o.f(2, 2)]),
    "attention": attention,
}


def _of(name: str) -> Call:
    return lambda o: getattr(gf, name)(o.h(2, 3))


_ELEMENTWISE = """
acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan sum prod
""".split()


def _resized(mode: str, *shape: int) -> Call:
    return lambda o: F.interpolate(o.h(1, 1, *shape), scale_factor=2, mode=mode)


FLOAT32: dict[str, Call] = {
    **{name: _of(name) for name in _ELEMENTWISE},
    "pow": lambda o: o.h(2, 3) ** 2,
    "pow of two tensors": lambda o: o.h(2) ** o.h(2),
    "pow of a number": lambda o: 2 ** o.h(2),
    "softplus": lambda o: F.softplus(o.h(3)),
    "layer_norm": lambda o: F.layer_norm(o.h(2, 3), (3,), o.f(3), o.f(3)),
    "rms_norm": lambda o: F.rms_norm(o.h(2, 3), (3,)),
    "group_norm": lambda o: F.group_norm(o.h(2, 4), 2),
    "norm": lambda o: o.h(3).norm(),
    "norm fro": lambda o: gf.norm(o.h(2, 3), "fro"),
    "norm nuc": lambda o: gf.norm(o.h(2, 3), "nuc"),
    "cosine_similarity": lambda o: F.cosine_similarity(o.h(2, 3), o.h(2, 3)),
    "poisson_nll_loss": lambda o: F.poisson_nll_loss(o.h(3), o.h(3)),
    "cosine_embedding_loss": lambda o: F.cosine_embedding_loss(o.h(2, 3), o.h(2, 3), o.i(1, -1)),
    "nll_loss": lambda o: F.nll_loss(o.h(2, 3), o.i(0, 1)),
    "nll_loss2d": lambda o: F.nll_loss(o.h(1, 2, 1, 2), o.i(0, 1).reshape(1, 1, 2)),
    "cross_entropy": lambda o: F.cross_entropy(o.h(2, 3), o.i(0, 1)),
    "hinge_embedding_loss": lambda o: F.hinge_embedding_loss(o.h(2), o.i(1, -1)),
    "kl_div": lambda o: F.kl_div(o.h(2, 3), o.h(2, 3), reduction="batchmean"),
    "l1_loss": lambda o: F.l1_loss(o.h(2), o.h(2)),
    "smooth_l1_loss": lambda o: F.smooth_l1_loss(o.h(2), o.h(2)),
    "huber_loss": lambda o: F.huber_loss(o.h(2), o.h(2)),
    "mse_loss": lambda o: F.mse_loss(o.h(2), o.f(2)),
    "margin_ranking_loss": lambda o: F.margin_ranking_loss(o.h(2), o.h(2), o.i(1, -1)),
    "multilabel_margin_loss": lambda o: F.multilabel_margin_loss(o.h(2), o.i(0, -1)),
    "soft_margin_loss": lambda o: F.soft_margin_loss(o.h(2), o.i(1, -1)),
    "triplet_margin_loss": lambda o: F.triplet_margin_loss(o.h(2, 3), o.h(2, 3), o.h(2, 3)),
    "multi_margin_loss": lambda o: F.multi_margin_loss(o.h(2, 3), o.i(0, 1)),
    "bce with logits": lambda o: F.binary_cross_entropy_with_logits(o.h(2), o.h(2)),
    "dist": lambda o: gf.dist(o.h(2), o.h(2)),
    "pdist": lambda o: gf.pdist(o.h(3, 2)),
    "cdist": lambda o: gf.cdist(o.h(3, 2), o.h(2, 2)),
    "renorm": lambda o: gf.renorm(o.h(3, 2), 2, 0, 1.0),
    "logsumexp": lambda o: gf.logsumexp(o.h(2, 3), 1),
    "nearest": _resized("nearest", 3),
    "nearest-exact": _resized("nearest-exact", 3, 2),
    "linear": _resized("linear", 3),
    "bilinear": _resized("bilinear", 3, 2),
    "bicubic": _resized("bicubic", 3, 2),
    "trilinear": _resized("trilinear", 3, 2, 2),
    "softmax": lambda o: F.softmax(o.h(3), 0),
    "log_softmax": lambda o: o.h(3).log_softmax(0),
    "cumprod": lambda o: o.h(3).cumprod(0),
    "cumsum": lambda o: o.h(3).cumsum(0),
    "linalg.vector_norm": lambda o: gf.linalg.vector_norm(o.h(3)),
    "linalg.matrix_norm": lambda o: gf.linalg.matrix_norm(o.h(2, 3), 1),
    "linalg.norm": lambda o: gf.linalg.norm(o.h(3)),
}

Made = Callable[..., gf.Tensor]
WIDEST: dict[str, Callable[[Made, Made, Operands], gf.Tensor]] = {
    "addcdiv": lambda a, b, o: gf.addcdiv(a(3), a(3), b(3)),
    "addcmul": lambda a, b, o: gf.addcmul(a(3), a(3), b(3)),
    "atan2": lambda a, b, o: gf.atan2(a(3), b(3)),
    "bilinear": lambda a, b, o: F.bilinear(a(2, 3), b(2, 4), a(5, 3, 4)),
    "cross": lambda a, b, o: gf.linalg.cross(a(3), b(3)),
    "dot": lambda a, b, o: gf.dot(a(3), b(3)),
    "vdot": lambda a, b, o: gf.vdot(a(3), b(3)),
    "inner": lambda a, b, o: gf.inner(a(3), b(3)),
    "grid_sample": lambda a, b, o: F.grid_sample(a(1, 1, 3, 3), b(1, 2, 2, 2)),
    "index_put": lambda a, b, o: gf.index_put(a(3), (o.i(0, 1),), b(2)),
    "tensordot": lambda a, b, o: gf.tensordot(a(2, 3), b(3, 2), 1),
    "scatter_add": lambda a, b, o: gf.scatter_add(a(3), 0, o.i(0, 1), b(2)),
}
"""Operands of one dtype or both: the result has the widest of them."""


def all_calls(half: gf.dtype) -> dict[str, tuple[Call, gf.dtype]]:
    """Every call, and the dtype of its result."""
    calls: dict[str, tuple[Call, gf.dtype]] = {}
    calls.update({f"lower: {name}": (call, half) for name, call in LOWER.items()})
    calls.update({f"float32: {name}": (call, gf.float32) for name, call in FLOAT32.items()})
    for name, made in WIDEST.items():
        calls[f"widest: {name} of both"] = (lambda o, f=made: f(o.f, o.h, o)), gf.float32
        calls[f"widest: {name} of both, turned"] = (lambda o, f=made: f(o.h, o.f, o)), gf.float32
        calls[f"widest: {name} of float32"] = (lambda o, f=made: f(o.f, o.f, o)), gf.float32
        calls[f"widest: {name} of halves"] = (lambda o, f=made: f(o.h, o.h, o)), half
    return calls
