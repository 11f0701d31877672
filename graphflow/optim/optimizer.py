"""The optimiser base: parameter groups, state, and steps that compile.

Hyper-parameters are read through :meth:`Optimizer.hyper`, which yields a
run-time scalar inside a trace: changing ``group["lr"]`` takes effect on the
next call of a compiled step without another compilation.  What changes the
*structure* of an update (momentum on or off) goes through
:meth:`Optimizer.switch`, which the program guards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from graphflow.autograd.modes import in_grad_mode
from graphflow.checks import suggestion
from graphflow.errors import GraphFlowError, TraceError
from graphflow.functions.creation import full
from graphflow.functions.elementwise import add, mul, neg
from graphflow.handles import RemovableHandle
from graphflow.ir.types import float64
from graphflow.mode import mode, structure
from graphflow.optim.counts import STEP, Counts, is_count, scalar_dtype, separate_counters
from graphflow.optim.equal_updates import COUNT, EqualUpdates, SlotRequest
from graphflow.optim.param_group import ParamGroup, python_numbers
from graphflow.optim.ready_steps import Pairs, ReadySteps
from graphflow.optim.step_hooks import OF_ALL, added, with_hooks
from graphflow.optim.step_hooks import (
    register_optimizer_step_post_hook as register_optimizer_step_post_hook,
)
from graphflow.optim.step_hooks import (
    register_optimizer_step_pre_hook as register_optimizer_step_pre_hook,
)
from graphflow.promotion import cast
from graphflow.stale_gradient import fill_with_zeros
from graphflow.tensor import Tensor


def _as_pairs(complex_numbers: Tensor) -> Tensor:
    from graphflow.functions.complex_numbers import view_as_real  # few programs need it

    return view_as_real(complex_numbers)


class _Required:
    """The default of an option that every parameter group has to give."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


class Optimizer:
    """Base of every optimiser: sub-classes define ``update(p, grad, group, slots)``.

    An update sees complex numbers as pairs of real ones in a last axis.
    """

    takes_complex: ClassVar[bool] = True
    """Whether parameters may be complex."""

    _stepping = False
    """Whether a step is under way."""

    _opt_called = False
    """Whether there was a step, for schedules, which begin after it."""

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[ParamGroup] = []
        self.state = defaultdict(dict)
        self._counts = Counts()
        self._hooks: dict[str, list[Callable[..., Any]]] = {}
        self._ready_steps = ReadySteps()
        self.requests: dict[str, SlotRequest] | None = None
        """Slots that an update asks for, while one is recorded."""
        self._complex: Tensor | None = None
        """The complex parameter whose numbers the update under way sees as pairs."""
        self.updates_here: Callable[[Tensor], bool] | None = None
        """Which parameters this process updates, where others update the rest."""
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

    @property
    def state(self) -> defaultdict[Tensor, dict[str, Any]]:
        """Slots by name for each parameter; what a ``step()`` of one's own puts there is noted."""
        if mode.tracer is not None and type(self).step is not Optimizer.step:
            mode.tracer.assigned.watch(mode.tracer, self._state)
        return self._state

    @state.setter
    def state(self, value: defaultdict[Tensor, dict[str, Any]]) -> None:
        self._state = value
        structure.bump()

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters (tensors, or pairs of name and tensor) with their own options."""
        if mode.tracer is not None:
            raise TraceError(
                "an optimiser and its parameter groups cannot be made inside a compiled function: "
                "they would be made when it is traced only; make them outside the function"
            )
        if "params" not in param_group:
            raise ValueError(f"a parameter group needs 'params'; it has {sorted(param_group)}")
        self._check_options(param_group)
        missing = [n for n, v in self.defaults.items() if v is required and n not in param_group]
        if missing:
            raise ValueError(f"{type(self).__name__}: a parameter group needs {missing[0]!r}")
        group = ParamGroup({name: python_numbers(v) for name, v in self.defaults.items()})
        group.update(param_group)
        params = group["params"]
        given = [params] if isinstance(params, Tensor) else list(params)
        if given and all(isinstance(p, tuple) for p in given):
            group["param_names"] = [name for name, _ in given]
            given = [p for _, p in given]
        group["params"] = given
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for parameter in given:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, got {type(parameter).__name__}"
                )
            if not parameter.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            if parameter.dtype.is_complex and not self.takes_complex:
                raise RuntimeError(f"{type(self).__name__} does not support complex parameters")
            if id(parameter) in known:
                raise ValueError("a parameter is given twice (in one group or in several)")
            known.add(id(parameter))
        self.param_groups.append(group)
        structure.bump()

    def _check_options(self, param_group: Mapping[str, Any]) -> None:
        """A misspelt option is an error; one of the user's own is kept."""
        known = {*self.defaults, "params", "initial_lr", "name"}
        for option in param_group:
            hint = "" if option in known else suggestion(option, known)
            if hint:
                raise ValueError(f"{type(self).__name__} has no option {option!r}{hint}")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients (or set them to 0)."""
        self._assume_groups()
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                else:
                    fill_with_zeros(parameter)

    # ---- steps ---------------------------------------------------------------------

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "step" in cls.__dict__:
            cls.step = with_hooks(cls.__dict__["step"])  # type: ignore[method-assign]

    @with_hooks
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        return self._run(closure)

    def _run(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            loss = in_grad_mode(True, closure)
        in_grad_mode(False, self._update)
        return loss

    def _update(self) -> None:
        """A step over what has gradients."""
        found = [self._gradients(group) for group in self.param_groups]
        if not self._ready_steps.play(self, found):
            self.update_all(found)

    def update_all(self, found: Sequence[Pairs]) -> None:
        """A step over parameters of each group, given with their gradients."""
        self._counts.begin(self.state, (parameter for pairs in found for parameter, _ in pairs))
        for group, pairs in zip(self.param_groups, found, strict=True):
            self._step_group(group, pairs)
        self._assume_counters()

    def _gradients(self, group: ParamGroup) -> Pairs:
        """The parameters of ``group`` that a step updates, with their gradients."""
        found = ((p, p.grad) for p in group["params"])
        return [
            (parameter, gradient)
            for parameter, gradient in found
            if gradient is not None and (self.updates_here is None or self.updates_here(parameter))
        ]

    def _assume_groups(self) -> None:
        """In a trace: assume that groups and hooks have the members that they have now."""

        def members() -> tuple[tuple[int, ...], ...]:
            hooks = *self._hooks.values(), *OF_ALL.values()
            held = [*(group["params"] for group in self.param_groups), *hooks]
            return tuple(tuple(map(id, found)) for found in held)

        if mode.tracer is not None:
            mode.tracer.guard(members, members(), "the groups and hooks of an optimiser")

    def _assume_counters(self) -> None:
        """In a trace: assume that the same parameters count together from now on."""

        def counters() -> tuple[Any, ...]:
            held = (p for group in self.param_groups for p in group["params"])
            return tuple(self.state.get(parameter, {}).get(STEP) for parameter in held)

        if mode.tracer is not None:
            mode.tracer.guard(counters, counters(), "which parameters share a count of steps")

    @property
    def is_known(self) -> bool:
        """Whether it is known that an update depends on the parameter, its gradient, its state and
        the options of the group alone, and is the same for equal ones."""
        return type(self).__module__.startswith("graphflow.optim.")

    @property
    def _counts_steps(self) -> bool:
        """Whether the slot is :meth:`count`'s, and not that of a ``step()`` of one's own."""
        return type(self).update is not Optimizer.update

    def _step_group(self, group: ParamGroup, pairs: Pairs) -> None:
        """Update parameters of ``group``, each given with its gradient."""
        updates = None
        if mode.tracer is not None and self.is_known:
            updates = EqualUpdates(mode.tracer, self, group)
        for parameter, gradient in pairs:
            slots = self._slots(parameter)
            if parameter.dtype.is_complex:
                self._update_complex(parameter, gradient, group, slots)
            elif updates is not None:
                updates.apply(parameter, gradient, slots)
            else:
                self.update(parameter, gradient, group, slots)

    def _update_complex(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """:meth:`update` of real and imaginary parts, each by itself; the state is complex."""
        self._complex = parameter
        try:
            self.update(_as_pairs(parameter), _as_pairs(gradient), group, slots)
        finally:
            self._complex = None

    def update(
        self, parameter: Tensor, gradient: Tensor, group: ParamGroup, slots: dict[str, Any]
    ) -> None:
        """Change ``parameter`` in place; ``slots`` is its state, by name."""
        raise NotImplementedError

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before every step."""
        return self._add_hook("before", hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after every step."""
        return self._add_hook("after", hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[[Any], None], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` before :meth:`state_dict`."""
        return self._add_hook("before saving", hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state)`` after :meth:`state_dict`; what it returns, if not None,
        is the state instead."""
        return self._add_hook("after saving", hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state)`` before :meth:`load_state_dict`; what it returns, if not
        None, is loaded instead."""
        return self._add_hook("before loading", hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[[Any], None], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` after :meth:`load_state_dict`."""
        return self._add_hook("after loading", hook, prepend)

    def _add_hook(
        self, event: str, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        return added(self._hooks.setdefault(event, []), hook, prepend)

    # ---- what updates are written with ----------------------------------------------

    def directed(self, parameter: Tensor, gradient: Tensor, group: ParamGroup) -> Tensor:
        """The gradient to go down: turned round by ``maximize``, with its weight decay."""
        if "maximize" in group and self.switch(group, "maximize"):
            gradient = neg(gradient)
        if "weight_decay" in group and self.switch(group, "weight_decay"):
            if "decoupled_weight_decay" in group and self.switch(group, "decoupled_weight_decay"):
                rate, decay = self.hyper(group, "lr"), self.hyper(group, "weight_decay")
                parameter.mul_(1.0 - rate * decay)
            else:
                decay = self.hyper(group, "weight_decay")
                gradient = add(gradient, mul(parameter, decay))
        return gradient

    def _slots(self, parameter: Tensor) -> dict[str, Any]:
        return self.state[parameter]

    def slot(self, slots: dict[str, Any], name: str, parameter: Tensor, first: Any = 0.0) -> Tensor:
        """The state called ``name`` in the parameter's shape, ``first`` when first asked for."""
        whole = self._complex
        if whole is None:
            return self.slot_for(slots, SlotRequest(name, tuple(parameter.shape), first), parameter)
        request = SlotRequest(name, tuple(whole.shape), complex(first, first))
        return _as_pairs(self.slot_for(slots, request, whole))

    def number(
        self, slots: dict[str, Any], name: str, parameter: Tensor, first: Any = 0.0
    ) -> Tensor:
        """A scalar of the state: float32, unless double precision is the default."""
        return self.slot_for(slots, SlotRequest(name, None, first), parameter)

    def count(self, slots: dict[str, Any], parameter: Tensor) -> Tensor:
        """The number of this update, a scalar of the state as in PyTorch.

        All parameters that are updated together have the same one.
        """
        if self.requests is not None:
            self.requests[STEP] = COUNT
        return self._counts.count(slots, parameter)

    def counted(self, slots: dict[str, Any], parameter: Tensor) -> Tensor:
        """The number of this update, for arithmetic: in float64, as it is in Python."""
        return cast(self.count(slots, parameter), float64)

    def slot_for(self, slots: dict[str, Any], request: SlotRequest, parameter: Tensor) -> Tensor:
        """The state that ``request`` describes, made when first asked for."""
        name = request.name
        if self.requests is not None:
            self.requests[name] = request
        found: Tensor | None = slots.get(name)
        if found is None:
            # State is real memory even when a trace asks for it first: the program captures it.
            from graphflow.trace import outside_trace

            with outside_trace():
                dtype = scalar_dtype() if request.shape is None else parameter.dtype
                extents, device = request.shape or (), parameter.device
                found = slots[name] = full(extents, request.first, dtype=dtype, device=device)
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

    # ---- saving and loading ---------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Options and state, parameters by number, as PyTorch lays it out."""
        for hook in self._hooks.get("before saving", ()):
            hook(self)
        numbers = self._numbers()
        groups = []
        for group in self.param_groups:
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {numbers[id(p)]: dict(slots) for p, slots in self.state.items() if slots}
        separate_counters(state.values())
        return self._through("after saving", {"state": state, "param_groups": groups})

    def _through(self, event: str, state: dict[str, Any]) -> dict[str, Any]:
        """The state that hooks make of ``state``."""
        for hook in self._hooks.get(event, ()):
            changed = hook(self, state)
            state = state if changed is None else changed
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over options and state; nothing changes unless everything fits."""
        self._load(self._through("before loading", dict(state_dict)))
        for hook in self._hooks.get("after loading", ()):
            hook(self)

    def _load(self, state_dict: Mapping[str, Any]) -> None:
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise GraphFlowError("the state has parameter groups of other sizes than the optimiser")
        own = [p for group in self.param_groups for p in group["params"]]
        saved_numbers = [number for group in groups for number in group["params"]]
        parameters = dict(zip(saved_numbers, own, strict=True))
        for number in state_dict["state"]:
            if number not in parameters:
                raise GraphFlowError(f"the state names parameter {number}, which is not here")
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update({k: v for k, v in saved.items() if k != "params"})
        counts: dict[Tensor, float] = {}
        for number, saved_slots in state_dict["state"].items():
            parameter = parameters[number]
            slots = self._slots(parameter)
            for name, value in saved_slots.items():
                if name == STEP and is_count(value) and self._counts_steps:
                    counts[parameter] = float(value)
                else:
                    self._load_slot(slots, name, parameter, value)
            if self._counts_steps and parameter not in counts and STEP not in slots:
                self.imply_count(counts, slots, parameter)
        self._counts.load(self.state, counts)

    def _load_slot(self, slots: dict[str, Any], name: str, parameter: Tensor, value: Any) -> None:
        """One saved value: tensors are copied, None is nothing."""
        if value is None:
            return
        if not isinstance(value, Tensor):
            slots[name] = value
            return
        same = value.shape == parameter.shape
        shape = tuple(value.shape) if same or value.ndim else None
        self.slot_for(slots, SlotRequest(name, shape, 0.0), parameter).copy_(value)

    def imply_count(
        self, counts: dict[Tensor, float], slots: dict[str, Any], parameter: Tensor
    ) -> None:
        """Note how often ``parameter`` was updated, where a saved state does not say it."""

    def _numbers(self) -> dict[int, int]:
        flat = [p for group in self.param_groups for p in group["params"]]
        return {id(p): i for i, p in enumerate(flat)}

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {v}" for k, v in sorted(group.items()) if k != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"
