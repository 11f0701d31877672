"""Weights of which some are held at 0: ``prune.l1_unstructured(layer, "weight", 0.3)``.

``layer.weight`` is then ``weight_orig * weight_mask``, computed whenever it is read; the
parameter is ``weight_orig`` and the mask a buffer.  :func:`remove` makes it permanent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from graphflow.autograd.modes import no_grad
from graphflow.functions.creation import ones_like, zeros
from graphflow.functions.elementwise import abs, mul
from graphflow.functions.norms import norm
from graphflow.functions.shaping import cat, reshape
from graphflow.functions.sorting import topk
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.utils.parametrize import derive, underive
from graphflow.rng import rand
from graphflow.tensor import Tensor

__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured",
    "PruningContainer", "RandomStructured", "RandomUnstructured", "custom_from_mask",
    "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured",
    "random_structured", "random_unstructured", "remove",
]  # fmt: skip

_HELD = "_pruning"


class BasePruningMethod:
    """One way of choosing what is pruned: :meth:`compute_mask` in a sub-class."""

    PRUNING_TYPE: ClassVar[str] = "unstructured"
    """"unstructured" (single entries), "structured" (whole slices) or "global"."""
    dim: int = -1
    _tensor_name: str

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask for ``t``, 0 also wherever ``default_mask`` is."""
        raise NotImplementedError(f"{type(self).__name__} does not define compute_mask()")

    def apply_mask(self, module: Module) -> Tensor:
        """The pruned tensor: the original times its mask."""
        name = self._tensor_name
        original: Tensor = getattr(module, f"{name}_orig")
        mask: Tensor = getattr(module, f"{name}_mask")
        return mul(mask.to(original.dtype), original)

    def prune(
        self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Any = None
    ) -> Tensor:
        """``t`` pruned, on its own; scores, if given, are what is compared instead of it."""
        mask = ones_like(t) if default_mask is None else default_mask
        return mul(t, self.compute_mask(_scores(t, importance_scores), mask))

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Any = None, **kwargs: Any
    ) -> Any:
        """Prune ``name`` of ``module`` by this method, beside what is pruned of it already."""
        method = cls(*args, **kwargs)
        method._tensor_name = name
        held = module.__dict__.setdefault(_HELD, {})
        before: BasePruningMethod | None = held.get(name)
        tensor: Any = getattr(module, f"{name}_orig" if before else name)
        with no_grad():
            old = getattr(module, f"{name}_mask") if before else ones_like(tensor)
            compared = mul(tensor, old) if importance_scores is None else importance_scores
            if before is not None:
                chain = before if isinstance(before, PruningContainer) else PruningContainer(before)
                chain.add_pruning_method(method)
                method = chain
            mask = method.compute_mask(_scores(tensor, compared), old).detach()
        if before is None:
            _replace(module, name, tensor, mask)
        else:
            setattr(module, f"{name}_mask", mask)
        held[name] = method
        return method

    def remove(self, module: Module) -> None:
        """Make the pruning permanent: the product is the parameter."""
        name = self._tensor_name
        original: Any = getattr(module, f"{name}_orig")
        with no_grad():
            value = self.apply_mask(module).detach()
        underive(module, name)
        del module.__dict__[_HELD][name]
        delattr(module, f"{name}_orig")
        delattr(module, f"{name}_mask")
        original.data = value
        module.register_parameter(name, original)


def _scores(t: Tensor, scores: Any) -> Tensor:
    if scores is None:
        return t.detach()
    if tuple(scores.shape) != tuple(t.shape):
        raise AssertionError(
            f"importance_scores should have the shape {tuple(t.shape)} of the tensor, not "
            f"{tuple(scores.shape)}"
        )
    return scores.detach()  # type: ignore[no-any-return]


def _replace(module: Module, name: str, tensor: Any, mask: Tensor) -> None:
    original = tensor if isinstance(tensor, Parameter) else Parameter(tensor.detach())
    delattr(module, name)
    module.register_parameter(f"{name}_orig", original)
    module.register_buffer(f"{name}_mask", mask)
    derive(module, name, lambda m: m.__dict__[_HELD][name].apply_mask(m))


class PruningContainer(BasePruningMethod):
    """Several methods that prune one tensor, one after another."""

    def __init__(self, *args: Any) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        methods = args[0] if args and isinstance(args[0], Iterable) else args
        for method in methods:
            self._tensor_name = getattr(method, "_tensor_name", "")
            self._pruning_methods = (*self._pruning_methods, method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """One more, for the same tensor."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if method._tensor_name != self._tensor_name:
            raise ValueError(
                f"a method for {method._tensor_name!r} cannot be added to one for "
                f"{self._tensor_name!r}"
            )
        self._pruning_methods = (*self._pruning_methods, method)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The last method's, over what the others left."""
        method = self._pruning_methods[-1]
        mask: Tensor = default_mask.clone()
        if method.PRUNING_TYPE == "unstructured":
            left = reshape(mask, (-1,)) == 1
            part = reshape(t, (-1,))[left]
            flat: Tensor = reshape(mask, (-1,)).clone()
            flat[left] = method.compute_mask(part, ones_like(part))
            return reshape(flat, tuple(mask.shape))
        if method.PRUNING_TYPE == "structured":
            axis = method.dim % t.ndim
            others = [d for d in range(t.ndim) if d != axis]
            left = mask.sum(others) != 0 if others else mask != 0
            index = tuple(slice(None) if d != axis else left for d in range(t.ndim))
            mask[index] = method.compute_mask(t[index], default_mask[index])
            return mask
        return method.compute_mask(t, default_mask)


class Identity(BasePruningMethod):
    """Prunes nothing, but makes the mask."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """``default_mask``."""
        return default_mask


def _number(amount: Any, size: int) -> int:
    """How many of ``size``: a share, or the number itself."""
    if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
        raise ValueError(f"amount={amount} should be a float in [0, 1] or a non-negative integer")
    if isinstance(amount, float):
        if amount > 1.0:
            raise ValueError(f"amount={amount} should be a float in the range [0, 1]")
        return round(amount * size)
    if amount > size:
        raise ValueError(f"amount={amount} should be at most the {size} parameters to prune")
    return amount


def _without_least(scores: Tensor, number: int, mask: Tensor) -> Tensor:
    """``mask`` with 0 where the ``number`` lowest scores are."""
    made: Tensor = mask.clone()
    if number:
        places = topk(reshape(scores, (-1,)), number, largest=False).indices
        flat: Tensor = reshape(made, (-1,)).clone()
        flat[places] = 0
        made = reshape(flat, tuple(mask.shape))
    return made


class RandomUnstructured(BasePruningMethod):
    """``amount`` (a share or a number) of the entries, chosen at random."""

    def __init__(self, amount: float) -> None:
        _number(amount, 1 << 62)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """0 at random places."""
        return _without_least(rand(tuple(t.shape)), _number(self.amount, t.numel()), default_mask)


class L1Unstructured(RandomUnstructured):
    """``amount`` (a share or a number) of the entries, those of the smallest size."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """0 at the smallest."""
        return _without_least(abs(t), _number(self.amount, t.numel()), default_mask)


class RandomStructured(BasePruningMethod):
    """``amount`` (a share or a number) of the slices along ``dim``, chosen at random."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        _number(amount, 1 << 62)
        self.amount, self.dim = amount, dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """0 in whole slices."""
        if t.ndim < 2:
            raise ValueError("Structured pruning can only be applied to multidimensional tensors.")
        axis = self.dim % t.ndim
        count = t.shape[axis]
        kept = _without_least(
            self._of_slices(t, axis), _number(self.amount, count), ones_like(zeros(count))
        )
        shape = [count if d == axis else 1 for d in range(t.ndim)]
        return mul(default_mask, reshape(kept, shape).to(default_mask.dtype))

    def _of_slices(self, t: Tensor, axis: int) -> Tensor:
        return rand(t.shape[axis])


class LnStructured(RandomStructured):
    """``amount`` of the slices along ``dim``, those of the smallest ``n``-norm."""

    def __init__(self, amount: float, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def _of_slices(self, t: Tensor, axis: int) -> Tensor:
        return norm(t, self.n, [d for d in range(t.ndim) if d != axis])


class CustomFromMask(BasePruningMethod):
    """What a given mask says."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Both masks."""
        return mul(default_mask, self.mask.to(default_mask.dtype))


# ---- as functions ------------------------------------------------------------------------


def identity(module: Module, name: str) -> Module:
    """Make the mask of ``name``, of ones."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: float) -> Module:
    """Prune ``amount`` of the entries, at random."""
    RandomUnstructured.apply(module, name, amount=amount)
    return module


def l1_unstructured(
    module: Module, name: str, amount: float, importance_scores: Tensor | None = None
) -> Module:
    """Prune the ``amount`` of the entries that are smallest."""
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: float, dim: int) -> Module:
    """Prune ``amount`` of the slices along ``dim``, at random."""
    RandomStructured.apply(module, name, amount=amount, dim=dim)
    return module


def ln_structured(
    module: Module, name: str, amount: float, n: Any, dim: int,
    importance_scores: Tensor | None = None,
) -> Module:  # fmt: skip
    """Prune the ``amount`` of the slices along ``dim`` whose ``n``-norm is smallest."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prune where ``mask`` is 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]], pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None, **kwargs: Any,
) -> None:  # fmt: skip
    """Prune several tensors, of ``(module, name)`` pairs, as if they were one."""
    pairs, given = list(parameters), importance_scores or {}
    if pruning_method.PRUNING_TYPE != "unstructured":
        raise TypeError("Only 'unstructured' PRUNING_TYPE is supported for global pruning")
    scores, masks = [], []
    for module, name in pairs:
        tensor = getattr(module, name)
        scores.append(reshape(given.get((module, name), tensor).detach(), (-1,)))
        held = getattr(module, f"{name}_mask", None)
        masks.append(reshape(ones_like(tensor.detach()) if held is None else held, (-1,)))
    method = pruning_method(**kwargs)
    method._tensor_name = "temp"
    chain = PruningContainer(method)
    final = chain.compute_mask(cat(scores), cat(masks))
    start = 0
    for module, name in pairs:
        shape = tuple(getattr(module, name).shape)
        size = getattr(module, name).numel()
        custom_from_mask(module, name, reshape(final[start : start + size], shape))
        start += size


def remove(module: Module, name: str) -> Module:
    """Make the pruning of ``name`` permanent."""
    held = module.__dict__.get(_HELD, {})
    if name not in held:
        raise ValueError(
            f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed"
        )
    held[name].remove(module)
    return module


def is_pruned(module: Module) -> bool:
    """Whether anything in ``module`` or below it is pruned."""
    return any(each.__dict__.get(_HELD) for each in module.modules())
