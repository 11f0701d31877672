"""What fused groups compute anew: less is stored, nothing changes, and the order of small calls."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from fusion_graphs import f32
from graphs import random_graph as any_graph

from graphflow.codegen.order import run_order
from graphflow.errors import CompileError
from graphflow.ir.build import NODES as b
from graphflow.ir.build import constant, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32, int8, int32
from graphflow.passes.dataflow import Dataflow, Role
from graphflow.passes.fuse import Fuse
from graphflow.passes.groups import Group, Limits, find_groups
from graphflow.passes.recompute import MOST_COST, SLACK, computed_anew
from graphflow.passes.spaces import assign_spaces


def x(*shape: int, name: str = "x") -> Node:
    return input_node(name, f32(*shape))


def graph_of(*outputs: Node) -> Graph:
    inputs = tuple(n for n in Graph((), outputs).nodes if n.op.name == "input")
    return Graph(inputs, outputs)


def groups_of(graph: Graph) -> tuple[Dataflow, list[Group], list[Group]]:
    """The groups as they are found, and with what they compute anew."""
    flow, limits = Dataflow(graph), Limits()
    found = find_groups(graph, limits, flow)
    return flow, found, computed_anew(flow, found, limits)


def stored(graph: Graph) -> list[str]:
    """The operations whose results the kernels of the fused graph write."""
    found: list[str] = []
    for node in Fuse().run(graph).verify("fused").nodes:
        if node.op.name == "fused":
            found += [out.op.name for out in node.attrs["body"].outputs]
        elif node.op.kind.name not in ("LEAF", "VIEW") and node.op.name != "get":
            found.append(node.op.name)
    return sorted(found)


def both_ways(graph: Graph, seed: int = 0) -> None:
    """The fused graph computes what the graph does."""
    rng = np.random.default_rng(seed)
    args = [rng.standard_normal(n.shape).astype(np.float32) for n in graph.inputs]
    before, after = interpret(graph, args), interpret(Fuse().run(graph), args)
    for one, other in zip(before.outputs, after.outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def product(a: Node, name: str) -> Node:
    return b.matmul(a, x(a.shape[-1], a.shape[-1], name=name))


def activation(h: Node) -> tuple[Node, Node]:
    """``h (1 + tanh h)``, and a factor of its gradient that reads three values of it."""
    t = b.tanh(h)
    return h * (t + 1.0), (t + 1.0) + h * (t * t * -1.0 + 1.0)


def test_what_is_cheap_is_not_stored_from_forward_to_backward() -> None:
    h = product(x(64, 32), "w")
    y, slope = activation(h)
    graph = graph_of(product(product(y, "v"), "u") * slope)
    # The product h, y, and what the roots read: 1 + tanh h and 1 - tanh² h are made of h again.
    assert not {"tanh", "add", "sub"} & set(stored(graph))
    assert sum(op == "mul" for op in stored(graph)) == 2  # y, and the output
    both_ways(graph)


def test_results_of_the_graph_are_stored_once_and_read() -> None:
    h = product(x(64, 32), "w")
    y, slope = activation(h)
    one = slope.inputs[0]
    graph = graph_of(product(product(y, "v"), "u") * slope, one)
    _, _, groups = groups_of(graph)
    assert all(one not in g.again for g in groups)
    both_ways(graph)


def test_what_is_dear_is_read() -> None:
    h = product(x(64, 32), "w")
    e = b.lgamma(h)
    graph = graph_of(product(product(e + 1.0, "v"), "u") * e)
    _, _, groups = groups_of(graph)
    assert all(n.op.cost <= MOST_COST for g in groups for n in g.again)
    assert "lgamma" in stored(graph)
    both_ways(graph)


def test_what_would_be_read_across_memory_is_stored() -> None:
    h = b.permute(x(64, 64), axes=(1, 0)) + x(64, name="bias")
    graph = graph_of(product(product(b.exp(h), "v"), "u") * h)
    _, _, groups = groups_of(graph)
    assert not any(g.again for g in groups)


def test_a_mean_of_each_row_may_be_kept_for_the_sake_of_a_matrix() -> None:
    h = product(x(64, 128), "w")
    total = b.reshape(b.reduce_sum(h, axes=(1,)), shape=(64, 1))
    mean = total * (1 / 128)
    centred = h - mean
    graph = graph_of(product(product(b.exp(centred), "v"), "u") * centred, mean)
    _, _, groups = groups_of(graph)
    assert any(centred in g.again for g in groups)
    both_ways(graph)


@pytest.mark.parametrize("seed", range(60))
def test_groups_of_random_graphs_fit_their_spaces_and_store_less(seed: int) -> None:
    print("seed", seed)
    graph = any_graph(seed, 60).graph
    flow, found, groups = groups_of(graph)
    assert [g.nodes for g in found] == [
        tuple(n for n in g.nodes if n not in g.again) for g in groups
    ]
    for group in groups:
        numbers = [flow.number[n] for n in group.nodes]
        assert numbers == sorted(numbers)
        assert all(flow.role[n] is Role.ELEMENTWISE for n in group.again)
        if group.kind != "single":
            assert assign_spaces(flow, numbers, group.domain, group.reduced) is not None
        else:
            assert not group.again
    before, after = _stored_bytes(flow, graph, found), _stored_bytes(flow, graph, groups)
    assert SLACK * after <= (SLACK + 1) * before


def _stored_bytes(flow: Dataflow, graph: Graph, groups: list[Group]) -> int:
    """Bytes of the work nodes that some other group, or the caller, reads."""
    home = {n: g for g in groups for n in g.nodes if n not in g.again}
    read = {flow.base(root) for root in graph.roots}
    for group in groups:
        for node in group.nodes:
            bases = {flow.base(n) for n in node.inputs}
            read |= {n for n in bases if n in home and n not in group.nodes}
    tensors = (n.type for n in read if n in home and isinstance(n.type, TensorType))
    return sum(t.numel * t.dtype.itemsize for t in tensors)


# ---- in which order calls run -----------------------------------------------------------


def test_small_calls_go_first_and_hold_nothing_up() -> None:
    # 0 → 1 → 2 → 3 is the chain; 4 updates what 1 made; 5 → 6 are small, 4 waits for 6.
    successors = [{1}, {2, 4}, {3}, set(), set(), {6}, {4}]
    assert run_order(successors) == [0, 1, 2, 3, 5, 6, 4]
    assert run_order(successors, small={5, 6}) == [5, 6, 0, 1, 4, 2, 3]


def test_what_small_calls_make_ready_waits_for_its_turn() -> None:
    # 3 (small) → 2 is large, and comes after 0 and 1 in program order.
    assert run_order([{1}, set(), set(), {2}], small={3}) == [3, 0, 1, 2]


@pytest.mark.parametrize("seed", range(20))
def test_orders_of_random_graphs_are_topological(seed: int) -> None:
    print("seed", seed)
    rng = np.random.default_rng(seed)
    count = 40
    later = [{int(w) for w in rng.integers(v, count, 3) if w > v} for v in range(count)]
    names = rng.permutation(count)  # program order says nothing
    successors: list[set[int]] = [set() for _ in range(count)]
    for v, following in enumerate(later):
        successors[names[v]] = {int(names[w]) for w in following}
    small = {int(v) for v in rng.integers(0, count, 10)}
    order = run_order(successors, small=small)
    place = {v: i for i, v in enumerate(order)}
    graph = nx.DiGraph([(v, w) for v, following in enumerate(successors) for w in following])
    assert sorted(order) == list(range(count))
    assert all(place[v] < place[w] for v, w in graph.edges)


def test_a_cycle_is_refused() -> None:
    with pytest.raises(CompileError, match="cycle"):
        run_order([{1}, {2}, {1}], small={0})


def integers(h: Node) -> Node:
    """``h`` as 8-bit integers, clipped."""
    least, most = (constant(np.float32(end)) for end in (-128, 127))
    low = b.where(b.lt(h, least), least, h)
    return b.cast(b.where(b.gt(low, most), most, low), dtype=int8)


def test_a_cast_to_more_bytes_is_made_again() -> None:
    """The integers are stored, though the whole chain is cheap to make of their number."""
    whole = integers(product(x(64, 32), "w"))
    number = b.cast(whole, dtype=float32) * 0.5
    graph = graph_of(product(b.exp(number), "v") + number)
    found = [out for _, out in outputs_of(graph)]
    assert sum(out.dtype is int8 for out in found) == 1
    both_ways(graph)


def test_sums_read_integers_that_their_product_made() -> None:
    """Parts of the chain are read twice, all by the chain itself: it is one epilogue."""
    whole = integers(product(x(64, 32), "w"))
    graph = graph_of(b.reduce_sum(b.cast(whole, dtype=int32), axes=(0,)))
    found = dict(outputs_of(graph))
    assert found["contraction"].dtype is int8
    both_ways(graph)


def outputs_of(graph: Graph) -> list[tuple[str, Node]]:
    """The kind of each fused group, with what it writes."""
    fused = [n for n in Fuse().run(graph).nodes if n.op.name == "fused"]
    return [(n.attrs["kind"], out) for n in fused for out in n.attrs["body"].outputs]
