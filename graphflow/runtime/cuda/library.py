"""Products by a library instead of kernels of our own: which of a program's, and why not others.

What a library does is behind two calls, so that tests can put one of NumPy in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from math import gcd
from typing import Any, Protocol

from graphflow.codegen.cuda.convolution import Convolution
from graphflow.codegen.cuda.matmul import Matmul
from graphflow.codegen.cuda.padding import unpadded
from graphflow.codegen.cuda.product import plan_of
from graphflow.codegen.cuda.toolchain import INSTALL
from graphflow.codegen.library import Padded, Plan
from graphflow.codegen.schedule import Address, Call, Schedule, Step, plain_steps
from graphflow.errors import GraphFlowError
from graphflow.records import dataclass
from graphflow.runtime.cuda import cudnn
from graphflow.runtime.cuda.driver import missing

ITEMSIZES = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}
ALIGNED = 16
"""Bytes: loads are no wider, so more is not asked for."""
BINDING = "nvmath.bindings.cublasLt"


Launch = Callable[[Sequence[int], Any], None]
"""Starts what was asked for on a stream, for the addresses of a plan's places (0: none)."""


class Library(Protocol):
    """Something that computes products of one kind on one device."""

    @property
    def name(self) -> str:
        """The library and its version."""

    def prepared(self, asked: Any, alignments: tuple[int, ...], /) -> Launch:
        """What starts a product, of the library's kind, on operands at multiples of so many bytes.

        Chosen once for each product.  Raises :class:`GraphFlowError` if the library has no way
        to compute it.
        """


def not_installed(kind: object = Matmul) -> str:
    """What has to be installed for a kind of product; empty if nothing."""
    module, package = _BINDINGS[kind]
    return "" if find_spec(module) else f"{package} is not installed: {INSTALL}"


_BINDINGS: dict[object, tuple[str, str]] = {
    Matmul: ("nvmath", "nvmath-python"), Convolution: (cudnn.BINDING, "nvidia-cudnn-frontend"),
}  # fmt: skip


@cache
def library(device: int, kind: object = Matmul) -> Library | str:
    """The library of a device for a kind of product, or why there is none."""
    why = missing() or not_installed(kind)
    if why:
        return why
    try:
        if kind is Matmul:
            from graphflow.runtime.cuda.cublas import CublasLt

            return CublasLt(device)
        from graphflow.runtime.cuda.convolutions import Convolutions

        return Convolutions(device)
    except Exception as error:  # a binding fails in many ways, all of which mean: no library
        name = "cuBLASLt" if kind is Matmul else "cuDNN"
        return f"{name} does not start: {' '.join(str(error).split()) or type(error).__name__}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whether libraries may compute products, and cuDNN those that are convolutions, as
    ``gf.backends`` said."""

    libraries: bool = False
    cudnn: bool = False

    def found(self, device: int, kind: object) -> Library | str:
        """The library for a kind of product, or why there is none."""
        if not self.libraries:
            return "gf.backends.cuda.library is off"
        if kind is Convolution and not self.cudnn:
            return "gf.backends.cudnn.enabled is off"
        return library(device, kind)


NOTHING = Wanted()


@dataclass(slots=True)
class Choice:
    """A product of a program: ``plan`` over memory at ``places`` if ``library`` computes it, else
    ``why`` not."""

    kernel: str
    library: Library | None
    plan: Plan[Any] | None
    why: str
    places: tuple[Address | None, ...] = ()


class Products:
    """Who computes the products of a program; ``wanted`` tells where a library may.

    A copy with zeros around is spared where all that read it are convolutions that the library
    pads by itself.
    """

    def __init__(self, schedule: Schedule, device: int, wanted: Wanted) -> None:
        steps = list(plain_steps(schedule.steps))
        calls = [c for c in steps if isinstance(c, Call) and c.library]
        products = [c for c in calls if not isinstance(c.library, Padded)]
        self._chosen = {id(call): _choice(call, device, wanted) for call in products}
        self._spared: dict[int, list[tuple[Call, Choice]]] = {}
        """What reads a copy that is spared, and how it would read the copy."""
        for copy in calls:
            if isinstance(copy.library, Padded):
                self._spare(copy, copy.library, steps)

    def _spare(self, copy: Call, what: Padded, steps: Sequence[Step]) -> None:
        made = _buffer(copy, what.result.argument)
        source = _buffer(copy, what.source.argument)
        choices: list[tuple[Call, Choice]] = []
        for step in steps:
            if made.buffer in step.reads:
                plain = self._chosen.get(id(step))
                other = plain and _without(plain, made, source, what)
                if not isinstance(step, Call) or other is None:
                    return
                choices.append((step, other))
        if choices:
            self._spared[id(copy)] = [(call, self._chosen[id(call)]) for call, _ in choices]
            self._chosen.update((id(call), choice) for call, choice in choices)

    def chosen(self, call: Call) -> Choice | None:
        """The choice for a call, if a library computes it."""
        choice = self._chosen.get(id(call))
        return None if choice is None or choice.plan is None else choice

    def refused(self, call: Call, why: str) -> None:
        """From now on ``call`` is its kernel."""
        choice = self._chosen[id(call)]
        choice.plan, choice.why = None, why

    def readers(self, call: Call) -> list[Call]:
        """What would read the copy that ``call`` makes, if it is spared; else empty."""
        return [reader for reader, _ in self._spared.get(id(call), ())]

    def made(self, call: Call) -> None:
        """From now on ``call`` makes its copy, and what reads it does."""
        for reader, choice in self._spared.pop(id(call)):
            self._chosen[id(reader)] = choice

    def __str__(self) -> str:
        if not self._chosen:
            return ""
        by: dict[tuple[str, str], list[str]] = {}
        for choice in self._chosen.values():
            name = "" if choice.plan is None or choice.library is None else choice.library.name
            by.setdefault((name, choice.why), []).append(choice.kernel)
        said = []
        for (name, why), kernels in by.items():
            own = f"kernels of our own ({', '.join(dict.fromkeys(kernels))}): {why}"
            said.append(f"{len(kernels)} by {name or own}")
        if self._spared:
            said.append(f"padded copies spared: {len(self._spared)}")
        return "products: " + "; ".join(said)


def _buffer(call: Call, argument: int) -> Address:
    found = call.arguments[argument]
    assert isinstance(found, Address)
    return found


def _choice(call: Call, device: int, wanted: Wanted) -> Choice:
    plan = plan_of(call)
    if isinstance(plan, str):
        return Choice(call.kernel.name, None, None, plan)
    found = wanted.found(device, type(plan.asked))
    if isinstance(found, str):
        return Choice(call.kernel.name, None, None, found)
    places = tuple(_buffer(call, n) if n >= 0 else None for n in plan.places)
    choice = Choice(call.kernel.name, found, plan, "", places)
    why = _refusal(choice)
    if why:
        choice.plan, choice.why = None, why
    return choice


def _refusal(choice: Choice) -> str:
    """Why the library has no way to compute a choice; empty if it has one."""
    assert choice.library is not None and choice.plan is not None
    try:  # memory of a program's own begins where every operand may
        choice.library.prepared(choice.plan.asked, (ALIGNED,) * len(choice.places))
    except GraphFlowError as error:
        return str(error)
    return ""


def _without(choice: Choice, made: Address, source: Address, copy: Padded) -> Choice | None:
    """``choice`` over the ``source`` of a copy that is ``made``; None if the library cannot."""
    plan = choice.plan
    if plan is None or not isinstance(plan.asked, Convolution) or choice.places[0] != made:
        return None
    if made in choice.places[1:]:
        return None
    other = unpadded(plan, copy)
    if other is None:
        return None
    places = (source, *choice.places[1:])
    found = Choice(choice.kernel, choice.library, other, "", places)
    return None if _refusal(found) else found


def started(choice: Choice, addresses: Sequence[int]) -> Callable[[Any], None]:
    """What starts a product by the library on the stream that it is given.

    ``addresses`` are where its places lie, 0 for none.
    """
    assert choice.plan is not None and choice.library is not None
    plan = choice.plan
    sizes = [ITEMSIZES[dtype] for dtype in plan.asked.dtypes]
    every = [
        tuple(
            address + at * size if address else 0
            for address, at, size in zip(addresses, start, sizes, strict=True)
        )
        for start in plan.starts
    ]
    alignments = tuple(gcd(ALIGNED, *(one[n] for one in every)) for n in range(len(sizes)))
    launch = choice.library.prepared(plan.asked, alignments)

    def start(stream: Any) -> None:
        for places in every:
            launch(places, stream)

    return start
