"""The workloads as GraphFlow code of which only the model is compiled, as most people compile."""

from __future__ import annotations

import graphflow as gf
from benchmarks.changes import changes_of
from benchmarks.convolutions import Convolution
from benchmarks.systems import Prepared, shared
from benchmarks.workloads import Expression, Training, Workload


def prepare(workload: Workload, threads: int) -> Prepared:
    """The workload: loss, backward pass and update are eager."""
    if isinstance(workload, (Expression, Convolution)):
        raise NotImplementedError("an expression has no model")
    gf.set_num_threads(threads)
    model, optimizer = shared.program(gf, workload)
    step = shared.timed(gf, workload, gf.compile(model), optimizer)
    data = [gf.tensor(a) for a in workload.data()]
    changes = changes_of(gf, model, optimizer) if isinstance(workload, Training) else ()
    return Prepared(lambda: step(*data), lambda result: result.detach().numpy(), changes)
