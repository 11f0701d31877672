"""One entry of the operation database in one mode: eager, compiled, grad, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import graphflow as gf
from tests.conformance import convert, names, samples
from tests.conformance.compare import compare
from tests.conformance.outcome import Missing, Outcome, OutOfTime


def run(key: str, mode: str, verbose: bool = False) -> Outcome:
    """Every sample of an entry in one mode."""
    info, outcome = samples.entries()[key], Outcome()
    if mode == "errors":
        for i, drawn in enumerate(samples.error_samples(info)):
            outcome.check(f"error {i}", lambda d=drawn: _must_raise(info, d), verbose)
        return outcome
    wants_grad = mode in ("grad", "compiled-grad")
    if wants_grad and not samples.differentiable(info):
        return outcome
    if mode == "in-place" and info.inplace_variant is None:
        return outcome
    check = CHECKS[mode]
    for i, sample in enumerate(samples.samples(info, wants_grad)):
        call = Call(info, sample)
        if not call.checkable(mode):
            continue
        if mode.startswith("compiled") and call.unknown_size:
            outcome.apart += 1
            continue
        outcome.check(f"sample {i} {call}", lambda c=call: check(c, outcome), verbose)
    return outcome


class Call:
    """A sample of an entry for both sides: arguments, functions, results."""

    def __init__(self, info: Any, sample: Any) -> None:
        self.info = info
        self.arguments = ((sample.input, *sample.args), dict(sample.kwargs))
        self.unknown_size = samples.unknown_size(info.name, self.arguments)
        self.ours = convert.map_tree(self.arguments, _late)
        self.finish = sample.output_process_fn_grad

    def __str__(self) -> str:
        return f"({convert.shown(self.arguments)})"

    def graphflow_arguments(self) -> Any:
        """Fresh arguments of our side; raises Missing for a constant we have no name for."""
        return convert.map_tree(self.ours, lambda x: x() if isinstance(x, _Later) else x)

    def expected(self, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
        """PyTorch's result and its arguments after the call; in ``dtype`` instead of float32."""
        args, kwargs = convert.map_tree(self.arguments, lambda x: convert.copied(x, dtype))
        return self.info.op(*args, **kwargs), (args, kwargs)

    def exact(self) -> Any:
        """PyTorch's result in double precision, where it can be had."""
        try:
            return convert.plain(self.comparable(self.expected(torch.float64)[0], self.finish))
        except Exception:
            return None

    def comparable(self, out: Any, finish: Callable[..., Any]) -> Any:
        """``out`` up to what is not determined (signs of singular vectors, memory not written)."""
        if self.info.name in FREE_VALUES:
            return out.zero_()
        empty = any(0 in t.shape for t in convert.tensors_of(self.arguments, torch.Tensor))
        return finish(out) if self.info.name in FREE_SIGNS and not empty else out

    def checkable(self, mode: str) -> bool:
        """Whether PyTorch has something to compare with in this mode."""
        if mode == "in-place":
            try:
                out, _ = self.written()
            except Exception:  # results of another shape or dtype cannot be written back
                return False
            return bool(out.shape == self.arguments[0][0].shape)  # some resize their input
        return not mode.endswith("grad") or self.differentiable()

    def written(self) -> tuple[Any, Any]:
        """Like :meth:`expected`, of the in-place form."""
        args, kwargs = convert.map_tree(self.arguments, lambda x: convert.copied(x, None))
        return self.info.inplace_variant(*args, **kwargs), (args, kwargs)

    def differentiable(self) -> bool:
        """Whether there is a gradient to compare."""
        if not any(t.requires_grad for t in convert.tensors_of(self.arguments, torch.Tensor)):
            return False
        try:
            out = self.finish(self.expected()[0])
        except IndexError:  # the database's own functions on empty singular values
            return False
        return any(t.requires_grad for t in convert.tensors_of(out, torch.Tensor))


FREE_SIGNS = frozenset({
    "svd", "svd_lowrank", "pca_lowrank", "linalg.svd", "linalg.eig", "linalg.eigh",
})  # fmt: skip
"""Entries whose samples say how to make their result unique; others are compared as they are."""

FREE_VALUES = frozenset({"empty_like"})
"""Entries whose result is memory as it was found: only shape and dtype are compared."""


class _Later:
    """A tensor or constant of ours that is made afresh for every call."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return convert.to_graphflow(self.value)


def _late(value: Any) -> Any:
    return _Later(value.detach().requires_grad_(value.requires_grad)
                  if isinstance(value, torch.Tensor) else value)  # fmt: skip


def _check(call: Call, out: Any, after: Any, wanted: tuple[Any, Any] | None = None) -> str:
    """Compare the result, then the arguments (an operation may write to them, or must not)."""
    expected, arguments = wanted or call.expected()
    found = convert.plain(call.comparable(out, names.rebound(call.finish)))
    right = convert.plain(call.comparable(expected, call.finish))
    problem = compare(found, right) and compare(found, right, call.exact())
    if problem:
        return problem
    if wanted is not None:
        return ""  # the first argument is the result
    before = convert.map_tree(after, _constant), convert.map_tree(arguments, _constant)
    return compare(*map(convert.plain, before), path="arguments afterwards")


def _constant(value: Any) -> Any:
    """Only tensors can be written to; devices, dtypes and plain values are as they were."""
    return value if isinstance(value, torch.Tensor | gf.Tensor) else None


def _eager(call: Call, _: Outcome) -> str:
    function = names.function_of(call.info)
    args, kwargs = call.graphflow_arguments()
    return _check(call, function(*args, **kwargs), (args, kwargs))


def _in_place(call: Call, _: Outcome) -> str:
    function = names.in_place_of(call.info)
    args, kwargs = call.graphflow_arguments()
    out = function(*args, **kwargs)
    if out is not args[0]:
        return "does not return the tensor that it writes to"
    return _check(call, out, (args, kwargs), call.written())


def _compiled(call: Call, outcome: Outcome) -> str:
    function = names.function_of(call.info)
    arguments = call.graphflow_arguments()

    def program(*tensors: gf.Tensor) -> Any:
        args, kwargs = convert.with_tensors(arguments, list(tensors))
        return function(*args, **kwargs)

    compiled = gf.compile(program)
    tensors = convert.tensors_of(arguments)
    out = compiled(*tensors)
    outcome.host.extend(n for n in compiled.explain().host_ops if n not in outcome.host)
    return _check(call, out, arguments)


def _grad(call: Call, _: Outcome) -> str:
    return _check_gradients(call, lambda function: function)


def _compiled_grad(call: Call, _: Outcome) -> str:
    return _check_gradients(call, gf.compile)


def _check_gradients(call: Call, ready: Callable[[Any], Any]) -> str:
    function, finish = names.function_of(call.info), names.rebound(call.finish)
    cotangents = _cotangents(call)
    expected = convert.plain(_torch_gradients(call, cotangents))
    arguments = call.graphflow_arguments()
    given = [None if c is None else convert.to_graphflow(c) for c in cotangents]

    def gradients(*tensors: gf.Tensor) -> Any:
        args, kwargs = convert.with_tensors(arguments, list(tensors))
        outs = convert.tensors_of(finish(function(*args, **kwargs)))
        pairs = [(o, c) for o, c in zip(outs, given, strict=True) if c is not None]
        wrt = [t for t in tensors if t.requires_grad]
        return gf.autograd.grad(
            [o for o, _ in pairs], wrt, [c for _, c in pairs], allow_unused=True
        )

    tensors = convert.tensors_of(arguments)
    found = convert.plain(convert.zeros_for_none(
        ready(gradients)(*tensors), [t for t in tensors if t.requires_grad]
    ))  # fmt: skip
    problem = compare(found, expected, path="gradient")
    return problem and compare(found, expected, _exact_gradients(call, cotangents), "gradient")


def _cotangents(call: Call) -> list[torch.Tensor | None]:
    """A fixed random cotangent for each result tensor that has a gradient."""
    outs = convert.tensors_of(call.finish(call.expected()[0]), torch.Tensor)
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(o.shape, generator=generator, dtype=o.dtype) if o.requires_grad else None
        for o in outs
    ]


def _torch_gradients(
    call: Call, cotangents: list[torch.Tensor | None], dtype: torch.dtype | None = None
) -> list[torch.Tensor]:
    out, arguments = call.expected(dtype)
    outs = convert.tensors_of(call.finish(out), torch.Tensor)
    pairs = [(o, c.to(o.dtype)) for o, c in zip(outs, cotangents) if c is not None]
    wrt = [t for t in convert.tensors_of(arguments, torch.Tensor) if t.requires_grad]
    grads = torch.autograd.grad(
        [o for o, _ in pairs], wrt, [c for _, c in pairs], allow_unused=True
    )
    return [torch.zeros_like(t) if g is None else g for t, g in zip(wrt, grads)]


def _exact_gradients(call: Call, cotangents: list[torch.Tensor | None]) -> Any:
    try:
        return convert.plain(_torch_gradients(call, cotangents, torch.float64))
    except Exception:
        return None


def _must_raise(info: Any, drawn: Any) -> str:
    call = Call(info, drawn.sample_input)
    if any(t.device.type != "cpu" for t in convert.tensors_of(call.arguments, torch.Tensor)):
        return ""
    if names.is_method(info.name) and not isinstance(drawn.sample_input.input, torch.Tensor):
        return ""  # Python's own error, before the method is reached
    try:
        call.expected()
        return ""  # some are errors on other devices only
    except Exception as error:
        wanted = error
    function = names.function_of(info)
    try:
        args, kwargs = call.graphflow_arguments()
    except ValueError:  # more dimensions than an array can have
        return ""
    try:
        function(*args, **kwargs)
    except (Missing, AttributeError, OutOfTime):
        raise
    except Exception:
        return ""
    return f"{call} should raise {type(wanted).__name__}: {wanted}"


CHECKS: dict[str, Callable[[Call, Outcome], str]] = {
    "eager": _eager,
    "compiled": _compiled,
    "grad": _grad,
    "compiled-grad": _compiled_grad,
    "in-place": _in_place,
}
