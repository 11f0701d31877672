"""Weights under a constraint: ``weight_norm``, ``spectral_norm``, their older forms, orthogonal.

Sources: Salimans and Kingma 2016, "Weight Normalization"; Miyato et al. 2018, "Spectral
Normalization for Generative Adversarial Networks".
"""

from __future__ import annotations

from typing import Any, TypeVar

from graphflow.autograd.modes import no_grad
from graphflow.functions.elementwise import absolute, div, mul, sqrt
from graphflow.functions.products import dot, mv
from graphflow.functions.reductions import sum as total
from graphflow.functions.shaping import permute, reshape
from graphflow.nn.functional.normalization import normalize
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.utils.orthogonal import orthogonal
from graphflow.nn.utils.parametrize import derive, register_parametrization, underive
from graphflow.rng import randn
from graphflow.tensor import Tensor

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


def lengths(v: Tensor, dim: int | None) -> Tensor:
    """The length of each slice of ``v`` along ``dim`` ([1, …, n, …, 1]), or of all of it."""
    others = None if dim in (None, -1) else [d for d in range(v.ndim) if d != dim % v.ndim]
    if others == []:
        return absolute(v)
    return sqrt(total(mul(v, v), others, keepdim=others is not None))


class _WeightNorm(Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return mul(v, div(g, lengths(v, self.dim)))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return lengths(weight, self.dim), weight


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, steps: int, dim: int, eps: float) -> None:
        super().__init__()
        if steps <= 0:
            raise ValueError(f"n_power_iterations must be at least 1, not {steps}")
        self.dim, self.n_power_iterations, self.eps = dim, steps, eps
        with no_grad():
            matrix = as_matrix(weight, dim)
            u, v = first_vectors(matrix, eps)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)
            self._iterate(matrix, 15)

    def _iterate(self, matrix: Tensor, steps: int) -> None:
        u, v = iterated(matrix, self._u, self._v, steps, self.eps)
        self._u.copy_(u)
        self._v.copy_(v)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            with no_grad():
                self._iterate(matrix, self.n_power_iterations)
        return div(weight, dot(self._u.clone(), mv(matrix, self._v.clone())))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """``weight`` with ``dim`` as rows and everything else as columns."""
    first = dim % weight.ndim
    order = [first, *(d for d in range(weight.ndim) if d != first)]
    return reshape(permute(weight, order), (weight.shape[first], -1))


def first_vectors(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Random left and right vectors of length 1."""
    rows, columns = matrix.shape
    u, v = randn(rows, dtype=matrix.dtype), randn(columns, dtype=matrix.dtype)
    return normalize(u, dim=0, eps=eps), normalize(v, dim=0, eps=eps)


def iterated(matrix: Tensor, u: Tensor, v: Tensor, steps: int, eps: float) -> tuple[Tensor, Tensor]:
    """The vectors after ``steps`` of the power method."""
    for _ in range(steps):
        u = normalize(mv(matrix, v), dim=0, eps=eps)
        v = normalize(mv(matrix.T, u), dim=0, eps=eps)
    return u, v


def _weight_of(module: Module, name: str, maker: str) -> Tensor:
    found = getattr(module, name, None)
    if not isinstance(found, Tensor):
        raise ValueError(f"{maker}: {type(module).__name__} has no parameter or buffer {name!r}")
    return found


def _rows_of(module: Module, dim: int | None) -> int:
    """Transposed convolutions have their outputs second."""
    if dim is not None:
        return dim
    return 1 if type(module).__name__.startswith("ConvTranspose") else 0


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """The weight as a direction ``original1`` and lengths ``original0`` along ``dim``."""
    _weight_of(module, name, "weight_norm")
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    return module


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> M:  # fmt: skip
    """The weight over its largest singular value, which the power method follows in training."""
    weight = _weight_of(module, name, "spectral_norm")
    made = _SpectralNorm(weight.detach(), n_power_iterations, _rows_of(module, dim), eps)
    made.train(module.training)
    register_parametrization(module, name, made)
    return module


# ---- the older forms: parameters ``weight_g`` and ``weight_v``, ``weight_orig`` ----------------


def weight_norm_in_place(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """``nn.utils.weight_norm``: the weight from ``<name>_v`` and its lengths ``<name>_g``."""
    weight = _weight_of(module, name, "weight_norm")
    made = _WeightNorm(dim)
    delattr(module, name)
    with no_grad():
        module.register_parameter(f"{name}_g", Parameter(lengths(weight, dim).clone()))
        module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    derive(module, name, lambda m: made(getattr(m, f"{name}_g"), getattr(m, f"{name}_v")))
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Undo ``nn.utils.weight_norm``: the weight is a parameter again."""
    return _removed(module, name, (f"{name}_g", f"{name}_v"), "weight_norm")


def spectral_norm_in_place(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> M:  # fmt: skip
    """``nn.utils.spectral_norm``: from ``<name>_orig``, with the vectors as buffers.

    A call in training mode makes a step of the power method first.
    """
    weight = _weight_of(module, name, "spectral_norm")
    if n_power_iterations <= 0:
        raise ValueError(f"n_power_iterations must be at least 1, not {n_power_iterations}")
    rows = _rows_of(module, dim)
    with no_grad():
        u, v = first_vectors(as_matrix(weight.detach(), rows), eps)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", Parameter(weight.detach(), weight.requires_grad))
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)

    def read(m: Any) -> Tensor:
        original = getattr(m, f"{name}_orig")
        u, v = getattr(m, f"{name}_u").clone(), getattr(m, f"{name}_v").clone()
        return div(original, dot(u, mv(as_matrix(original, rows), v)))

    def step(m: Any, args: Any) -> None:
        if m.training:
            with no_grad():
                u, v = getattr(m, f"{name}_u"), getattr(m, f"{name}_v")
                matrix = as_matrix(getattr(m, f"{name}_orig"), rows)
                for _ in range(n_power_iterations):
                    v.copy_(normalize(mv(matrix.T, u), dim=0, eps=eps))
                    u.copy_(normalize(mv(matrix, v), dim=0, eps=eps))

    derive(module, name, read)
    module.__dict__[f"_{name}_power_method"] = module.register_forward_pre_hook(step)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Undo ``nn.utils.spectral_norm``: the weight is a parameter again."""
    hook = module.__dict__.pop(f"_{name}_power_method", None)
    made = _removed(module, name, (f"{name}_orig", f"{name}_u", f"{name}_v"), "spectral_norm")
    if hook is not None:
        hook.remove()
    return made


def _removed(module: M, name: str, parts: tuple[str, ...], maker: str) -> M:
    if not all(hasattr(module, part) for part in parts):
        raise ValueError(f"{maker} of {name!r} not found in {type(module).__name__}")
    with no_grad():
        value = getattr(module, name).detach().clone()
    trained = getattr(module, parts[-1 if maker == "weight_norm" else 0]).requires_grad
    underive(module, name)
    for part in parts:
        delattr(module, part)
    module.register_parameter(name, Parameter(value, trained))
    return module
