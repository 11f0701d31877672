"""One ``nn`` module in one mode: forward, backward, running statistics, errors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

import graphflow as gf
from tests.conformance import convert, names, samples
from tests.conformance.compare import compare
from tests.conformance.module_cases import NAMES, Case, own_cases
from tests.conformance.outcome import Missing, Outcome, OutOfTime

MOST = 12
"""Samples of a module and training mode; of more, evenly spaced ones are taken."""


def entries() -> list[str]:
    """Every module: ``nn.<name>``."""
    return [f"nn.{name}" for name in NAMES]


def _info(name: str) -> Any:
    return next((m for m in module_db if m.module_cls is getattr(torch.nn, name)), None)


def _cases(name: str, training: bool) -> list[Case]:
    samples.seed()
    info = _info(name)
    if info is None:
        return own_cases()[name]
    drawn = info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=True, training=training
    )
    cases = []
    for sample in drawn:
        if sample.forward_input is None:
            continue
        case = Case(*sample.constructor_input.args, **sample.constructor_input.kwargs)
        case.forward = sample.forward_input.args, sample.forward_input.kwargs
        cases.append(case)
    step = max(1.0, len(cases) / MOST)
    return [cases[int(i * step)] for i in range(min(len(cases), MOST))]


def run(key: str, mode: str, verbose: bool = False) -> Outcome:
    """Every sample of a module in one mode."""
    name, outcome = key.removeprefix("nn."), Outcome()
    if mode == "errors":
        for label, case, when in _error_cases(name):
            outcome.check(label, lambda c=case, w=when: _must_raise(name, c, w), verbose)
        return outcome
    if mode == "in-place":
        return outcome
    backward, compiled = mode in ("grad", "compiled-grad"), mode.startswith("compiled")
    check = _backward if backward else _forward
    for training in (True, False):
        for i, case in enumerate(_cases(name, training)):
            call = Call(name, case, training)
            if backward and not call.differentiable():
                continue
            label = f"{'training' if training else 'evaluation'} {i} {call}"
            outcome.check(label, lambda c=call: check(c, compiled, outcome), verbose)
    return outcome


class Call:
    """A module of both sides with the same weights, and arguments for both."""

    def __init__(self, name: str, case: Case, training: bool) -> None:
        self.name, self.case, self.training = name, case, training
        samples.seed()
        args, kwargs = case.constructor
        self.theirs = getattr(torch.nn, name)(*args, **kwargs).train(training)

    def __str__(self) -> str:
        return f"{self.name}{self.case}"

    def ours(self) -> Any:
        """GraphFlow's module, with PyTorch's weights."""
        cls = names.lookup(f"nn.{self.name}")
        args, kwargs = convert.map_tree(self.case.constructor, convert.to_graphflow)
        module = cls(*args, **kwargs).train(self.training)
        state = self.theirs.state_dict()
        module.load_state_dict({k: convert.to_graphflow(v) for k, v in state.items()})
        return module

    def arguments(self) -> Any:
        """Fresh arguments of our side."""
        return convert.map_tree(self.case.forward, convert.to_graphflow)

    def expected(self, dtype: torch.dtype | None = None) -> tuple[Any, Any, Any]:
        """PyTorch's result, module and arguments after the call, in ``dtype`` if given."""
        module = copy.deepcopy(self.theirs)
        if dtype is not None:
            module = module.to(dtype)
        args, kwargs = convert.map_tree(self.case.forward, lambda x: convert.copied(x, dtype))
        return module(*args, **kwargs), module, (args, kwargs)

    def differentiable(self) -> bool:
        """Whether some result has a gradient."""
        out = convert.tensors_of(self.expected()[0], torch.Tensor)
        return any(t.requires_grad for t in out)


def _near(found: Any, expected: Any, exact: Callable[[], Any], path: str) -> str:
    found, expected = convert.plain(found), convert.plain(expected)
    problem = compare(found, expected, path=path)
    if not problem:
        return ""
    try:
        return compare(found, expected, convert.plain(exact()), path)
    except Exception:
        return problem


def _forward(call: Call, compiled: bool, outcome: Outcome) -> str:
    module = call.ours()
    expected, after, _ = call.expected()
    args, kwargs = call.arguments()
    ready = gf.compile(module) if compiled else module
    found = ready(*args, **kwargs)
    if compiled:
        outcome.host.extend(n for n in ready.explain().host_ops if n not in outcome.host)
    problem = _near(found, expected, lambda: call.expected(torch.float64)[0], "result")
    if problem:
        return problem
    state = dict(module.state_dict())
    return _near(
        state, dict(after.state_dict()),
        lambda: dict(call.expected(torch.float64)[1].state_dict()), "state afterwards",
    )  # fmt: skip


def _backward(call: Call, compiled: bool, _: Outcome) -> str:
    cotangents = _cotangents(call)
    expected = _torch_gradients(call, cotangents)
    module, arguments = call.ours(), call.arguments()
    given = [None if c is None else convert.to_graphflow(c) for c in cotangents]

    def gradients(*tensors: gf.Tensor) -> Any:
        args, kwargs = convert.with_tensors(arguments, list(tensors))
        outs = convert.tensors_of(module(*args, **kwargs))
        pairs = [(o, c) for o, c in zip(outs, given, strict=True) if c is not None]
        wrt = [t for t in tensors if t.requires_grad]
        wrt += [p for p in module.parameters() if p.requires_grad]
        return gf.autograd.grad(
            [o for o, _ in pairs], wrt, [c for _, c in pairs], allow_unused=True
        )

    tensors = convert.tensors_of(arguments)
    grads = (gf.compile(gradients) if compiled else gradients)(*tensors)
    wrt = [t for t in tensors if t.requires_grad]
    wrt += [p for p in module.parameters() if p.requires_grad]
    found = convert.zeros_for_none(grads, wrt)
    return _near(
        found, expected, lambda: _torch_gradients(call, cotangents, torch.float64), "gradient"
    )


def _cotangents(call: Call) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(o.shape, generator=generator, dtype=o.dtype) if o.requires_grad else None
        for o in convert.tensors_of(call.expected()[0], torch.Tensor)
    ]


def _torch_gradients(call: Call, cotangents: Any, dtype: torch.dtype | None = None) -> Any:
    out, module, arguments = call.expected(dtype)
    outs = convert.tensors_of(out, torch.Tensor)
    pairs = [(o, c.to(o.dtype)) for o, c in zip(outs, cotangents) if c is not None]
    wrt = [t for t in convert.tensors_of(arguments, torch.Tensor) if t.requires_grad]
    wrt += [p for p in module.parameters() if p.requires_grad]
    grads = torch.autograd.grad(
        [o for o, _ in pairs], wrt, [c for _, c in pairs], allow_unused=True
    )
    return [torch.zeros_like(t) if g is None else g for t, g in zip(wrt, grads)]


def _error_cases(name: str) -> Iterator[tuple[str, Case, Any]]:
    samples.seed()
    info = _info(name)
    if info is None or info.module_error_inputs_func is None:
        return
    for training in (True, False):
        drawn = info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
        )
        for i, wrong in enumerate(drawn):
            sample = wrong.module_error_input
            case = Case(*sample.constructor_input.args, **sample.constructor_input.kwargs)
            if sample.forward_input is not None:
                case.forward = sample.forward_input.args, sample.forward_input.kwargs
            yield f"error {i}", case, wrong.error_on


def _must_raise(name: str, case: Case, when: Any) -> str:
    cls = names.lookup(f"nn.{name}")
    try:
        args, kwargs = convert.map_tree(case.constructor, convert.to_graphflow)
        module = cls(*args, **kwargs)
        if when is not ModuleErrorEnum.CONSTRUCTION_ERROR:
            args, kwargs = convert.map_tree(case.forward, convert.to_graphflow)
            module(*args, **kwargs)
    except (Missing, AttributeError, OutOfTime):
        raise
    except Exception:
        return ""
    return f"{name}{case} should raise"
