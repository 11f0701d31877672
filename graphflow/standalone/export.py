"""Write a program as ``model.py`` and ``model.safetensors``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.ir.graph import Graph
from graphflow.passes.pipeline import PIPELINE, run_pipeline
from graphflow.passes.plugged import pipeline_steps
from graphflow.program import Program
from graphflow.serialization.atomic import replacing
from graphflow.serialization.safetensors import holds, write
from graphflow.standalone.writer import Exported


def export_python(target: Program | Graph, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``target`` as a Python file that needs NumPy and Numba only; returns both paths.

    ``path`` names the Python file; weights, optimiser state and large constants go beside it,
    with the suffix ``.safetensors``.  The file holds the graph after all passes but fusion:
    elementwise work as functions for Numba, everything else as NumPy.  Run-time scalars are
    keyword arguments.  Raises :class:`GraphFlowError` for symbolic dimensions, bfloat16, and
    operations without a form in NumPy, named with the user's line.
    """
    program = target if isinstance(target, Program) else Program.from_graph(target)
    if program._unloaded:
        raise GraphFlowError(
            f"the state of {program.graph.name!r} has no values yet; give them with "
            "program.load_state_dict(...) before exporting it"
        )
    steps = pipeline_steps(program._passes) if program._passes else PIPELINE
    graph = run_pipeline(program.graph, steps[:-1])[-1].graph
    values = {node.attrs["name"]: np.array(cell.value) for node, cell in program._memory.items()}
    kept = {node.attrs["name"] for node in graph.state}
    settings = {s.node.attrs["name"]: float(s.read()) for s in program.scalars}
    script = Path(path)
    if script.suffix != ".py":
        raise GraphFlowError(f"{script}: the name of a Python file ends in .py")
    state = {name: value for name, value in values.items() if name in kept}
    made = Exported(graph, state, settings, script.stem)
    for name, array in made.arrays.items():
        if not holds(array.dtype):
            raise GraphFlowError(f"{name} is {array.dtype}, which the weights file has not")
    weights = script.with_suffix(".safetensors")
    with replacing(weights) as stream:
        write(stream, made.arrays, {"program": graph.name})
    with replacing(script) as stream:
        stream.write(made.text.encode())
    return script, weights
