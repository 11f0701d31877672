"""The calculation of data-parallel scaling: against messages played one by one."""

import numpy as np
import pytest

from benchmarks.scaling_model import Network, efficiency, fitted, step_seconds


def played(size: int, ranks: int, network: Network) -> float:
    """Recursive halving, then doubling, among a power of two of ranks."""
    seconds, part = 0.0, size / 2
    sent = []
    while ranks > 1:
        seconds += network.latency + part / network.bandwidth
        sent.append(part)
        part, ranks = part / 2, ranks // 2
    return seconds + sum(network.latency + part / network.bandwidth for part in sent)


@pytest.mark.parametrize("ranks", [2, 4, 16, 1024])
def test_an_all_reduce_costs_what_its_messages_do(ranks: int) -> None:
    network = Network("some", 3e-6, 2e9)
    assert network.all_reduce(1 << 20, ranks) == pytest.approx(played(1 << 20, ranks, network))
    assert network.all_reduce(1 << 20, 1) == 0.0


def test_a_measured_network_gives_back_what_was_measured() -> None:
    network = fitted(8e-6, 3e-3, 1 << 22, 2)
    assert network.all_reduce(0, 2) == pytest.approx(8e-6)
    assert network.all_reduce(1 << 22, 2) == pytest.approx(3e-3)


def test_the_slowest_rank_decides() -> None:
    network = Network("free", 0.0, np.inf)
    assert step_seconds([0.01], 1000, 1000, network) == pytest.approx(0.01)
    pauses = [0.01] * 99 + [0.05]
    alone = step_seconds(pauses, 0, 1, network, steps=4000)
    assert alone == pytest.approx(np.mean(pauses), rel=0.02)
    # Of 100 ranks one is nearly always (1 - 0.99 ** 100) in its pause.
    expected = 0.01 + 0.04 * (1 - 0.99**100)
    assert step_seconds(pauses, 0, 100, network, steps=4000) == pytest.approx(expected, rel=0.02)
    assert efficiency(pauses, expected) == pytest.approx(0.01 / expected)
