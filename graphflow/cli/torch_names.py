"""``import torch`` and ``import torchvision`` that mean GraphFlow, for ``graphflow run``.

:func:`install` puts a finder before all others.  A module it makes has PyTorch's
name and GraphFlow's contents; a name that is not there is an error that says so
in PyTorch's terms, and still an ``AttributeError`` or ``ModuleNotFoundError`` to
scripts that try and do without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from graphflow.cli.torch_addresses import PACKAGE_OF
from graphflow.errors import GraphFlowError
from graphflow.version import __version__

ROOTS = {"torch": "graphflow", "torchvision": "graphflow.vision"}
VERSION = f"2.13.0+graphflow{__version__}"
"""The version of PyTorch whose names and meanings are followed, as scripts compare it."""

PUBLIC = frozenset({
    "accelerator", "amp", "ao", "autograd", "backends", "compiler", "cpu", "cuda", "distributed",
    "distributions", "fft", "func", "hub", "jit", "linalg", "mps", "multiprocessing", "nn", "onnx",
    "optim", "profiler", "quantization", "random", "serialization", "signal", "special", "testing",
    "types", "utils", "version", "xpu",
})  # fmt: skip
"""Modules of ``graphflow`` that scripts know as modules of ``torch``; others are our own."""


class MissingName(GraphFlowError, AttributeError):
    """A name of PyTorch's that GraphFlow does not have."""


class MissingModule(GraphFlowError, ModuleNotFoundError):
    """A module of PyTorch's that GraphFlow does not have."""


class Alias(ModuleType):
    """A module under PyTorch's name; what it holds is looked up in GraphFlow's."""

    def __init__(self, name: str, target: Any) -> None:
        super().__init__(name, target.__doc__)
        self.__dict__["__path__"] = []
        self.__dict__["__version__"] = VERSION
        self.__dict__["_target"] = target
        if hasattr(target, "__all__"):
            self.__dict__["__all__"] = target.__all__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self.__dict__[name] = _attribute(self, name)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *dir(self._target)})


def _attribute(alias: Alias, name: str) -> Any:
    path = f"{alias.__name__}.{name}"
    if path in _DIFFERENT:
        return _DIFFERENT[path]
    value = getattr(alias._target, name, MissingName)
    if value is not MissingName and not isinstance(value, ModuleType):
        return value
    try:
        return import_module(path)
    except ModuleNotFoundError:
        raise MissingName(f"{path} is not available in GraphFlow") from None


class Finder(MetaPathFinder, Loader):
    """Finds ``torch``, ``torchvision`` and everything below them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """A specification for our names; None for all others."""
        if fullname.partition(".")[0] not in ROOTS:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The alias; raises MissingModule."""
        return Alias(spec.name, _target(spec.name))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is to be run."""


def _target(name: str) -> Any:
    """The module of GraphFlow's that ``name`` stands for."""
    root, _, rest = name.partition(".")
    rest = rest.removeprefix("ao.")  # where PyTorch moved what is still found without
    rest = PACKAGE_OF.get(rest, rest) if root == "torch" else rest
    if root == "torch" and rest and rest.partition(".")[0] not in PUBLIC:
        raise MissingModule(f"{name} is not available in GraphFlow")
    path = ROOTS[root] + (f".{rest}" if rest else "")
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise  # something that GraphFlow itself needs is not installed
        raise MissingModule(f"{name} is not available in GraphFlow") from None


def install() -> None:
    """From now on ``import torch`` and ``import torchvision`` mean GraphFlow."""
    loaded = [name for name in sys.modules if name.partition(".")[0] in ROOTS]
    if loaded:
        raise GraphFlowError(f"{loaded[0]} is imported already; nothing can take its name now")
    sys.meta_path.insert(0, Finder())


def _compile(model: Any = None, **options: Any) -> Any:
    """``torch.compile``: its options choose among PyTorch's back ends; ours has none of them."""
    from graphflow.api import compile

    return compile if model is None else compile(model)


_DIFFERENT: dict[str, Callable[..., Any]] = {"torch.compile": _compile}
