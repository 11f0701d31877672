"""Distributions beside PyTorch's: what each says of values that PyTorch drew, and gradients.

Values are in single precision, and judged as those of operations are: within ``assert_close``'s
tolerance, or about as near to PyTorch's result in double precision as its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.distributions import kl

import graphflow as gf
from tests.conformance import convert
from tests.conformance.compare import compare
from tests.conformance.distribution_cases import CASES, TRANSFORMS, Case
from tests.conformance.outcome import Outcome

DIVERGENCE, CHANGES = "distributions.kl_divergence", "distributions.transforms"
WRONG = {("Kumaraswamy", "mode"), ("Weibull", "mode")}
"""Answers of PyTorch's that are NaN where there is a mode: for all, for concentrations below 1."""
SMOOTH = ("mean", "variance", "stddev", "log_prob", "entropy", "cdf", "icdf")
"""What may have gradients by the parameters."""


def entries() -> list[str]:
    """``distributions.<class>``, all divergences in one entry, all transforms in one."""
    missing = {
        name for name in torch.distributions.__all__
        if isinstance(kind := getattr(torch.distributions, name), type)
        and issubclass(kind, torch.distributions.Distribution)
    } - {*CASES, "Distribution", "ExponentialFamily"}  # fmt: skip
    if missing:
        raise LookupError(f"distribution_cases.py says nothing of {', '.join(sorted(missing))}")
    return [*(f"distributions.{name}" for name in CASES), DIVERGENCE, CHANGES]


def run(key: str, mode: str, verbose: bool = False) -> Outcome:
    """Every case of a distribution, eager or compiled, values or gradients."""
    outcome = Outcome()
    if mode in ("in-place", "errors"):
        return outcome
    backward, compiled = mode.endswith("grad"), mode.startswith("compiled")
    ready = gf.compile if compiled else lambda function: function
    for label, parts, ask in _questions(key, plain=mode == "eager"):
        check = lambda p=parts, a=ask: _compared(p, a, backward, ready)  # noqa: E731
        outcome.check(label, check, verbose)
    return outcome


Parts = list[tuple[str, Case]]
Ask = Callable[[Any, list[Any], Any], dict[str, Any]]


def _questions(key: str, plain: bool) -> Iterator[tuple[str, Parts, Ask]]:
    """A label, the distributions that are made, and what is asked of them."""
    if key == DIVERGENCE:
        for first, second in sorted((p.__name__, q.__name__) for p, q in kl._KL_REGISTRY):
            if first in CASES and second in CASES:
                parts = [(first, CASES[first][0]), (second, CASES[second][1])]
                yield f"{first} and {second}", parts, _divergence
    elif key == CHANGES:
        for name, (make, value) in TRANSFORMS.items():
            yield name, [("", Case({"x": value}, make=lambda lib, p: p["x"]))], _change(make)
    else:
        name = key.rpartition(".")[2]
        for number, case in enumerate(CASES[name]):
            yield f"case {number}", [(name, case)], _asked if plain else _smooth


# ---- what is asked ---------------------------------------------------------------------------


def _smooth(lib: Any, made: list[Any], value: Any) -> dict[str, Any]:
    ours, answers = made[0], {}
    for name in SMOOTH:
        answers[name] = _answer(ours, name, value)
    return answers


def _asked(lib: Any, made: list[Any], value: Any) -> dict[str, Any]:
    ours = made[0]
    answers = _smooth(lib, made, value)
    for name in ("mode", "perplexity", "enumerate_support"):
        answers[name] = _answer(ours, name, value)
    answers["in support"] = ours.support.check(value)
    answers["wide"] = ours.expand((3, *ours.batch_shape)).log_prob(value)
    answers["shapes"] = tuple(ours.batch_shape), tuple(ours.event_shape)
    answers["flags"] = ours.has_rsample, ours.has_enumerate_support, ours.support.is_discrete
    answers["drawn"] = tuple(ours.sample((4, 2)).shape)
    return answers


def _answer(ours: Any, name: str, value: Any) -> Any:
    """The answer, or None where there is none; quantiles are asked of 0.3."""
    if (type(ours).__name__, name) in WRONG:
        return None

    def asked() -> Any:
        found = getattr(ours, name)
        if name in ("log_prob", "cdf"):
            return found(value)
        if name == "icdf":
            return found(value.detach() * 0 + 0.3)
        return found() if callable(found) else found

    return _known(asked)


def _known(ask: Callable[[], Any]) -> Any:
    """The answer, or None where a class has none."""
    try:
        return ask()
    except NotImplementedError:
        return None


def _divergence(lib: Any, made: list[Any], value: Any) -> dict[str, Any]:
    return {"kl": lib.distributions.kl_divergence(*made)}


def _change(make: Callable[[Any], Any]) -> Ask:
    def ask(lib: Any, made: list[Any], value: Any) -> dict[str, Any]:
        transform, (x,) = make(lib.distributions.transforms), made
        y = transform(x)
        answers = {"y": y, "back": transform.inv(y), "shape": transform.forward_shape(x.shape)}
        if transform.bijective:
            answers["stretch"] = _known(lambda: transform.log_abs_det_jacobian(x, y))
        answers["fits"] = transform.codomain.check(y)
        return answers

    return ask


# ---- both sides --------------------------------------------------------------------------------


def _compared(parts: Parts, ask: Ask, backward: bool, ready: Callable[..., Any]) -> str:
    value = _drawn(parts)
    expected = _theirs(parts, ask, value, torch.float32, backward)
    try:
        exact = _theirs(parts, ask, value, torch.float64, backward)
    except (RuntimeError, ValueError):  # some are of single precision, or refuse rounded values
        exact = None
    given = [convert.map_tree(p, convert.to_graphflow) for p in _tensors(parts, torch.float32)]
    ours = None if value is None else convert.to_graphflow(value)
    known = {name for name, answer in expected.items() if answer is not None}

    def answers(given: list[dict[str, Any]], value: Any) -> dict[str, Any]:
        made = [_made(gf, part, p) for part, p in zip(parts, given)]
        found = ask(gf, made, value)
        kept = {name: found[name] for name in known if name in found}
        return _slopes(gf, kept, given) if backward else kept

    found = convert.plain(ready(answers)(given, ours))
    known = {name: expected[name] for name in found}
    if missing := sorted(set(expected) - set(found) - _none(expected)):
        return f"has no {', '.join(missing)}"
    return compare(found, known, exact)


def _none(answers: dict[str, Any]) -> set[str]:
    return {name for name, answer in answers.items() if answer is None}


def _tensors(parts: Parts, dtype: torch.dtype) -> list[dict[str, Any]]:
    return [
        {n: torch.tensor(v, dtype=dtype, requires_grad=True) for n, v in case.parameters.items()}
        for _, case in parts
    ]


def _made(lib: Any, part: tuple[str, Case], given: dict[str, Any]) -> Any:
    name, case = part
    if case.make is not None:
        return case.make(lib, given)
    return getattr(lib.distributions, name)(**given, **case.options)


def _drawn(parts: Parts) -> Any:
    """Values of the first, that PyTorch drew."""
    torch.manual_seed(5)
    first = _made(torch, parts[0], _tensors(parts, torch.float32)[0])
    return first.sample((3,)) if hasattr(first, "sample") else None


def _theirs(parts: Parts, ask: Ask, value: Any, dtype: torch.dtype, backward: bool) -> Any:
    given = _tensors(parts, dtype)
    made = [_made(torch, part, p) for part, p in zip(parts, given)]
    value = value.to(dtype) if value is not None and value.is_floating_point() else value
    found = ask(torch, made, value)
    return convert.plain(_slopes(torch, found, given) if backward else found)


def _slopes(lib: Any, answers: dict[str, Any], given: list[dict[str, Any]]) -> dict[str, Any]:
    """Gradients of the sum of each answer by all parameters."""
    wrt = [tensor for p in given for tensor in p.values()]
    slopes = {}
    for name, answer in answers.items():
        if isinstance(answer, torch.Tensor | gf.Tensor) and answer.requires_grad:
            grads = _known(lambda a=answer: lib.autograd.grad(
                a.sum(), wrt, allow_unused=True, retain_graph=True
            ))  # fmt: skip
            if grads is not None:  # PyTorch has no derivative of igamma by its first argument
                slopes[name] = [lib.zeros_like(t) if g is None else g for t, g in zip(wrt, grads)]
    return slopes
