"""Which passes run, in what order and why; and a record of each run.

The order is stated here, once::

    stages = run_pipeline(graph)
    stages[-1].graph           # the result
    for stage in stages:
        print(stage)           # simplify: 41 → 33 nodes (0.4 ms)
"""

from __future__ import annotations

import pathlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from graphflow import flags
from graphflow.ir.graph import Graph
from graphflow.passes.base import Pass
from graphflow.passes.channels_last import ChannelsLast
from graphflow.passes.cse import Cse
from graphflow.passes.dce import Dce
from graphflow.passes.decompose import Decompose
from graphflow.passes.fold import Fold
from graphflow.passes.fuse import Fuse
from graphflow.passes.integer_products import IntegerProducts
from graphflow.passes.loop_products import LoopProducts
from graphflow.passes.narrow import Narrow
from graphflow.passes.one_pass import OnePass
from graphflow.passes.picked import Picked
from graphflow.passes.rewrite import hits
from graphflow.passes.scaled_taps import ScaledTaps
from graphflow.passes.simplify import Simplify
from graphflow.passes.sliced import Sliced
from graphflow.passes.split_complex import SplitComplex
from graphflow.passes.widen import Widen
from graphflow.passes.winograd import Winograd
from graphflow.records import dataclass, replace

ROUNDS = 4
"""How often a repeated step runs at most (two rounds are usual, the second a check)."""


@dataclass(frozen=True)
class Step:
    """Passes that stand together in the order, and the reason for their place."""

    passes: tuple[Pass, ...]
    reason: str
    repeat: bool = False
    """Run the passes in turn until a round changes nothing."""
    stage: str | None = None
    """The stage of :func:`graphflow.ir.verify.verify` that is reached after the step."""

    def __str__(self) -> str:
        text = ",".join(map(str, self.passes))
        return f"({text})*" if self.repeat else text


PIPELINE: tuple[Step, ...] = (
    Step(
        (Widen(),),
        "first, so that products of halves take every form that those of float32 have",
    ),
    Step(
        (IntegerProducts(),),
        "before forms are chosen that only products of floats have",
    ),
    Step(
        (Picked(),),
        "while what was picked can be told, before it is decomposed",
    ),
    Step(
        (Winograd(),),
        "before convolutions are decomposed",
    ),
    Step(
        (Decompose(),),
        "early, so that all that follows sees only operations with a kernel",
    ),
    Step(
        (SplitComplex(),),
        "before the laws, which then see real numbers only",
    ),
    Step(
        (Fold(), Simplify(), Cse()),
        "each makes work for the others: a law frees a constant to fold, a folded "
        "condition decides a choice, merged operands make where(c, x, x)",
        repeat=True,
    ),
    Step(
        (Narrow(),),
        "on simple roundings, and before layouts are chosen for what is stored",
    ),
    Step(
        (LoopProducts(),),
        "on simple products, before what they leave unused goes",
    ),
    Step(
        (ChannelsLast(), Simplify()),
        "on simple products over windows; the views it makes compose",
    ),
    Step(
        (Sliced(), Simplify()),
        "on views that have composed, in the order in which they will be read",
    ),
    Step(
        (Dce(),),
        "after simplification, which finds state that is written back unchanged",
        stage="simplified",
    ),
    Step(
        (Fuse(),),
        "last: no pass looks into a group",
        stage="fused",
    ),
)

LASTING: tuple[Step, ...] = (
    Step((ScaledTaps(),), "while normalisations are what they were traced as"),
    *(
        replace(step, passes=(Winograd(lasting=True),)) if Winograd() in step.passes else step
        for step in PIPELINE
    ),
)
"""The pipeline where what depends on state alone is kept between calls."""

PORTABLE: tuple[Step, ...] = (
    *(
        step
        for step in PIPELINE[:-1]
        if not any(isinstance(p, (Winograd, Widen, IntegerProducts)) for p in step.passes)
    ),
    Step((OnePass(), Simplify()), "on sums that are told apart by nothing but what they sum up"),
    PIPELINE[-1],
)
"""The pipeline for other devices than the processor: without forms that only it has kernels for,
and with those that are for kernels of which some threads pass over memory and others do not."""


@dataclass(frozen=True)
class Stage:
    """One pass's run: the graph it left behind, and what it took."""

    name: str
    graph: Graph
    seconds: float
    before: int
    """Nodes before the pass."""
    nodes: int
    """Nodes after it."""
    note: str
    """Such as ``cse: 41 → 33 nodes``."""
    details: tuple[str, ...] = ()
    """What it did, a line each, where that is not to be seen in the graph."""

    def __str__(self) -> str:
        return f"{self.note} ({self.seconds * 1e3:.1f} ms)"


Callback: TypeAlias = Callable[[Stage, Step | None], None]
"""Called after every pass with its record and the step it belongs to."""


def describe(steps: Sequence[Step] = PIPELINE) -> str:
    """The order on one line: ``decompose,(fold,simplify,cse)*,dce,fuse``, say."""
    return ",".join(map(str, steps))


def run_pipeline(
    graph: Graph, steps: Sequence[Step] = PIPELINE, callback: Callback | None = None
) -> tuple[Stage, ...]:
    """Run ``steps`` on ``graph``; returns a record a pass, the first one ``traced``.

    ``callback`` sees each record (tests verify and interpret there).  The flags
    ``GRAPHFLOW_DEBUG`` ≥ 3 print every graph, 5 also the rules that fired, and
    ``GRAPHFLOW_DUMP`` writes every graph to a file.
    """
    size = len(graph.nodes)
    stages = [Stage("traced", graph, 0.0, size, size, f"traced: {size} nodes")]
    _report(stages, Counter(), graph)
    if callback is not None:
        callback(stages[0], None)
    left: dict[int, Graph] = {}
    for step in steps:
        for item in _passes(step, stages):
            fired = Counter(hits) if flags.DEBUG.value >= 5 else Counter()
            stages.append(_run(item, stages[-1].graph, left))
            _report(stages, hits - fired, graph)
            if callback is not None:
                callback(stages[-1], step)
    return tuple(stages)


def _passes(step: Step, stages: list[Stage]) -> Iterator[Pass]:
    """The passes of ``step`` as often as they have to run, given what they did so far."""
    for _ in range(ROUNDS if step.repeat else 1):
        before = stages[-1].graph
        yield from step.passes
        if stages[-1].graph is before:
            return


def _run(item: Pass, graph: Graph, left: dict[int, Graph]) -> Stage:
    """One pass's run, which is spared on what that pass itself has ``left`` behind."""
    before = len(graph.nodes)
    start = time.perf_counter()
    result = graph if left.get(id(item)) is graph else item.run(graph)
    left[id(item)] = result
    after = len(result.nodes)
    seconds = time.perf_counter() - start
    change = f"{before} → {after} nodes" if result is not graph else f"{after} nodes, unchanged"
    return Stage(item.name, result, seconds, before, after, f"{item.name}: {change}")


def _report(stages: list[Stage], fired: Counter[str], source: Graph) -> None:
    """What the debugging flags ask for, after the last of ``stages``."""
    stage = stages[-1]
    changed = len(stages) == 1 or stage.graph is not stages[-2].graph
    if flags.DEBUG.value >= 3:
        print(f"# {stage}", file=sys.stderr)
        if changed:
            print(stage.graph, file=sys.stderr)
    if flags.DEBUG.value >= 5:
        for rule, count in fired.most_common():
            print(f"#   {count:5d} × {rule}", file=sys.stderr)
    folder = dump_folder(source)
    if folder is not None and changed:
        folder.mkdir(parents=True, exist_ok=True)
        text = f"# {stage.note}\n{stage.graph}"
        (folder / f"{len(stages) - 1:02d}_{stage.name}.ir").write_text(text)


def dump_folder(graph: Graph) -> pathlib.Path | None:
    """Where ``GRAPHFLOW_DUMP`` wants everything about ``graph``; None when it is not set."""
    if flags.DUMP.value is None:
        return None
    name = "".join(c if c.isalnum() else "_" for c in graph.name)
    return pathlib.Path(flags.DUMP.value) / f"{name}_{graph.hash()[:8]}"
