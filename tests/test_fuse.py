"""Fusion: which groups are found, that they are legal, and that nothing changes."""

from __future__ import annotations

import random

import networkx as nx
import numpy as np
import pytest
from fusion_graphs import f32, layer_norm, mlp_step, softmax
from graphs import random_graph as any_graph

from graphflow.ir.build import NODES as b
from graphflow.ir.build import input_node, splat, state_node
from graphflow.ir.graph import Graph, Location
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32, float64, int64
from graphflow.passes.dataflow import Dataflow, Role
from graphflow.passes.fuse import Fuse
from graphflow.passes.groups import Group, find_groups
from graphflow.passes.spaces import assign_spaces
from graphflow.passes.turn import turn_products


def ops(group: Group) -> list[str]:
    return [n.op.name for n in group.nodes]


def groups_of(*outputs: Node, **more: object) -> list[Group]:
    graph = Graph(leaves(outputs, "input"), outputs, leaves(outputs, "state"), **more)
    return find_groups(graph)


def leaves(roots: tuple[Node, ...], op: str) -> tuple[Node, ...]:
    nodes = Graph((), roots).nodes
    return tuple(n for n in nodes if n.op.name == op)


def x(*shape: int, name: str = "x") -> Node:
    return input_node(name, f32(*shape))


# ---- what groups are found ---------------------------------------------------------------


def test_a_chain_is_one_group():
    [group] = groups_of(b.tanh(x(8, 4) * x(8, 4, name="y")) + x(4, name="z"))
    assert (group.kind, ops(group)) == ("loop", ["mul", "tanh", "add"])


def test_softmax_is_one_group_over_rows():
    [group] = groups_of(softmax(x(64, 10) * 0.125))
    assert group.reduced == (1,)
    assert ops(group) == ["mul", "reduce_max", "sub", "exp", "reduce_sum", "div"]


def test_layer_norm_and_what_follows_is_one_group():
    gamma, beta = x(10, name="gamma"), x(10, name="beta")
    y = layer_norm(x(64, 10), gamma, beta)
    [group] = groups_of(y * b.sigmoid(y))
    assert group.domain == (64, 10) and group.reduced == (1,)


def test_softmax_along_columns_is_split_at_its_stages():
    found = groups_of(softmax(x(64, 10), axis=0))
    assert [sum(o.startswith("reduce") for o in ops(g)) for g in found] in ([1, 1, 0], [1, 1])
    for group in found:
        assert not group.reduced or ops(group)[0] in ("reduce_max", "sub")


def test_reductions_over_different_axes_stay_apart():
    a = x(64, 32)
    found = groups_of(b.reduce_sum(a, axes=(0,)), b.reduce_sum(a, axes=(1,)))
    assert sorted(g.reduced for g in found) == [(0,), (1,)]


def test_reductions_of_one_operand_over_the_same_axes_are_siblings():
    a = x(64, 32)
    [group] = groups_of(b.reduce_sum(a, axes=(1,)), b.reduce_max(a, axes=(1,)))
    assert sorted(ops(group)) == ["reduce_max", "reduce_sum"]


def test_a_large_full_reduction_has_one_stage():
    a = x(1024, 1024)
    mean = b.reduce_sum(a, axes=(0, 1)) * (1.0 / 1024**2)
    found = groups_of(b.reduce_sum((a - mean) * (a - mean), axes=(0, 1)))
    assert [ops(g) for g in found] == [["reduce_sum", "mul"], ["sub", "mul", "reduce_sum"]]


def test_a_contraction_takes_bias_activation_and_residual():
    product = b.matmul(x(8, 3), x(3, 5, name="w"))
    [group] = groups_of(b.relu(product + x(5, name="bias")) + x(8, 5, name="residual"))
    assert (group.kind, ops(group)) == ("contraction", ["matmul", "add", "relu", "add"])


def test_an_epilogue_does_not_change_the_shape_of_the_result():
    product = b.matmul(x(8, 3), x(3, 1, name="w"))
    found = groups_of(product + x(8, 5, name="wide"))
    assert [ops(g) for g in found] == [["matmul"], ["add"]]


def test_what_only_a_reduction_sees_is_made_there_of_a_product_that_is_stored_anyway():
    """As in the gradient of attention: p * (ct - sum(p * ct)), with ct a product."""
    product, weights = b.matmul(x(8, 3), x(3, 5, name="w")), x(8, 5, name="p")
    mean = b.reshape(b.reduce_sum(weights * product, axes=(1,)), shape=(8, 1))
    first, rows = groups_of(weights * (product - mean))
    assert ops(first) == ["matmul"]
    assert ops(rows) == ["mul", "reduce_sum", "sub", "mul"]
    alone = groups_of(b.reduce_sum(weights * product, axes=(1,)))
    assert [ops(g) for g in alone] == [["matmul", "mul"], ["reduce_sum"]]


def test_an_operand_of_a_contraction_is_not_in_its_epilogue():
    a = b.exp(x(4, 4))
    found = groups_of(b.matmul(a, a) + a)
    assert [ops(g) for g in found] == [["exp"], ["matmul", "add"]]


def test_groups_are_convex():
    """exp → matmul → add must not put exp and add into one kernel."""
    a = b.exp(x(4, 4))
    inner = b.matmul(a, x(4, 4, name="w"))
    for group in groups_of(b.matmul(inner, inner) + a):
        assert set(ops(group)) != {"exp", "add"}


def test_a_transposed_product_is_computed_the_other_way_round():
    product = b.matmul(b.permute(x(8, 3), axes=(1, 0)), x(8, 5, name="y"))
    w = state_node("w", f32(5, 3))
    new = w - b.permute(product, axes=(1, 0)) * 0.1
    graph = turn_products(Graph(leaves((new,), "input"), (), (w,), ((w, new),)))
    [group] = find_groups(graph)
    assert group.kind == "contraction" and group.nodes[0].shape == (5, 3)
    assert [n.op.name for n in graph.nodes].count("permute") == 1


@pytest.mark.parametrize("axes", [(0, 3, 1, 2), (3, 0, 1, 2), (1, 0, 3, 2)])
def test_a_product_that_is_read_along_its_rows_is_computed_the_other_way_round(axes):
    q, s = x(2, 3, 5, 4, name="q"), x(2, 3, 5, 7, name="s")
    product = b.matmul(b.permute(q, axes=(0, 1, 3, 2)), s)
    graph = Graph((q, s), (b.exp(b.permute(product, axes=axes)),))
    turned = turn_products(graph)
    [made] = [n for n in turned.nodes if n.op.name == "matmul"]
    assert made.shape == (2, 3, 7, 4)
    rng = np.random.default_rng(5)
    print("seed 5")
    args = [rng.standard_normal(n.shape).astype(np.float32) for n in (q, s)]
    expected = np.exp(np.einsum("abki,abkj->abij", *args).transpose(axes))
    [found] = interpret(turned, args).outputs
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_product_that_is_read_along_its_columns_is_left_alone():
    product = b.matmul(x(2, 3, 5, 4), x(2, 3, 4, 7, name="w"))
    graph = Graph(leaves((product,), "input"), (b.exp(b.permute(product, axes=(0, 2, 1, 3))),))
    assert turn_products(graph) is graph


def test_a_product_that_is_read_both_ways_is_left_alone():
    product = b.matmul(x(8, 3), x(3, 5, name="w"))
    graph = Graph(leaves((product,), "input"), (b.permute(product, axes=(1, 0)), b.exp(product)))
    assert turn_products(graph) is graph


def test_a_weight_and_its_momentum_are_updated_in_one_kernel():
    w, v = state_node("w", f32(100)), state_node("v", f32(100))
    new_v = v * 0.9 + x(100)
    new_w = w - new_v * 0.1
    graph = Graph((x(100),), (), (w, v), ((v, new_v), (w, new_w)))
    [group] = find_groups(graph)
    assert len(group.nodes) == 4


def test_cheap_values_are_copied_into_every_group():
    rate = b.cast(input_node("lr", TensorType(float64, ())), dtype=float32)
    found = groups_of(x(8) * rate, x(9, name="y") * rate)
    assert [ops(g) for g in found] == [["mul"], ["mul"]]
    assert all("cast" in {n.op.name for n in g.copies} for g in found)


def test_a_slice_between_elementwise_nodes_is_memory():
    y = b.exp(x(8, 8))
    part = b.slice(y, starts=(0, 0), limits=(8, 4), steps=(1, 1))
    found = groups_of(b.tanh(part))
    assert [ops(g) for g in found] == [["exp"], ["tanh"]]


def test_a_gather_picks_from_a_row_of_its_group():
    probabilities = softmax(x(64, 10))
    labels = input_node("labels", TensorType(int64, (64, 1)))
    [group] = groups_of(b.log(b.gather(probabilities, labels, axis=1)))
    assert ops(group)[-2:] == ["gather", "log"]


def test_a_gather_across_rows_reads_memory():
    labels = input_node("labels", TensorType(int64, (1, 10)))
    found = groups_of(b.gather(softmax(x(64, 10)), labels, axis=0))
    assert [ops(g)[-1] for g in found] == ["div", "gather"]


def test_limits_cut_chains():
    y = x(100)
    for _ in range(100):
        y = b.tanh(y)
    assert [len(g.nodes) for g in groups_of(y)] == [40, 40, 20]


def test_a_training_step_of_an_mlp_is_nine_kernels():
    found = find_groups(turn_products(mlp_step()))
    assert [g.kind for g in found].count("contraction") == 5
    assert len(found) == 9
    assert all(len(g.nodes) > 1 for g in found)


# ---- legality and meaning of random graphs -----------------------------------------------


def random_graph(seed: int) -> Graph:
    """Rows, columns and scalars; elementwise, reductions, views, products."""
    rng = random.Random(seed)
    pool = [x(6, 5), x(6, 5, name="y"), x(5, name="row"), x(6, 1, name="column")]
    for _ in range(rng.randrange(5, 40)):
        pool.append(random_node(rng, pool))
    outputs = tuple(rng.sample(pool[4:], min(3, len(pool) - 4)))
    return Graph(tuple(pool[:4]), outputs)


def random_node(rng: random.Random, pool: list[Node]) -> Node:
    node = rng.choice(pool[-12:])
    choice = rng.random()
    full = [n for n in pool if n.shape == (6, 5)]
    if choice < 0.25:
        return rng.choice([b.tanh, b.sigmoid, b.relu, b.neg])(node)
    if choice < 0.55:
        other = rng.choice(pool)
        pair = (node, other) if rng.random() < 0.5 else (other, node)
        if fits(node.shape, other.shape):
            return rng.choice([b.add, b.mul, b.maximum])(*pair)
        return b.sub(node, splat(0.5, f32(1)))
    node = rng.choice(full)
    if choice < 0.75:
        axis = rng.randrange(2)
        kept = tuple(1 if k == axis else d for k, d in enumerate(node.shape))
        total = rng.choice([b.reduce_sum, b.reduce_max])(node, axes=(axis,))
        return b.reshape(total, shape=kept) if rng.random() < 0.8 else total
    if choice < 0.85:
        square = b.matmul(node, b.permute(rng.choice(full), axes=(1, 0)))
        return b.matmul(square, node)
    if choice < 0.93:
        return b.flip(node, axes=(rng.randrange(2),))
    return b.concatenate(
        b.slice(node, starts=(0, 0), limits=(6, 2), steps=(1, 1)),
        b.slice(rng.choice(full), starts=(0, 2), limits=(6, 5), steps=(1, 1)),
        axis=1,
    )


def fits(a: tuple[int, ...], c: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(a, c) == (6, 5)
    except ValueError:
        return False


@pytest.mark.parametrize("seed", range(60))
def test_groups_of_random_graphs_are_convex_and_in_order(seed):
    graph = random_graph(seed)
    found = find_groups(graph)
    home: dict[Node, int] = {}
    for index, group in enumerate(found):
        for node in group.nodes:
            assert node not in home, f"seed {seed}"
            home[node] = index
    contracted = nx.DiGraph()
    for index, group in enumerate(found):
        members = {*group.nodes, *group.copies}
        stack = [n for node in members for n in node.inputs if n not in members]
        while stack:  # up through views to other groups
            node = stack.pop()
            if node in home:
                contracted.add_edge(home[node], index)
            else:
                stack.extend(node.inputs)
    for one, other in nx.transitive_closure(contracted).edges:
        assert one < other, f"seed {seed}: group {other} needs group {one}"


@pytest.mark.parametrize("seed", range(60))
def test_groups_of_random_graphs_fit_their_spaces(seed):
    """Merging looks at new neighbours only; here every member of every group is looked at."""
    graph = random_graph(seed) if seed % 2 else any_graph(seed).graph
    flow = Dataflow(graph)
    for group in find_groups(graph):
        if group.kind == "single":
            continue
        members = [flow.number[node] for node in group.nodes]
        assert members == sorted(members)
        spaces = assign_spaces(flow, members, group.domain, group.reduced)
        assert spaces is not None, f"seed {seed}: {ops(group)}"
        if group.kind == "contraction":
            roles = [flow.role[node] for node in group.nodes]
            assert roles.count(Role.CONTRACTION) == 1
            assert {*roles} <= {Role.CONTRACTION, Role.ELEMENTWISE}


@pytest.mark.parametrize("seed", range(60))
def test_fusion_keeps_what_random_graphs_compute(seed):
    case = any_graph(seed, 40)
    fused = Fuse().run(case.graph).verify("fused")
    with np.errstate(all="ignore"):
        before = interpret(case.graph, case.args, case.state)
        after = interpret(fused, case.args, case.state)
    for one, other in zip(before.outputs, after.outputs):
        np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=str(case))
    for name, one in before.state.items():
        np.testing.assert_allclose(one, after.state[name], rtol=1e-6, err_msg=str(case))


# ---- the rewritten graph -----------------------------------------------------------------

BEFORE = """
graph main {
  %x: f32[8,4] = input(name="x")
  %y: f32[4] = input(name="y")
  %0: f32[8,4] = mul(%x, %y)
  %1: f32[8,4] = tanh(%0)
  %2: f32[8] = reduce_sum(%1, axes=(1,))
  return %1, %2
}
"""
EXPECTED = """
graph main {
  %x: f32[8,4] = input(name="x")
  %y: f32[4] = input(name="y")
  %0: (f32[8,4], f32[8]) = fused(%x, %y, body=@body, kind="loop")
    @body = graph body {
      %x0: f32[8,4] = input(name="x0")
      %x1: f32[4] = input(name="x1")
      %0: f32[8,4] = mul(%x0, %x1)
      %1: f32[8,4] = tanh(%0)
      %2: f32[8] = reduce_sum(%1, axes=(1,))
      return %1, %2
    }
  %1: f32[8,4] = get(%0, index=0)
  %2: f32[8] = get(%0, index=1)
  return %1, %2
}
"""


def test_a_group_becomes_a_node_with_a_body():
    assert Fuse().run(Graph.parse(BEFORE)).same_as(Graph.parse(EXPECTED))


def test_equal_groups_have_equal_bodies():
    a, c = b.tanh(x(8, 4) * 2.0), b.tanh(x(8, 4, name="y") * 2.0)
    apart = Graph(leaves((a, c), "input"), (a, b.flip(c, axes=(0,))))
    bodies = [n.attrs["body"] for n in Fuse().run(apart).nodes if n.op.name == "fused"]
    assert len(bodies) == 2 and bodies[0].same_as(bodies[1])


def test_a_graph_without_groups_comes_back_as_it_is():
    graph = Graph((x(8, 4),), (b.exp(x(8, 4)),))
    assert Fuse().run(graph) is graph


def test_locations_go_into_the_body_and_to_the_group():
    y = b.mul(x(8), 2.0)
    z = b.tanh(y)
    places = {y: Location("a.py", 1), z: Location("a.py", 2, "model.fc1")}
    fused = Fuse().run(Graph((x(8),), (z,), locations=places))
    [node] = [n for n in fused.nodes if n.op.name == "fused"]
    assert str(fused.location(node)) == "a.py:2 model.fc1"
    assert {p.line for p in node.attrs["body"].locations.values()} == {1, 2}
