"""The optimiser base: parameter groups, state, and steps that compile.

Hyper-parameters are read through :meth:`Optimizer.hyper`, which yields a
run-time scalar inside a trace: changing ``group["lr"]`` takes effect on the
next call of a compiled step without another compilation.  What changes the
*structure* of an update (momentum on or off) goes through
:meth:`Optimizer.switch`, which the program guards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphflow.autograd.history import enable_grad, no_grad
from graphflow.checks import suggestion
from graphflow.errors import GraphFlowError, TraceError
from graphflow.functions.creation import zeros_like
from graphflow.mode import mode, structure
from graphflow.tensor import Tensor


class ParamGroup(dict[str, Any]):
    """Parameters and the options they share; every change is seen by compiled steps."""

    def __setitem__(self, key: str, value: Any) -> None:
        if mode.tracer is not None:
            raise TraceError(
                f"setting the optimiser's option {key!r} inside a compiled function would happen "
                "when it is traced only; set it, or step the scheduler, outside the function"
            )
        check_option(key, value)
        before = self.get(key)
        super().__setitem__(key, value)
        if _numeric(before) and _numeric(value) and bool(before) == bool(value):
            structure.revalue()
        else:
            structure.bump()

    def __getitem__(self, key: str) -> Any:
        """The option; inside a trace a float is a run-time scalar, what is plain is assumed."""
        value = super().__getitem__(key)
        tracer = mode.tracer
        if tracer is None or key == "params" or isinstance(value, Tensor):
            return value
        if isinstance(value, float):
            return tracer.scalar((id(self), key), lambda: self.plain(key), key)
        if isinstance(value, tuple) and all(isinstance(v, float) for v in value):
            return tuple(self._entry(key, i) for i in range(len(value)))
        return tracer.guard(lambda: self.plain(key), value, f"optimiser option {key!r}")

    def plain(self, key: str) -> Any:
        """The option as it is stored, trace or not."""
        return super().__getitem__(key)

    def _entry(self, key: str, index: int) -> Any:
        assert mode.tracer is not None
        label = f"{key}_{index}"
        return mode.tracer.scalar((id(self), label), lambda: self.plain(key)[index], label)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several options."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


def check_number(name: str, value: Any, low: float = 0.0) -> None:
    """Refuse a hyper-parameter that is not a finite number of at least ``low``."""
    if isinstance(value, Tensor):
        return
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < low:
        raise ValueError(f"Invalid {name}: {value!r}; it must be a finite number >= {low:g}")


_NUMBERS = {
    "lr": "learning rate", "momentum": "momentum value", "dampening": "dampening value",
    "weight_decay": "weight_decay value", "eps": "epsilon value",
}  # fmt: skip


def check_option(name: str, value: Any) -> None:
    """Refuse options no update can be computed with, when they are set."""
    if name in _NUMBERS:
        check_number(_NUMBERS[name], value, float("-inf") if name == "dampening" else 0.0)
    elif name == "betas":
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ValueError(f"betas must be two numbers, such as (0.9, 0.999), not {value!r}")
        for i, beta in enumerate(value):
            if not isinstance(beta, (int, float, Tensor)) or not 0 <= beta < 1:
                raise ValueError(
                    f"Invalid beta parameter at index {i}: {beta}; it must be in [0, 1)"
                )


def _numeric(value: Any) -> bool:
    """True for numbers (and tuples of them) that programs read at run time."""
    if isinstance(value, tuple):
        return all(map(_numeric, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Optimizer:
    """Base of every optimiser: sub-classes define ``update(p, grad, group, slots)``."""

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[ParamGroup] = []
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(
                "an optimizer takes an iterable of tensors or groups, such as model.parameters(), "
                f"not a {type(params).__name__}"
            )
        given = list(params)
        if not given:
            raise ValueError("optimizer got an empty parameter list")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with their own options."""
        if "params" not in param_group:
            raise ValueError(f"a parameter group needs 'params'; it has {sorted(param_group)}")
        known_options = {*self.defaults, "params", "initial_lr", "name"}
        for option in param_group:
            if option not in known_options:
                hint = suggestion(option, known_options)
                raise ValueError(f"{type(self).__name__} has no option {option!r}{hint}")
        group = ParamGroup(self.defaults)
        group.update(param_group)
        params = group["params"]
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for parameter in group["params"]:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, got {type(parameter).__name__}"
                )
            if not parameter.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            if id(parameter) in known:
                raise ValueError("a parameter is given twice (in one group or in several)")
            known.add(id(parameter))
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients (or set them to 0)."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad = zeros_like(parameter)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for index, group in enumerate(self.param_groups):
                if mode.tracer is not None:
                    mode.tracer.guard(
                        lambda g=group: tuple(map(id, g["params"])),  # type: ignore[misc]
                        tuple(map(id, group["params"])),
                        f"the parameters of optimiser group {index}",
                    )
                self._step_group(group, index)
        return loss

    def _step_group(self, group: ParamGroup, index: int) -> None:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None:
                self.update(parameter, gradient, group, self._slots(parameter))

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Tensor]
    ) -> None:
        """Change ``parameter`` in place; ``slots`` is its state, by name."""
        raise NotImplementedError

    def _slots(self, parameter: Tensor) -> dict[str, Tensor]:
        return self.state.setdefault(parameter, {})

    def slot(self, slots: dict[str, Tensor], name: str, parameter: Tensor) -> Tensor:
        """The state called ``name``, zeros like the parameter when first asked for."""
        return self._slot(slots, name, parameter, tuple(parameter.shape))

    def counter(self, slots: dict[str, Tensor], parameter: Tensor) -> Tensor:
        """The number of updates so far, a float32 scalar as in PyTorch."""
        return self._slot(slots, "step", parameter, ())

    def _slot(
        self, slots: dict[str, Tensor], name: str, parameter: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        found = slots.get(name)
        if found is None:
            # State is real memory even when a trace asks for it first: the program captures it.
            from graphflow.trace import outside_trace

            with outside_trace():
                from graphflow.functions.creation import zeros

                dtype = parameter.dtype if shape == tuple(parameter.shape) else None
                found = slots[name] = zeros(shape, dtype=dtype)
                found.name = name
        if mode.tracer is not None:
            mode.tracer.name_after(found, name, parameter)
            mode.tracer.private.add(found._cell)
        return found

    def hyper(self, group: ParamGroup, name: str, index: int | None = None) -> Any:
        """A hyper-parameter (or entry ``index`` of a tuple of them), for arithmetic.

        A float eagerly, a run-time scalar inside a trace.
        """

        def read() -> Any:
            value = group.plain(name)
            return value if index is None else value[index]

        if mode.tracer is None or isinstance(read(), Tensor):
            return read()
        label = name if index is None else f"{name}_{index}"
        return mode.tracer.scalar((id(group), label), read, label)

    def switch(self, group: ParamGroup, name: str) -> bool:
        """Whether an option is on: part of the program's structure, guarded in a trace."""
        on = bool(group.plain(name))
        if mode.tracer is not None:
            mode.tracer.guard(lambda: bool(group.plain(name)), on, f"optimiser option {name!r}")
        return on

    def state_dict(self) -> dict[str, Any]:
        """Options and state, parameters by number, as PyTorch lays it out."""
        numbers = self._numbers()
        groups = []
        for group in self.param_groups:
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {numbers[id(p)]: dict(slots) for p, slots in self.state.items() if slots}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over options and state; nothing changes unless everything fits."""
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise GraphFlowError("the state has parameter groups of other sizes than the optimiser")
        numbers = {i: p for g in self.param_groups for i, p in zip(*self._pairs(g), strict=True)}
        for number in state_dict["state"]:
            if number not in numbers:
                raise GraphFlowError(f"the state names parameter {number}, which is not here")
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update({k: v for k, v in saved.items() if k != "params"})
        for number, saved_slots in state_dict["state"].items():
            slots = self._slots(numbers[number])
            for name, value in saved_slots.items():
                held = self._slot(slots, name, numbers[number], tuple(value.shape))
                held.copy_(value)

    def _pairs(self, group: ParamGroup) -> tuple[list[int], list[Tensor]]:
        numbers = self._numbers()
        return [numbers[id(p)] for p in group["params"]], group["params"]

    def _numbers(self) -> dict[int, int]:
        flat = [p for group in self.param_groups for p in group["params"]]
        return {id(p): i for i, p in enumerate(flat)}

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {v}" for k, v in sorted(group.items()) if k != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"
