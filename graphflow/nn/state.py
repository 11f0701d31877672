"""``state_dict`` and ``load_state_dict``: a module's tensors by dotted name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, cast

from graphflow.autograd.modes import no_grad
from graphflow.dispatch import assign_all
from graphflow.errors import GraphFlowError
from graphflow.functions.creation import as_tensor
from graphflow.handles import RemovableHandle
from graphflow.mode import structure
from graphflow.nn.parameter import Parameter
from graphflow.nn.tree import ModuleTree
from graphflow.promotion import cast as in_dtype
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor

EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(strict=False)`` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self[0]}, unexpected_keys={self[1]})"


class _Load:
    """One ``load_state_dict`` under way: writes wait until everything is known to fit."""

    def __init__(self, assign: bool) -> None:
        self.assign = assign
        self.writes: list[Callable[[], None] | tuple[Tensor, Tensor]] = []
        """Functions, and tensors with the values that are to be copied into them."""

    def write(self) -> None:
        """Do all of it, in this order; neighbouring copies at once."""
        for are_copies, writes in groupby(self.writes, lambda write: isinstance(write, tuple)):
            if are_copies:
                _copy(cast("Iterator[tuple[Tensor, Tensor]]", writes))
                continue
            for function in cast("Iterator[Callable[[], None]]", writes):
                function()


_under_way: list[_Load] = []


class ModuleState(ModuleTree):
    """The part of a module that saves and loads."""

    _version: int = 1
    _state_hooks: dict[str, list[Any]]

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_state_hooks"] = {}

    # ---- saving --------------------------------------------------------------------

    def state_dict(
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """Every parameter and persistent buffer by dotted name (sharing memory).

        ``keep_vars`` gives the tensors themselves, with their histories.
        """
        found = OrderedDict() if destination is None else destination
        if not hasattr(found, "_metadata") and isinstance(found, OrderedDict):
            found._metadata = OrderedDict()  # type: ignore[attr-defined]
        local = {"version": self._version}
        if hasattr(found, "_metadata"):
            found._metadata[prefix[:-1]] = local
        for hook in self._hooks_for("state_pre"):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(found, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=found, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._hooks_for("state_post"):
            hook(self, found, prefix, local)
        for hook in self._hooks_for("state_other"):
            replaced = hook(self, found, prefix, local)
            found = found if replaced is None else replaced
        return found

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Put this module's own tensors into ``destination``; may be overridden."""
        for name, value in self._own_state().items():
            destination[prefix + name] = value if keep_vars else value.detach()
        if type(self).get_extra_state is not ModuleState.get_extra_state:
            destination[prefix + EXTRA] = self.get_extra_state()

    def _own_state(self) -> dict[str, Tensor]:
        members = (*self._parameters.items(), *self._buffers.items())
        return {n: v for n, v in members if v is not None and n not in self._transient}

    def get_extra_state(self) -> Any:
        """Override together with :meth:`set_extra_state` to save more than tensors."""
        raise GraphFlowError(f"{type(self).__name__} has no extra state")

    def set_extra_state(self, state: Any) -> None:
        """Override to take over what :meth:`get_extra_state` gave."""
        raise GraphFlowError(f"{type(self).__name__} has no extra state, but one was loaded")

    # ---- loading -------------------------------------------------------------------

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values in by name; nothing is written unless everything fits.

        ``assign`` takes the given tensors themselves instead of copying their values.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"a state must map names to tensors, not {type(state_dict).__name__}")
        missing: list[str] = []
        unexpected: list[str] = []
        problems: list[str] = []
        state: Any = OrderedDict(state_dict)
        metadata = getattr(state_dict, "_metadata", {})
        under_way = _Load(assign)
        _under_way.append(under_way)
        try:
            self._load(state, "", metadata, strict, missing, unexpected, problems)
        finally:
            _under_way.pop()
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        if problems:
            raise GraphFlowError(
                f"load_state_dict for {type(self).__name__} failed: {'; '.join(problems)}"
            )
        under_way.write()
        result = IncompatibleKeys(missing, unexpected)
        for module in self.modules():
            for hook in module._hooks_for("load_post"):
                hook(module, result)
        return result

    def _load(
        self, state: dict[str, Any], prefix: str, metadata: Any, strict: bool,
        missing: list[str], unexpected: list[str], problems: list[str],
    ) -> None:  # fmt: skip
        local = dict(metadata.get(prefix[:-1], {}))
        local["assign_to_params_buffers"] = _under_way[-1].assign
        self._load_from_state_dict(state, prefix, local, strict, missing, unexpected, problems)
        for name, child in self._modules.items():
            if child is not None:
                inner = f"{prefix}{name}."
                part = {k: v for k, v in state.items() if k.startswith(inner)}
                child._load(part, inner, metadata, strict, missing, unexpected, problems)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
        strict: bool, missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Load this module's own tensors; may be overridden (keys may be added or renamed)."""
        for hook in self._hooks_for("load_pre"):
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys,
                 unexpected_keys, error_msgs)  # fmt: skip
        own = self._own_state()
        for name, held in own.items():
            if prefix + name not in state_dict:
                missing_keys.append(prefix + name)
                continue
            self._restore(name, held, state_dict[prefix + name], prefix, error_msgs)
        self._load_extra(state_dict, prefix, missing_keys, unexpected_keys)
        known = {*own, EXTRA}
        for key in state_dict:
            if not key.startswith(prefix):
                continue
            name, _, below = key[len(prefix) :].partition(".")
            if not (name in known and not below) and name not in self._modules:
                unexpected_keys.append(key)

    def _load_extra(
        self, state: dict[str, Any], prefix: str, missing: list[str], unexpected: list[str]
    ) -> None:
        key = prefix + EXTRA
        if type(self).set_extra_state is not ModuleState.set_extra_state:
            if key in state:
                self._write(lambda: self.set_extra_state(state[key]))
            else:
                missing.append(key)
        elif key in state:
            unexpected.append(key)

    def _restore(
        self, name: str, held: Tensor, value: Any, prefix: str, problems: list[str]
    ) -> None:
        """Have ``value`` written to the member ``name``, unless its shape does not fit."""
        new = as_tensor(value)
        if new.shape != held.shape and not (held.ndim == 0 and tuple(new.shape) == (1,)):
            problems.append(
                f"shape of {prefix + name!r} is {list(new.shape)} in the state, "
                f"{list(held.shape)} here"
            )
        elif _under_way and _under_way[-1].assign:
            self._write(lambda: self._replace(name, held, value, new))
        else:
            self._write((held, new))

    def _replace(self, name: str, held: Tensor, value: Any, new: Tensor) -> None:
        """Take over a tensor itself; a parameter stays one, and as trainable as it was."""
        if isinstance(held, Parameter):
            made = value if isinstance(value, Parameter) else Parameter(new, held.requires_grad)
            setattr(self, name, made)
        else:
            self._buffers[name] = new
            structure.bump()

    @staticmethod
    def _write(write: Callable[[], None] | tuple[Tensor, Tensor]) -> None:
        """Have it written when all is known to fit (at once where nobody asks that)."""
        if _under_way:
            _under_way[-1].writes.append(write)
            return
        alone = _Load(False)
        alone.writes.append(write)
        alone.write()

    # ---- hooks ---------------------------------------------------------------------

    def _hooks_for(self, event: str) -> list[Any]:
        return list(self.__dict__.get("_state_hooks", {}).get(event, ()))

    def _add_state_hook(self, event: str, hook: Callable[..., Any]) -> RemovableHandle:
        hooks = self._state_hooks.setdefault(event, [])
        hooks.append(hook)
        return RemovableHandle(hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before the module is saved."""
        return self._add_state_hook("state_pre", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after it was saved."""
        return self._add_state_hook("state_post", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, …)`` before the module loads its own tensors.

        The other arguments are those of ``_load_from_state_dict``.
        """
        return self._add_state_hook("load_pre", hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        """PyTorch's older form, whose hooks are not given the module unless they ask for it."""

        def without(module: Any, *args: Any) -> Any:
            return hook(*args)

        return self._add_state_hook("load_pre", hook if with_module else without)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """PyTorch's older form, whose hooks may return another dictionary: it is the result where
        the module is the one that was asked."""
        return self._add_state_hook("state_other", hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after everything was loaded."""
        return self._add_state_hook("load_post", hook)


@no_grad()
def _copy(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    assign_all([(held, _fitted(new, held)) for held, new in pairs])


def _fitted(new: Tensor, held: Tensor) -> Tensor:
    if new.dtype is held.dtype and new.shape == held.shape:
        return new
    value: Tensor = in_dtype(new.detach(), held.dtype).reshape(tuple(held.shape))
    return value
