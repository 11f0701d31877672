"""Module attributes that are imported when first asked for (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def importer(
    namespace: dict[str, Any],
    places: Mapping[str, str],
    otherwise: Callable[[str], Any] | None = None,
) -> Callable[[str], Any]:
    """A module's ``__getattr__``: ``places`` maps a name to ``module`` or ``module:member``.

    ``otherwise`` is asked for any other name, and raises AttributeError if it has none.
    What was found stays in ``namespace``, so that it is looked up once.
    """

    def find(name: str) -> Any:
        if name in places:
            module, _, member = places[name].partition(":")
            found = import_module(module)
            value = getattr(found, member) if member else found
        else:
            try:
                if otherwise is None or (name.startswith("__") and name != "__all__"):
                    raise AttributeError(name)
                value = otherwise(name)
            except AttributeError:
                text = f"module {namespace['__name__']!r} has no attribute {name!r}"
                raise AttributeError(text) from None
        namespace[name] = value
        return value

    return find


class Gathering:
    """The names that modules of ``package`` give in their ``__all__``.

    Modules are imported until one gives the name that is asked for: first those whose subject
    the name mentions (``max_pool2d`` is probably of ``pooling``), then in the order of
    ``subjects``, where those that most programs need stand first.
    """

    def __init__(self, package: str, subjects: tuple[str, ...]) -> None:
        self._package = package
        self._subjects = subjects

    def find(self, name: str) -> Any:
        """What is called ``name``; ``__all__`` are all names.  AttributeError if nothing is."""
        if name == "__all__":
            return self.names()
        lower = name.lower()
        for subject in sorted(self._subjects, key=lambda s: s[:_TELLING] not in lower):
            module = self._module(subject)
            if name in module.__all__:
                return getattr(module, name)
        raise AttributeError(name)

    def names(self) -> list[str]:
        """Every name, which imports every module."""
        return [name for subject in self._subjects for name in self._module(subject).__all__]

    def _module(self, subject: str) -> ModuleType:
        return import_module(f"{self._package}.{subject}")


_TELLING = 4
"""Letters of a subject by which a name mentions it: ``conv2d``, ``norm`` and ``BatchNorm1d``."""
