"""Module attributes that are imported when first asked for (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def importer(namespace: dict[str, Any], places: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__``: ``places`` maps a name to ``module`` or ``module:member``.

    What was imported stays in ``namespace``, so that it is looked up once.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
        module, _, member = places[name].partition(":")
        found = import_module(module)
        value = namespace[name] = getattr(found, member) if member else found
        return value

    return find
