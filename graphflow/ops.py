"""Every operation on tensors in one namespace: what ``gf.<name>`` and ``x.<name>()`` mean.

The modules of :mod:`graphflow.functions` say themselves where their functions
appear (``__all__``, ``METHODS``, ``IN_PLACE``, ``PROPERTIES``); here they are
gathered.  What few programs use is imported when one of its names is asked for.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from graphflow import methods, rng
from graphflow.dispatch import in_place
from graphflow.functions import (
    creation,
    elementwise,
    indexing,
    manipulation,
    products,
    reductions,
    shaping,
)
from graphflow.functions.creation import *
from graphflow.functions.elementwise import *
from graphflow.functions.indexing import *
from graphflow.functions.manipulation import *
from graphflow.functions.products import *
from graphflow.functions.reductions import *
from graphflow.functions.shaping import *
from graphflow.rng import *

CORE = (creation, elementwise, indexing, manipulation, products, reductions, shaping, rng)
LATER: tuple[str, ...] = (
    "graphflow.functions.arithmetic",
    "graphflow.functions.complex_numbers",
    "graphflow.functions.control",
    "graphflow.functions.copies",
    "graphflow.functions.cumulative",
    "graphflow.functions.diagonals",
    "graphflow.functions.distributions",
    "graphflow.functions.einsum",
    "graphflow.functions.floats",
    "graphflow.functions.grids",
    "graphflow.functions.joining",
    "graphflow.functions.linear_algebra",
    "graphflow.functions.norms",
    "graphflow.functions.padding",
    "graphflow.functions.picking",
    "graphflow.functions.quantizing",
    "graphflow.functions.repeating",
    "graphflow.functions.scattering",
    "graphflow.functions.short_time",
    "graphflow.functions.sorting",
    "graphflow.functions.special",
    "graphflow.functions.statistics",
    "graphflow.functions.storages",
    "graphflow.functions.striding",
    "graphflow.functions.surface",
    "graphflow.functions.typed",
    "graphflow.functions.trigonometry",
    "graphflow.functions.uniqueness",
    "graphflow.functions.windows",
)
"""Modules of :mod:`graphflow.functions` that are imported when first needed."""

if TYPE_CHECKING:  # what type checkers find in gf
    from graphflow.functions.arithmetic import *
    from graphflow.functions.complex_numbers import *
    from graphflow.functions.control import *
    from graphflow.functions.copies import *
    from graphflow.functions.cumulative import *
    from graphflow.functions.diagonals import *
    from graphflow.functions.distributions import *
    from graphflow.functions.einsum import *
    from graphflow.functions.floats import *
    from graphflow.functions.grids import *
    from graphflow.functions.joining import *
    from graphflow.functions.linear_algebra import *
    from graphflow.functions.norms import *
    from graphflow.functions.padding import *
    from graphflow.functions.picking import *
    from graphflow.functions.quantizing import *
    from graphflow.functions.repeating import *
    from graphflow.functions.scattering import *
    from graphflow.functions.short_time import *
    from graphflow.functions.sorting import *
    from graphflow.functions.special import *
    from graphflow.functions.statistics import *
    from graphflow.functions.storages import *
    from graphflow.functions.striding import *
    from graphflow.functions.surface import *
    from graphflow.functions.trigonometry import *
    from graphflow.functions.typed import *
    from graphflow.functions.uniqueness import *
    from graphflow.functions.windows import *
else:
    __all__ = [name for module in CORE for name in getattr(module, "__all__", ())]

_loaded: list[ModuleType] = []


def find(name: str) -> Any:
    """The function ``gf.<name>`` of a module in ``LATER``; AttributeError if there is none."""
    load_later()
    for module in _loaded:
        if name in getattr(module, "__all__", ()):
            return getattr(module, name)
    raise AttributeError(name)


def load_later() -> bool:
    """Import the modules in ``LATER`` and bind their methods; False if that was done before."""
    if len(_loaded) == len(LATER):
        return False
    _loaded[:] = map(import_module, LATER)
    for module in _loaded:
        methods.bind(module, in_place)
    return True


for _module in CORE:
    methods.bind(_module, in_place)
methods.bind_operators({k: v for module in CORE for k, v in vars(module).items()}, in_place)
methods.when_missing(load_later)
