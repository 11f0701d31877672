"""Modules as functions of their parameters and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from graphflow.errors import GraphFlowError
from graphflow.functions.shaping import stack
from graphflow.mode import mode, structure
from graphflow.tensor import Tensor


def functional_call(
    module: Any, parameter_and_buffer_dicts: Any, args: Any = None,
    kwargs: Mapping[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """What ``module(*args)`` gives with other parameters and buffers, by their dotted names.

    Parameters that are one tensor under several names change together (``tie_weights``).  With
    ``strict`` the names must be all of the module's.
    """
    dicts = parameter_and_buffer_dicts
    given: dict[str, Tensor] = {}
    for part in (dicts,) if isinstance(dicts, Mapping) else dicts:
        given.update(part)
    places = list(_members(module))
    if strict and given.keys() != {name for name, *_ in places}:
        odd = sorted(given.keys() ^ {name for name, *_ in places})
        raise GraphFlowError(f"functional_call: names that are missing or unknown: {odd}")
    if args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    with _replaced(places, given, tie_weights):
        return module(*args, **(kwargs or {}))


def _members(module: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The dotted name of every parameter and buffer, and where it is kept."""
    for path, part in module.named_modules(remove_duplicate=False):
        for table in (part._parameters, part._buffers):
            for name, held in table.items():
                if held is not None:
                    yield (f"{path}.{name}" if path else name), table, name


@contextmanager
def _replaced(
    places: Sequence[tuple[str, dict[str, Any], str]], given: Mapping[str, Tensor], tie: bool
) -> Iterator[None]:
    """The members of ``places`` are those ``given``, for a while."""
    held = [table[name] for _, table, name in places]
    tied = {
        id(old): given[full_name]
        for (full_name, *_), old in zip(places, held, strict=True) if full_name in given
    }  # fmt: skip
    tracer, outer = mode.tracer, mode.lent
    lent = frozenset[tuple[int, str]]() if tracer is None else tracer.lent
    try:
        for (full_name, table, name), old in zip(places, held, strict=True):
            if full_name in given:
                table[name] = given[full_name]
            elif tie and id(old) in tied:
                table[name] = tied[id(old)]
            else:
                continue
            if tracer is not None:
                tracer.lent |= {(id(table), name)}
        if tracer is None:
            structure.bump()  # programs of compiled modules were made for what lay there
        mode.lent = (*outer, partial(_replaced, places, given, tie))
        yield
    finally:
        mode.lent = outer
        if tracer is not None:
            tracer.lent = lent
        for (_, table, name), old in zip(places, held, strict=True):
            table[name] = old
        if tracer is None:
            structure.bump()


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters and the buffers of modules of one kind, stacked: leaves of their own."""
    if not models or len({type(model) for model in models}) != 1:
        raise GraphFlowError("stack_module_state: the models must be of one class, at least one")

    def stacked(name: str) -> dict[str, Tensor]:
        tables = [dict(getattr(model, name)()) for model in models]
        return {key: stack([table[key] for table in tables]).detach() for key in tables[0]}

    parameters = stacked("named_parameters")
    wanted = dict(models[0].named_parameters())
    for key, made in parameters.items():
        made.requires_grad_(wanted[key].requires_grad)
    return parameters, stacked("named_buffers")


def replace_all_batch_norm_modules_(root: Any) -> Any:
    """``root``, whose batch norms keep no statistics from now on: what ``vmap`` cannot write to
    for each entry."""
    for module in root.modules():
        if hasattr(module, "running_mean") and hasattr(module, "num_batches_tracked"):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return root
