"""Module attributes that are imported when first asked for (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
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
                if otherwise is None or name.startswith("__"):
                    raise AttributeError(name)
                value = otherwise(name)
            except AttributeError:
                text = f"module {namespace['__name__']!r} has no attribute {name!r}"
                raise AttributeError(text) from None
        namespace[name] = value
        return value

    return find
