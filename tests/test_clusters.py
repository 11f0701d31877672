"""Contraction of a DAG, held against networkx."""

from __future__ import annotations

import random

import networkx as nx
import pytest

from graphflow.passes import clusters as clusters_module
from graphflow.passes.clusters import Clusters


def random_dag(rng: random.Random, count: int, density: float) -> list[list[int]]:
    return [[j for j in range(i + 1, count) if rng.random() < density] for i in range(count)]


def quotient(successors: list[list[int]], home: dict[int, int]) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(set(home.values()))
    for vertex, following in enumerate(successors):
        graph.add_edges_from((home[vertex], home[w]) for w in following if home[vertex] != home[w])
    return graph


@pytest.mark.parametrize("seed", range(30))
def test_merges_exactly_what_keeps_the_graph_acyclic(seed, monkeypatch):
    monkeypatch.setattr(clusters_module, "GAP", 2 if seed % 2 else 1 << 40)  # little or much room
    rng = random.Random(seed)
    count = rng.randrange(2, 25)
    successors = random_dag(rng, count, rng.choice([0.05, 0.15, 0.4]))
    clusters = Clusters(successors)
    home = {v: v for v in range(count)}
    for _ in range(3 * count):
        a, b = rng.sample(range(count), 2)
        if home[a] == home[b]:
            continue
        joined = {v: home[a] if h == home[b] else h for v, h in home.items()}
        legal = nx.is_directed_acyclic_graph(quotient(successors, joined))
        merged = clusters.merge(clusters.home[a], clusters.home[b])
        assert (merged is not None) == legal, f"seed {seed}: {a} with {b}"
        if legal:
            home = joined
        for v in range(count):
            for w in range(count):
                assert (clusters.home[v] == clusters.home[w]) == (home[v] == home[w])
        ranks = {clusters.home[v]: clusters.rank[clusters.home[v]] for v in range(count)}
        assert len(set(ranks.values())) == len(ranks)
        for v, following in enumerate(successors):
            for w in following:
                assert clusters.home[v] == clusters.home[w] or (
                    ranks[clusters.home[v]] < ranks[clusters.home[w]]
                ), f"seed {seed}"


def test_groups_come_in_topological_order():
    rng = random.Random(3)
    successors = random_dag(rng, 60, 0.06)
    clusters = Clusters(successors)
    for _ in range(80):
        a, b = (clusters.home[v] for v in rng.sample(range(60), 2))
        if a != b:
            clusters.merge(a, b)
    place = {v: i for i, members in enumerate(clusters.groups().values()) for v in members}
    assert sorted(place) == list(range(60))
    assert all(place[v] <= place[w] for v in range(60) for w in successors[v])


def test_a_merge_does_not_depend_on_how_much_lies_between():
    count = 5000  # 0 leads down a long chain; count, its other reader, comes after it
    successors = [[1, count], *([i + 1] for i in range(1, count - 1)), [], []]
    clusters = Clusters(successors)
    assert clusters.merge(0, count) is not None
    assert clusters.merge(clusters.home[0], count - 1) is None


@pytest.mark.parametrize("forward", [True, False])
def test_a_search_ends_where_the_shorter_way_ends(forward):
    count = 2000  # from 0 (or to the last) runs a long chain that the pairs have no part in
    chain = [[i + 1] for i in range(count - 1)]
    if forward:
        successors = [*chain, [], *([] for _ in range(100))]
        pairs = [(0, count + i) for i in range(100)]
    else:
        successors = [*([] for _ in range(100)), *([100 + i for i in f] for f in chain), []]
        pairs = [(i, 100 + count - 1) for i in range(100)]
    clusters = Clusters(successors)
    for a, b in pairs:
        assert clusters.merge(clusters.home[a], clusters.home[b]) is not None
    assert clusters.searched <= 5 * len(pairs)
