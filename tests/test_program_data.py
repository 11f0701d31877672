"""A program as plain data: stages, steps, kernels, memory."""

import json

import numpy as np
import pytest
from front import linear, ramp, training_step

import graphflow as gf
from graphflow import nn, optim
from graphflow.inspection import graph_data, program_data
from graphflow.inspection.program_data import every_step


@pytest.fixture(scope="module")
def program():
    model = nn.Sequential(linear(4, 3), nn.Tanh(), linear(3, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = training_step(model, optimizer, lambda f: f)
    program = gf.compile(gf.trace(step, gf.TensorSpec((5, 4), name="x")))
    program.loaded.profile()
    for _ in range(3):
        program(ramp(5, 4))
    return program


@pytest.fixture(scope="module")
def data(program):
    return program_data(program)


def test_it_is_json_to_the_last_value(data):
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["format"], data["version"]) == ("graphflow-program", 1)


def test_stages_are_those_of_the_program(program, data):
    records = [s for s in program.stages() if s.graph is not None]
    assert [s["name"] for s in data["stages"]] == [s.name for s in records]
    for stage, record in zip(data["stages"], records, strict=True):
        nodes = stage["graph"]["nodes"]
        assert stage["nodes"] == len(nodes) == len(record.graph.nodes)
        assert [n["op"] for n in nodes] == [n.op.name for n in record.graph.nodes]
        assert all(i < n["id"] for n in nodes for i in n["inputs"])
        assert len(stage["graph"]["updates"]) == len(record.graph.updates)


def test_a_node_keeps_its_key_from_stage_to_stage(data):
    first, *_, last = ({n["key"]: n for n in s["graph"]["nodes"]} for s in data["stages"])
    kept = first.keys() & last.keys()
    assert {first[k]["op"] for k in kept} >= {"input", "state"}
    assert all(first[k]["op"] == last[k]["op"] for k in kept)


def test_a_node_says_where_it_comes_from(data):
    nodes = data["stages"][0]["graph"]["nodes"]
    product = next(n for n in nodes if n["op"] == "matmul")
    assert product["file"].endswith("front.py") and product["line"] > 0
    assert product["module"] == "model.0" and product["kind"] == "contraction"
    assert product["text"].startswith(f"{product['label']}: f32[5,3] = matmul(")


def test_regions_nest(data):
    groups = [n for n in data["stages"][-1]["graph"]["nodes"] if n["op"] == "fused"]
    assert groups
    for group in groups:
        (region,) = group["regions"]
        assert region["label"] == "body" and group["attrs"]["body"] == "@body"
        assert len(region["graph"]["inputs"]) == len(group["inputs"])


def test_every_operation_before_fusion_belongs_to_a_step(data):
    before = data["stages"][-2]["graph"]["nodes"]
    claimed = {key for step in data["steps"] for key in step["nodes"]}
    assert [n["text"] for n in before if n["kind"] != "leaf" and n["key"] not in claimed] == []
    products = [n["key"] for n in before if n["op"] == "matmul"]
    owners = [[s["id"] for s in data["steps"] if key in s["nodes"]] for key in products]
    assert len(products) == 5 and all(len(o) == 1 for o in owners)
    assert all(data["steps"][o[0]]["flops"] >= 60 for o in owners)


def test_steps_kernels_and_memory_refer_to_each_other(program, data):
    kernels = {k["name"]: k for k in data["kernels"]}
    for step in data["steps"]:
        assert step["kind"] == "kernel" and step["kernels"][0] == step["name"]
        for name in step["kernels"]:
            assert step["id"] in kernels[name]["steps"]
            assert f"def {name}(" in kernels[name]["source"]
        node = data["stages"][-1]["graph"]["nodes"][step["node"]]
        assert node["kind"] != "leaf"
    buffers = data["memory"]["buffers"]
    assert [b["id"] for b in buffers] == list(range(len(buffers)))
    for buffer in buffers:
        users = [s["id"] for s in data["steps"] if buffer["id"] in s["reads"] + s["writes"]]
        assert (buffer["first"], buffer["last"]) == (min(users), max(users))
        if buffer["kind"] == "arena":
            assert 0 <= buffer["offset"] <= data["memory"]["arena_bytes"] - buffer["bytes"]
        else:
            assert buffer["offset"] is None
    written = {b["name"] for b in buffers if b["written"]}
    assert "model.0.weight" in written


def test_timings_are_there_after_a_profile(data):
    assert [s["runs"] for s in data["steps"]] == [3] * len(data["steps"])
    assert all(s["seconds"] >= 0 for s in data["steps"])
    fresh = program_data(gf.compile(gf.trace(lambda x: gf.exp(x) + 1, ramp(3))))
    assert [(s["runs"], s["seconds"]) for s in fresh["steps"]] == [(0, None)]


def test_host_operations_and_symbolic_sizes():
    data = program_data(gf.compile(gf.trace(lambda x: gf.linalg.svdvals(x) + 1, ramp(3, 3))))
    assert "host" in {step["kind"] for step in every_step(data["steps"])}
    assert len({step["id"] for step in every_step(data["steps"])}) == len(data["steps"])
    spec = gf.TensorSpec(("batch", 3), name="rows")
    sized = program_data(gf.compile(gf.trace(lambda x: gf.softmax(x, 1), spec)))
    assert set(sized["sizes"]) == {"batch"} and json.dumps(sized)
    assert sized["stages"][0]["graph"]["nodes"][0]["type"] == "f32[batch,3]"


def test_large_constants_and_odd_names_are_only_named():
    table = gf.tensor(np.arange(1000, dtype=np.float32))
    graph = gf.trace(lambda x: x + table, gf.TensorSpec((1000,), name='<script>"'))
    assert "<script>" in graph_data(graph)["nodes"][0]["label"]
    constant = gf.Graph.parse(
        "graph g {\n  %0: f32[9] = constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])\n"
        "  return %0\n}\n"
    )
    (node,) = graph_data(constant)["nodes"]
    assert "const<" in node["text"] and len(node["text"]) < 80
