"""Parameter groups: the options that updates read, checked when set, seen by compiled steps."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from graphflow.errors import TraceError
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
        value = python_numbers(value)
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


def python_numbers(value: Any) -> Any:
    """``value`` with numbers of NumPy (in a tuple, too) as Python's, which programs read."""
    if isinstance(value, tuple):
        return tuple(map(python_numbers, value))
    return value.item() if isinstance(value, np.generic) else value


def check_number(name: str, value: Any, low: float = 0.0) -> None:
    """Refuse a hyper-parameter that is not a finite number of at least ``low``."""
    if isinstance(value, Tensor):
        return
    if not isinstance(value, Real) or not math.isfinite(value) or value < low:
        least = f" >= {low:g}" if math.isfinite(low) else ""
        raise ValueError(f"Invalid {name}: {value!r}; it must be a finite number{least}")


_NUMBERS = {
    "lr": "learning rate", "momentum": "momentum value", "dampening": "dampening value",
    "weight_decay": "weight_decay value", "eps": "epsilon value",
}  # fmt: skip


def check_option(name: str, value: Any) -> None:
    """Refuse options no update can be computed with, when they are set."""
    if name in _NUMBERS:
        # A schedule gone past its end may reach a rate below 0, which is set but never used.
        low = float("-inf") if name in ("dampening", "lr") else 0.0
        for entry in value if isinstance(value, (list, tuple)) else (value,):
            if entry is not None or entry is value:
                check_number(_NUMBERS[name], entry, low)
    elif name == "betas":
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ValueError(f"betas must be two numbers, such as (0.9, 0.999), not {value!r}")
        for i, beta in enumerate(value):
            if not isinstance(beta, (int, float, np.floating, Tensor)) or not 0 <= beta < 1:
                raise ValueError(
                    f"Invalid beta parameter at index {i}: {beta}; it must be in [0, 1)"
                )


def _numeric(value: Any) -> bool:
    """True for numbers (and tuples of them) that programs read at run time."""
    if isinstance(value, tuple):
        return all(map(_numeric, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def execution(*, differentiable: bool = False, **options: Any) -> dict[str, Any]:
    """PyTorch's options about *how* a step runs: kept, so that its checkpoints fit, not used.

    Every step here is one update a parameter, fused by the compiler.
    """
    if differentiable:
        raise NotImplementedError("differentiable=True: steps are not recorded for backward")
    return {"differentiable": False, **options}
