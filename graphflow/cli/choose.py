"""What ``graphflow inspect`` shows: a stage, the nodes of an operation, a kernel."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from graphflow.checks import suggestion
from graphflow.cli import terminal
from graphflow.errors import GraphFlowError
from graphflow.inspect import Source, sources, stage_texts
from graphflow.inspection.program_data import program_data
from graphflow.ir.op import lookup
from graphflow.ir.printer import label_nodes, node_line, regions
from graphflow.tables import quantity


def text(program: Any, stage: str | None, op: str | None, kernel: str | None) -> str:
    """What was asked for, for people: everything if nothing was."""
    if kernel is not None:
        return "\n".join(_kernel_text(source) for source in _kernels(program, kernel))
    if op is not None:
        return "\n".join(_op_text(program, stage, op))
    texts = dict(stage_texts(program))
    if stage == "kernels":
        return "\n".join(source.text for source in sources(program))
    if stage is not None:
        _check("stage", stage, [*texts, "kernels"])
        return terminal.ir(texts[stage].splitlines())
    shown = [terminal.ir(part.splitlines()) for part in texts.values()]
    return "\n".join([*shown, *(s.text for s in sources(program)), str(program.explain())])


def as_json(program: Any, stage: str | None, op: str | None, kernel: str | None) -> str:
    """The same for programs to read: all of ``program_data``, or a part of it.

    A stage alone is its graph in the form that :meth:`Graph.from_json` and ``graphflow diff``
    read.
    """
    data = program_data(program)
    if kernel is not None:
        names = {source.kernel.name for source in _kernels(program, kernel)}
        found: Any = [k for k in data["kernels"] if k["name"] in names]
        return json.dumps(found, indent=2)
    if op is not None:
        return json.dumps(_op_data(data, stage, op), indent=2)
    if stage in ("kernels", "schedule"):
        return json.dumps(data["kernels" if stage == "kernels" else "steps"], indent=2)
    if stage is not None:
        graphs = {s.name: s.graph for s in program.stages() if s.graph is not None}
        _check("stage", stage, [*graphs, "schedule", "kernels"])
        made: str = graphs[stage].to_json(indent=1)
        return made
    return json.dumps(data, indent=1)


def _check(what: str, name: str, known: Iterable[str]) -> None:
    names = list(dict.fromkeys(known))
    if name in names:
        return
    raise GraphFlowError(
        f"there is no {what} {name!r}{suggestion(name, names)} "
        f"(the {what}s are {', '.join(names) or 'none'})"
    )


# ---- kernels -----------------------------------------------------------------------------


def _kernels(program: Any, name: str) -> Sequence[Source]:
    """The kernels of this name, or whose names begin with it."""
    found = sources(program)
    chosen = [s for s in found if s.kernel.name == name]
    chosen = chosen or [s for s in found if s.kernel.name.startswith(name)]
    if not chosen:
        _check("kernel", name, [source.kernel.name for source in found])
    return chosen


def _kernel_text(source: Source) -> str:
    moved = sum(call.bytes for call in source.calls)
    flops = sum(call.flops for call in source.calls)
    head = f"{len(source.calls)} calls a step, {quantity(moved)}, {flops:,} operations"
    comments = [line for line in source.text.splitlines() if line.startswith("#")]
    rest = source.text.splitlines()[len(comments) :]
    return "\n".join([terminal.paint(f"# {head}", "bold"), terminal.ir(comments), *rest])


# ---- operations --------------------------------------------------------------------------


def _stages(program: Any, wanted: str | None) -> list[Any]:
    stages = [s for s in program.stages() if s.graph is not None]
    if wanted is None:
        return stages
    _check("stage", wanted, [s.name for s in stages])
    return [s for s in stages if s.name == wanted]


def _op_text(program: Any, wanted: str | None, op: str) -> list[str]:
    """The nodes of an operation, in regions too, stage by stage."""
    name = lookup(op).name
    lines: list[str] = []
    present: set[str] = set()
    for stage in _stages(program, wanted):
        found: list[str] = []
        _collect(stage.graph, name, "  ", found, present)
        lines.append(terminal.paint(f"# {stage.name}: {len(found)} of {op}", "bold"))
        if found:
            lines.append(terminal.ir(found))
    if name not in present:
        _check("operation", name, sorted(present))
    return lines


def _collect(graph: Any, op: str, indent: str, lines: list[str], present: set[str]) -> None:
    labels = label_nodes(graph)
    for node in graph.nodes:
        present.add(node.op.name)
        if node.op.name == op:
            lines.append(indent + node_line(node, labels, graph.locations.get(node)))
        for _, region in regions(node):
            _collect(region, op, indent + "  ", lines, present)


def _op_data(data: dict[str, Any], wanted: str | None, op: str) -> list[dict[str, Any]]:
    """The nodes of an operation with the stage (and the path of the region) they stand in."""
    name = lookup(op).name
    if wanted is not None:
        _check("stage", wanted, [stage["name"] for stage in data["stages"]])
    found: list[dict[str, Any]] = []
    present: set[str] = set()
    for stage in data["stages"]:
        if wanted in (None, stage["name"]):
            _collect_data(
                stage["graph"], name, {"stage": stage["name"], "path": ""}, found, present
            )
    if name not in present:
        _check("operation", name, sorted(present))
    return found


def _collect_data(
    graph: dict[str, Any], op: str, place: dict[str, str], found: list[Any], present: set[str]
) -> None:
    for node in graph["nodes"]:
        present.add(node["op"])
        if node["op"] == op:
            found.append({**place, **{k: v for k, v in node.items() if k != "regions"}})
        for region in node["regions"]:
            inner = {**place, "path": f"{place['path']}{node['label']}.{region['label']}/"}
            _collect_data(region["graph"], op, inner, found, present)
