"""``GradScaler``: the loss times a factor, so that small gradients survive in float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphflow.autograd.modes import no_grad
from graphflow.codegen.cuda.toolchain import state
from graphflow.device import CPU, Device
from graphflow.errors import GraphFlowError
from graphflow.functions.creation import full
from graphflow.functions.elementwise import add, eq, isfinite, logical_not, logical_or, mul, where
from graphflow.functions.reductions import any as any_of
from graphflow.functions.shaping import stack
from graphflow.ir.types import float32, int32
from graphflow.mode import mode, structure
from graphflow.moves import moved
from graphflow.promotion import cast
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.optim import Optimizer


class GradScaler:
    """Scales the loss, unscales gradients, and skips updates whose gradients overflowed.

    After an overflow the scale is multiplied by ``backoff_factor``; after ``growth_interval``
    updates without one, by ``growth_factor``.  Everything works inside a compiled step too:
    the scale and the count of good updates are state of its program, and an update is skipped
    by taking the old values of all that it wrote.  ``unscale_``, ``step`` and ``update`` belong
    in the same function.

    The scale lies on ``device`` if there is one of that name, else on the CPU.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if enabled and growth_factor <= 1.0:
            raise ValueError(f"growth_factor must be above 1, not {growth_factor}")
        if enabled and not 0.0 < backoff_factor < 1.0:
            raise ValueError(f"backoff_factor must be between 0 and 1, not {backoff_factor}")
        self._device, self._enabled = device, bool(enabled)
        self._factors = {
            "growth_factor": float(growth_factor),
            "backoff_factor": float(backoff_factor),
            "growth_interval": int(growth_interval),
        }
        place = CPU if Device(device).type == "cuda" and not state().usable else device
        self._scale = full((), float(init_scale), dtype=float32, device=place)
        self._good = full((), 0, dtype=int32, device=place)
        self._scale.name, self._good.name = "loss_scale", "good_updates"
        self._found: dict[int, Tensor] = {}
        """Whether the gradients of an optimiser (by ``id``) overflowed since ``update``."""
        self._stepped: set[int] = set()

    # ---- the loop ------------------------------------------------------------------

    def scale(self, outputs: Any) -> Any:
        """A tensor, or every one of a nesting of lists and tuples, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return mul(outputs, _beside(outputs, self._scale))
        if isinstance(outputs, (list, tuple)):
            made = [self.scale(item) for item in outputs]
            return type(outputs)(made)
        raise TypeError(
            f"scale takes tensors, or lists or tuples of them, not {type(outputs).__name__}"
        )

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale, and note whether they are finite."""
        if not self._enabled:
            return
        if self._overflow(optimizer) is not None:
            after = id(optimizer) in self._stepped
            raise GraphFlowError(
                "unscale_() is called after step()"
                if after
                else "unscale_() has already been called on this optimizer since the last update()"
            )
        with no_grad():
            factor = self._scale.double().reciprocal().float()
            flags = []
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    gradient = parameter.grad
                    if gradient is None:
                        continue
                    flag = any_of(logical_not(isfinite(gradient)))
                    flags.append(_beside(self._scale, flag))
                    here = _beside(gradient, factor)
                    gradient.copy_(mul(gradient, cast(here, gradient.dtype)))
            if not flags:
                raise GraphFlowError("no parameter of the optimizer has a gradient to unscale")
            self._found[id(optimizer)] = any_of(stack(flags))

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step(...)`` if the gradients are finite; they are unscaled if need be."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or (args and callable(args[0])):
            raise GraphFlowError("step with a closure does not work with a GradScaler")
        if self._overflow(optimizer) is None:
            self.unscale_(optimizer)
        elif id(optimizer) in self._stepped:
            raise GraphFlowError("step() has already been called since the last update()")
        self._stepped.add(id(optimizer))
        overflow = self._found[id(optimizer)]
        tracer = mode.tracer
        if tracer is None:
            return None if overflow.item() else optimizer.step(*args, **kwargs)
        before = tracer.values_now()
        result = optimizer.step(*args, **kwargs)
        tracer.undo_where(tracer.node(overflow), before)
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Adapt the scale (or set it), and be ready for the next step."""
        if not self._enabled:
            return
        found = [flag for flag in self._found.values() if flag._cell.tracer is mode.tracer]
        self._found.clear()
        self._stepped.clear()
        with no_grad():
            if new_scale is not None:
                self._scale.copy_(_as_scale(new_scale))
                return
            if not found:
                raise GraphFlowError(
                    "update() found no step to learn from: call scale(loss).backward() and "
                    "step(optimizer) before it, in the same compiled function if there is one"
                )
            overflow = any_of(stack(found))
            good = add(self._good, 1)
            grown = eq(good, cast(self._factor("growth_interval"), int32))
            larger = mul(self._scale, cast(self._factor("growth_factor"), float32))
            smaller = mul(self._scale, cast(self._factor("backoff_factor"), float32))
            usable = isfinite(larger)
            grown_to = where(usable, larger, self._scale)
            kept = where(grown, grown_to, self._scale)
            self._scale.copy_(where(overflow, smaller, kept))
            self._good.copy_(where(logical_or(overflow, grown), 0, good))

    def _factor(self, name: str) -> Tensor:
        """A factor as a tensor; in a trace a run-time scalar, so that it may change."""
        if mode.tracer is None:
            return full((), self._factors[name], dtype=float32)
        return mode.tracer.scalar((id(self), name), lambda: float(self._factors[name]), name)

    def _overflow(self, optimizer: Optimizer) -> Tensor | None:
        """What was noted of an optimiser's gradients in this function since ``update``."""
        flag = self._found.get(id(optimizer))
        if flag is None or flag._cell.tracer is not mode.tracer:  # left behind by another trace
            self._stepped.discard(id(optimizer))
            return None
        return flag

    # ---- looking and setting --------------------------------------------------------

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale now; 1.0 if switched off."""
        return float(self._scale.item()) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by after many good updates."""
        return self._factors["growth_factor"]

    def set_growth_factor(self, new_factor: float) -> None:
        """Set what the scale is multiplied by after many good updates."""
        self._set("growth_factor", float(new_factor))

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after an overflow."""
        return self._factors["backoff_factor"]

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set what the scale is multiplied by after an overflow."""
        self._set("backoff_factor", float(new_factor))

    def get_growth_interval(self) -> int:
        """How many good updates in a row let the scale grow."""
        return int(self._factors["growth_interval"])

    def set_growth_interval(self, new_interval: int) -> None:
        """Set how many good updates in a row let the scale grow."""
        self._set("growth_interval", int(new_interval))

    def _set(self, name: str, value: float) -> None:
        self._factors[name] = value
        structure.revalue()

    # ---- saving ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Scale, factors and count, under PyTorch's names; empty if switched off."""
        if not self._enabled:
            return {}
        count = int(self._good.item())
        return {"scale": self.get_scale(), **self._factors, "_growth_tracker": count}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        if not self._enabled:
            return
        if not state_dict:
            raise GraphFlowError(
                "the state is empty, perhaps because it was saved from a scaler that was off"
            )
        for name in self._factors:
            self._set(name, state_dict[name])
        with no_grad():
            self._scale.fill_(float(state_dict["scale"]))
            self._good.fill_(int(state_dict["_growth_tracker"]))


def _beside(tensor: Tensor, scalar: Tensor) -> Tensor:
    """``scalar`` where ``tensor`` lies; a compiled program sees to that by itself."""
    return scalar if mode.tracer is not None else moved(scalar, tensor.device)


def _as_scale(value: float | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        if value.requires_grad or value.numel() != 1:
            raise GraphFlowError("a new scale is one number without gradient")
        return cast(value.reshape(()), float32)
    return full((), float(value), dtype=float32)
