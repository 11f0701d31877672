"""The whole state of a training run as plain data: what all ranks share, and what is a rank's own.

Parameters, optimisers, schedules and scalers are the same on every rank.  Random numbers,
buffers of modules (running statistics) and the place in the data are each rank's own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphflow.nn.module import Module
from graphflow.nn.parallel import DataParallel, DistributedDataParallel
from graphflow.optim.optimizer import Optimizer
from graphflow.rng import Generator, get_rng_state, manual_seed, set_rng_state
from graphflow.tensor import Tensor

RANDOM = "random"
_APART = 0x9E3779B97F4A7C15  # any odd constant: it sets the streams of new ranks apart
_SHOWN = 4


def unwrapped(part: Any) -> Any:
    """A module without the wrapper that trains it on several ranks."""
    while isinstance(part, (DataParallel, DistributedDataParallel)):
        part = part.module
    return part


def captured(parts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The states of ``parts`` by name: what is shared, and this rank's own."""
    shared: dict[str, Any] = {}
    own: dict[str, Any] = {RANDOM: random_states()}
    for name, part in parts.items():
        part = unwrapped(part)
        if isinstance(part, Module):
            state = part.state_dict()
            buffers = {key for key, _ in part.named_buffers()}
            shared[name] = {key: value for key, value in state.items() if key not in buffers}
            own[name] = {key: value for key, value in state.items() if key in buffers}
        elif isinstance(part, Generator):
            own[name] = part.get_state()
        elif getattr(part, "state_is_own", False):
            own[name] = part.state_dict()
        else:
            if hasattr(part, "consolidate_state_dict"):  # it is divided over the ranks
                part.consolidate_state_dict(None)
            shared[name] = part.state_dict()
    return shared, own


def put_back(
    parts: Mapping[str, Any], shared: Mapping[str, Any], own: Mapping[str, Any], *, new: int = 0,
    numbers: bool = True,
) -> None:  # fmt: skip
    """Give ``parts`` the states that :func:`captured` gave, and random numbers theirs.

    ``numbers``: whether the global random numbers are among what is put back.  ``new``: this
    rank's number if it was not there when they were captured, else 0: its random numbers are
    then others than those of the rank whose state it takes over.
    """
    for name, part in parts.items():
        part = unwrapped(part)
        if isinstance(part, Module):
            part.load_state_dict({**shared[name], **own[name]})
        elif isinstance(part, Generator):
            part.set_state(own[name])
        else:
            part.load_state_dict(shared[name] if name in shared else own[name])
    if numbers:
        set_random_states(own[RANDOM])
    if numbers and new:
        seed, count = get_rng_state().tolist()
        moved = (seed + count + new * _APART) % 2**63
        manual_seed(moved)
        random.seed(moved)
        np.random.seed(moved % 2**32)


def random_states() -> dict[str, Any]:
    """Where GraphFlow's, Python's and NumPy's global random numbers stand."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "graphflow": get_rng_state(),
        "python": [version, np.array(words, np.uint64), gauss],
        "numpy": [kind, keys, position, has_gauss, cached],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Continue from what :func:`random_states` gave."""
    set_rng_state(states["graphflow"])
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    np.random.set_state(tuple(states["numpy"]))


# ---- comparing ----------------------------------------------------------------------------


def classes(parts: Mapping[str, Any]) -> dict[str, str]:
    """The class of every part."""
    return {name: type(unwrapped(part)).__name__ for name, part in parts.items()}


def differences(
    parts: Mapping[str, Any], found: Mapping[str, str], shared: Mapping[str, Any],
    own: Mapping[str, Any], everything: bool,
) -> str:  # fmt: skip
    """In what a checkpoint does not fit ``parts``, in words; nothing if it fits.

    ``found``: the classes of its parts.  ``everything``: it may have no parts but these.
    """
    wrong = [f"it has no {name!r}" for name in parts if name not in found]
    if everything:
        wrong += [f"it has a {name!r}, which is not here" for name in found if name not in parts]
    for name, part in parts.items():
        if name not in found:
            continue
        part = unwrapped(part)
        if isinstance(part, Module):
            wrong += _unlike(name, part.state_dict(), {**shared[name], **own[name]})
        elif type(part).__name__ != found[name]:
            wrong.append(f"its {name!r} is a {found[name]}, here it is a {type(part).__name__}")
        elif isinstance(part, Optimizer):
            sizes = [len(group["params"]) for group in part.param_groups]
            others = [len(group["params"]) for group in shared[name]["param_groups"]]
            if sizes != others:
                wrong.append(f"its {name!r} has groups of {others} parameters, here {sizes}")
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return "; ".join(wrong[:_SHOWN]) + more


def _unlike(part: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Names and types in which two states of a module differ."""
    wrong = []
    for name in {**here, **there}:
        if name not in there:
            wrong.append(f"it has no {part}.{name}")
        elif name not in here:
            wrong.append(f"it has {part}.{name}, which is not here")
        elif isinstance(here[name], Tensor) and isinstance(there[name], Tensor):
            own, saved = str(here[name]._type), str(there[name]._type)
            if own != saved:
                wrong.append(f"its {part}.{name} is {saved}, here it is {own}")
    return wrong
