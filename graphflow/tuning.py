"""Blocks of products chosen by measuring: ``gf.compile(fn, tune="10s")``.

The cost model offers a few other cuts for every product (:mod:`..codegen.contraction.choice`).
A trial is the whole program with one of them for each product, over copies of its state and
stand-ins for its inputs; the clock of the runtime gives the time of every call.  Trials run
in turns until the time is up.  A cut that wins by a margin is kept, if the whole program is
not slower with all of them; what was found for a product lies in the kernel cache, for the
same processor and number of threads.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow import flags
from graphflow.cell import Cell
from graphflow.codegen.contraction.choice import Choice, asking
from graphflow.codegen.schedule import Call, HostCall, Loop, Schedule, plain_steps
from graphflow.codegen.target import chosen_target
from graphflow.digests import new_digest
from graphflow.errors import GraphFlowError
from graphflow.records import dataclass, field
from graphflow.runtime.cache import environment
from graphflow.runtime.folder import read_file, store, usable_folder
from graphflow.runtime.launch import LoadedProgram
from graphflow.tables import duration, table

if TYPE_CHECKING:
    from graphflow.passes.pipeline import Stage
    from graphflow.program import Program

    Built = tuple[Schedule, tuple[Stage, ...]]
    Build = Callable[[], Built]

UNITS = {"ms": 1e-3, "s": 1.0, "": 1.0, "min": 60.0}
MARGIN = 0.97
"""Another cut must take at most this part of the usual one's time."""
ROUNDS, FEWEST = 25, 3
"""Turns of every trial at most, and those without which nothing is concluded."""
RACES = 10
"""Steps that decide between the usual program and the one that was chosen."""
SPARE = 1.3
"""How much longer things may take than they did the first time."""
_BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|)\s*")


def budget_in_seconds(tune: Any) -> float | None:
    """Seconds of ``"10s"``, ``"500ms"``, ``"2min"`` or a number; None for None and False."""
    if tune is None or tune is False:
        return None
    found = _BUDGET.fullmatch(tune) if isinstance(tune, str) else None
    seconds: Any = float(found[1]) * UNITS[found[2]] if found else tune
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not 0 < seconds < float("inf"):
        raise GraphFlowError(
            'tune takes the time to measure as a text such as "10s", "500ms" or "2min", '
            f"or as a positive number of seconds, not {tune!r}"
        )
    return float(seconds)


@dataclass
class Tuning:
    """What was found; prints as the lines of ``program.explain()``."""

    budget: float
    seconds: float = 0.0
    trials: int = 0
    products: int = 0
    complete: bool = True
    note: str = ""
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Of every product that is cut otherwise: name, cut, usual cut, times."""

    def __str__(self) -> str:
        head = (
            f"tuning: {self.products} products, {len(self.rows)} cut otherwise than usual; "
            f"{self.trials} trials in {duration(self.seconds)} of {duration(self.budget)}"
        )
        parts = [f"{head}; {self.note}" if self.note else head]
        if self.rows:
            parts.append(table(["product", "cut", "usual cut", "time"], self.rows))
        return "\n".join(parts)


class Advice:
    """An adviser that takes what is known, and in a trial the cut of its number."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.offered: dict[str, list[Choice]] = {}
        self.trial = 0

    def choose(self, product: str, usual: Choice, others: Sequence[Choice]) -> Choice:
        """The cut for ``product``: the usual one unless something else is known or on trial."""
        if product not in self.offered:
            self.offered[product] = [usual, *others]
            if (found := recall(product)) is not None:
                self.known[product] = found
        if (fact := self.known.get(product)) is not None:
            choice = Choice(*fact["cut"])
            return choice if choice in self.offered[product] else usual
        offered = self.offered[product]
        return offered[self.trial] if self.trial < len(offered) else usual

    @property
    def open(self) -> list[str]:
        """Products of which nothing is known yet, and that can be cut otherwise."""
        return [p for p, o in self.offered.items() if p not in self.known and len(o) > 1]


def tuned(program: Program, build: Build) -> tuple[Schedule, tuple[Stage, ...], Tuning]:
    """What ``build`` makes with the best cuts, and what was found."""
    advice, result = Advice(), Tuning(program.tune or 0.0)
    with asking(advice):
        usual = build()
        reason = _hindrance(program, usual[0])
        if not advice.open or reason or hasattr(program, "loaded"):
            result.note = reason
            chosen = usual
        else:
            chosen = _measured(program, build, usual, advice, result)
    result.products = len(advice.offered)
    for product, fact in advice.known.items():
        cut, usual_cut = Choice(*fact["cut"]), advice.offered[product][0]
        if cut != usual_cut:
            result.rows.append((_short(product), str(cut), str(usual_cut), fact["times"]))
    return *chosen, result


def _hindrance(program: Program, schedule: Schedule) -> str:
    """Why a program cannot be tried out on stand-ins; empty if it can."""
    if program.sizes:
        return "not measured: its sizes are symbolic"
    if flags.DISABLE_JIT.value:
        return "not measured: kernels are not compiled (GRAPHFLOW_DISABLE_JIT)"
    steps = list(plain_steps(schedule.steps))
    if any(isinstance(step, HostCall) for step in steps):
        return "not measured: it calls Python between kernels"
    if any(isinstance(s, Loop) and s.test is not None for s in _loops(schedule.steps)):
        return "not measured: how often a loop runs depends on data"
    return ""


def _loops(steps: Sequence[Any]) -> list[Any]:
    found = []
    for step in steps:
        for part in getattr(step, "parts", ()):
            found += [step, *_loops(part)]
    return found


class Clock:
    """How much of the budget is left."""

    def __init__(self, budget: float) -> None:
        self.began = time.perf_counter()
        self.end = self.began + budget

    def has(self, seconds: float) -> bool:
        """Whether something that takes so long is done in time."""
        return time.perf_counter() + seconds <= self.end

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return time.perf_counter() - self.began


def _measured(
    program: Program, build: Build, usual: Built, advice: Advice, result: Tuning
) -> Built:
    """Try cuts until the time is up, remember what was found, and build with it."""
    products = advice.open
    first = Trial(program, usual[0])
    clock = Clock(result.budget)  # the kernels are compiled by now, as they would be anyway
    count = max(len(advice.offered[p]) for p in products)
    trials = _trials(program, build, first, advice, clock, count)
    result.trials, result.complete = len(trials) - 1, len(trials) == count
    if not result.complete:
        result.note = f"the time was up after {result.trials} of {count - 1} trials"
    facts = {p: _best(p, advice.offered[p], trials) for p in products}
    advice.known |= facts
    chosen = usual
    if any(Choice(*fact["cut"]) != advice.offered[p][0] for p, fact in facts.items()):
        chosen = build()
        if not _wins(first, Trial(program, chosen[0], first.loaded)):
            chosen = usual
            slower = "the whole program was no faster, so everything is cut as usual"
            result.note = "; ".join(filter(None, (result.note, slower)))
            for product, fact in facts.items():
                fact["cut"] = advice.offered[product][0].words
    result.seconds = clock.seconds
    for product, fact in facts.items():
        if len(advice.offered[product]) <= len(trials):  # all of its cuts were tried
            remember(product, fact)
    return chosen


def _trials(
    program: Program, build: Build, first: Trial, advice: Advice, clock: Clock, count: int
) -> list[Trial]:
    """The usual program and those on trial, with what each product took in them.

    Time is left for the last steps: building the program that is chosen, and its race.
    """
    trials = [first]
    first.run()
    step = first.run()
    before = time.perf_counter()
    build()
    made = time.perf_counter() - before
    race = SPARE * (2 * (RACES + 1) * step + made)
    while len(trials) < count and clock.has(made + race + (FEWEST + 1) * (len(trials) + 1) * step):
        advice.trial = len(trials)
        trials.append(Trial(program, build()[0], first.loaded))
    advice.trial = 0
    if len(trials) > 1:
        for trial in trials:
            trial.run()
    for number in range(ROUNDS if len(trials) > 1 else 0):
        if number >= FEWEST and not clock.has(race + len(trials) * step):
            break
        for trial in trials:
            trial.measure()
    return trials


def _best(product: str, offered: Sequence[Choice], trials: Sequence[Trial]) -> dict[str, Any]:
    """The cut that wins by a margin, else the usual one; and the times to show."""
    times = [statistics.median(t.seconds[product]) for t in trials if t.seconds.get(product)]
    if not times:
        return {"cut": offered[0].words, "times": ""}
    number = min(range(min(len(times), len(offered))), key=times.__getitem__)
    if times[number] > MARGIN * times[0]:
        number = 0
    return {
        "cut": offered[number].words,
        "times": f"{duration(times[0])} → {duration(times[number])}",
    }


def _wins(usual: Trial, other: Trial) -> bool:
    """Whether the whole step is no slower, in turns."""
    times: tuple[list[float], list[float]] = [], []
    for number in range(RACES + 1):
        for trial, found in zip((usual, other), times, strict=True):
            seconds = trial.run()
            if number:
                found.append(seconds)
    return statistics.median(times[1]) <= statistics.median(times[0])


class Trial:
    """A schedule over memory of its own: copies of the program's state, stand-ins for inputs.

    ``beside`` is a trial's program whose kernels and temporaries it shares.
    """

    def __init__(
        self, program: Program, schedule: Schedule, beside: LoadedProgram | None = None
    ) -> None:
        graph, scalars = program.graph, program.scalars
        first = len(graph.inputs) - len(scalars)
        by_value = frozenset({*program._numbers, *range(first, len(graph.inputs))})
        self.loaded = LoadedProgram(
            schedule, scalars=by_value, threads=program._threads, beside=beside
        )
        self.loaded.bind_all([Cell(np.array(cell.value, order="C")) for cell in program.cells])
        rng = np.random.default_rng(0)
        self._held = [_stand_in(node.tensor_type, rng) for node in graph.inputs]
        numbers = {first + i: float(scalar.read()) for i, scalar in enumerate(scalars)}
        self._words = [
            numbers.get(i, 1.0) if i in by_value else int(array.ctypes.data)
            for i, array in enumerate(self._held)
        ]
        calls = [s for s in plain_steps(schedule.steps) if isinstance(s, Call)]
        self._products = [call.product for call in calls]
        self.seconds: dict[str, list[float]] = {}

    def run(self) -> float:
        """Seconds of one step."""
        begin = time.perf_counter()
        self.loaded.run(self._words)
        return time.perf_counter() - begin

    def measure(self) -> None:
        """Add one step's seconds to those of each product (of all calls that compute it)."""
        self.loaded.profile()
        try:
            self.run()
            timings = self.loaded.timings()
        finally:
            self.loaded.profile(False)
        found: dict[str, float] = {}
        for product, (seconds, _) in zip(self._products, timings):
            if product:
                found[product] = found.get(product, 0.0) + seconds
        for product, seconds in found.items():
            self.seconds.setdefault(product, []).append(seconds)


def _stand_in(type: Any, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Values like an input's: small floats; zeros where they may be indices."""
    array = np.zeros(type.static_shape, type.dtype.numpy)
    if array.dtype.kind == "f":
        array[...] = rng.standard_normal(array.shape)
    return array


def _short(product: str) -> str:
    """A product's name as tables show it."""
    words = re.findall(r"\b(?:m|n|k|extent)=(\d+)", product)
    return f"{product.split(' ')[0]} {'×'.join(words)}".strip()


def _place(product: str) -> tuple[Any, bytes]:
    digest = new_digest(environment().encode())
    digest.update(f"{chosen_target().cpu} {product}".encode())
    key = digest.digest()
    folder = usable_folder()
    return (None if folder is None else folder / f"tuned-{key.hex()[:24]}.plan"), key


def recall(product: str) -> dict[str, Any] | None:
    """What was found for a product before."""
    path, key = _place(product)
    payload = None if path is None else read_file(path, key)
    return None if payload is None else dict(json.loads(payload))


def remember(product: str, fact: Mapping[str, Any]) -> None:
    """Keep what was found for a product."""
    path, key = _place(product)
    if path is not None:
        store(path, key, json.dumps(fact).encode())
