"""Parameters that are functions of others: ``register_parametrization`` and what undoes it.

``module.weight`` is then computed from ``module.parametrizations.weight.original`` whenever it
is read, so compiled steps see one graph and gradients reach the originals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from graphflow.autograd.modes import no_grad
from graphflow.errors import GraphFlowError
from graphflow.mode import structure
from graphflow.nn.module import Module
from graphflow.nn.modules.containers import ModuleDict, ModuleList
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor

__all__ = [
    "ParametrizationList", "cached", "derive", "is_parametrized", "register_parametrization",
    "remove_parametrizations", "type_before_parametrizations", "underive",
]  # fmt: skip


# ---- attributes that are computed ---------------------------------------------------------


def derive(
    module: Module, name: str, read: Callable[[Any], Tensor], write: Any = None, prefix: str = ""
) -> None:
    """``module.name`` becomes ``read(module)``, and assigning it ``write(module, value)``.

    Only this module changes: its class is a sub-class of what it was, whose name has ``prefix``
    before it.
    """
    kind: Any = type(module)
    if "_derived" not in kind.__dict__:
        kind = type(prefix + kind.__name__, (kind,), {
            "_derived": (), "__setattr__": _set, "__module__": kind.__module__,
            "__doc__": kind.__doc__, "__qualname__": prefix + kind.__qualname__,
        })  # fmt: skip
        module.__class__ = kind
    setattr(kind, name, property(read, write))
    kind._derived = (*kind._derived, name)
    structure.bump()


def underive(module: Module, name: str) -> None:
    """Undo :func:`derive`."""
    kind: Any = type(module)
    delattr(kind, name)
    kind._derived = tuple(n for n in kind._derived if n != name)
    if not kind._derived:
        module.__class__ = kind.__bases__[0]
    structure.bump()


def _set(self: Any, name: str, value: Any) -> None:
    """Assign an attribute; a derived one goes to its property even if the value is a Parameter."""
    kind: Any = type(self)
    if name in kind._derived:
        getattr(kind, name).__set__(self, value)
    else:
        super(kind, self).__setattr__(name, value)


# ---- parametrizations ---------------------------------------------------------------------


class ParametrizationList(ModuleList):
    """The functions that make a tensor out of ``original`` (or ``original0``, ``original1`` …)."""

    def __init__(
        self, modules: Sequence[Module], original: Tensor | Parameter, unsafe: bool = False
    ) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        parts: Any = original
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    with contextlib.suppress(NotImplementedError):  # then it starts from these
                        parts = module.right_inverse(parts)
        several = not isinstance(parts, Tensor)
        self.ntensors = len(parts) if several else 1
        for name, part in zip(self._names(several), parts if several else [parts], strict=True):
            self._keep(name, part, original)
        self.is_tensor = not several

    def _names(self, several: bool) -> list[str]:
        return [f"original{i}" for i in range(self.ntensors)] if several else ["original"]

    def _keep(self, name: str, part: Tensor, original: Tensor) -> None:
        if not isinstance(original, Parameter):
            self.register_buffer(name, part)
            return
        kept = part if isinstance(part, Parameter) else Parameter(part.detach().clone())
        kept.requires_grad_(original.requires_grad)
        self.register_parameter(name, kept)

    def originals(self) -> list[Tensor]:
        """What the tensor is computed from."""
        return [getattr(self, name) for name in self._names(not self.is_tensor)]

    def forward(self) -> Tensor:
        """The tensor."""
        first, *rest = self
        value: Tensor = first(*self.originals())
        for module in rest:
            value = module(value)
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the tensor becomes ``value``."""
        with no_grad():
            parts: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise GraphFlowError(
                        f"parametrization {type(module).__name__} has no right_inverse, so what "
                        "it makes cannot be assigned to"
                    )
                parts = module.right_inverse(parts)
            parts = [parts] if isinstance(parts, Tensor) else parts
            for original, part in zip(self.originals(), parts, strict=True):
                original.copy_(part)


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """``module.<tensor_name>`` becomes ``parametrization`` of what it was.

    If the parametrization has a ``right_inverse``, its result is kept as the original (several
    tensors: ``original0``, ``original1`` …), so that the value stays.  Another one on the same
    tensor comes after those that are there.  Unless ``unsafe``, shape and dtype have to stay.
    """
    if is_parametrized(module, tensor_name):
        made = module.parametrizations[tensor_name]
        before = getattr(module, tensor_name).detach()
        _check(tensor_name, before, lambda: parametrization(before), unsafe)
        if hasattr(parametrization, "right_inverse"):
            made.right_inverse(parametrization.right_inverse(before))
        made.append(parametrization)
        return module
    tables = module._parameters, module._buffers
    table: Any = next((t for t in tables if t.get(tensor_name) is not None), None)
    if table is None:
        raise ValueError(
            f"{type(module).__name__} has no parameter or buffer {tensor_name!r} to parametrize"
        )
    original = table[tensor_name]
    made = ParametrizationList([parametrization], original, unsafe)
    _check(tensor_name, original, made, unsafe)
    delattr(module, tensor_name)
    if "parametrizations" not in module._modules:
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = made
    derive(
        module, tensor_name,
        lambda self: self.parametrizations[tensor_name](),
        lambda self, value: self.parametrizations[tensor_name].right_inverse(value),
        "Parametrized",
    )  # fmt: skip
    return module


def _check(name: str, before: Tensor, make: Callable[[], Tensor], unsafe: bool) -> None:
    if unsafe:
        return
    with no_grad():
        found = make()
    if tuple(found.shape) != tuple(before.shape) or found.dtype is not before.dtype:
        raise ValueError(
            f"a parametrization makes {name!r} of {list(before.shape)} ({before.dtype.name}) a "
            f"tensor of {list(found.shape)} ({found.dtype.name}); pass unsafe=True if that is meant"
        )


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module, or that tensor of it, has parametrizations."""
    found = module._modules.get("parametrizations")
    if found is None:
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Make ``module.<tensor_name>`` a parameter (or buffer) again: what it is now.

    With ``leave_parametrized=False`` it is the original again (of which there must be one).
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"{type(module).__name__} has no parametrization of {tensor_name!r}")
    made = module.parametrizations[tensor_name]
    if not (leave_parametrized or made.is_tensor):
        raise ValueError(
            f"{tensor_name!r} is made from {made.ntensors} tensors: there is no one original; "
            "leave it parametrized"
        )
    original = made.originals()[0]
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name).detach().clone()
        if isinstance(original, Parameter):
            original = Parameter(value, original.requires_grad)
        else:
            original = value
    underive(module, tensor_name)
    del module.parametrizations[tensor_name]
    if not len(module.parametrizations):
        del module.parametrizations
    if isinstance(original, Parameter):
        module.register_parameter(tensor_name, original)
    else:
        module.register_buffer(tensor_name, original)
    return module


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class of the module without parametrizations."""
    kind = type(module)
    return cast(type[Module], kind.__bases__[0] if "_derived" in kind.__dict__ else kind)


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrized tensor once in the block: compiled steps always do.

    Eagerly it is computed at each reading, which gives the same values.
    """
    yield
