"""How data-parallel training scales by calculation: measured steps, a model of the network.

A step ends when the slowest rank has its gradients and they have been added up.  Each rank's
own time is drawn from measured steps.  Adding up ``bytes`` over ``n`` ranks takes

    2 ceil(log2 n) latency + 2 (n - 1) / n bytes / bandwidth

by recursive halving and doubling (Thakur, Rabenseifner, Gropp: "Optimization of collective
communication operations in MPICH", IJHPCA 2005; the additions themselves are in the bandwidth).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Network:
    """What carries messages: seconds a message, bytes a second."""

    name: str
    latency: float
    bandwidth: float

    def all_reduce(self, size: int, ranks: int, messages: int = 1) -> float:
        """Seconds until ``ranks`` ranks have the sum of ``size`` bytes, sent in ``messages``."""
        if ranks == 1:
            return 0.0
        rounds = 2 * math.ceil(math.log2(ranks))
        share = 2 * (ranks - 1) / ranks
        return messages * rounds * self.latency + share * size / self.bandwidth


NETWORKS = (
    Network("10 Gb/s Ethernet", 30e-6, 1.0e9),
    Network("100 Gb/s InfiniBand", 2e-6, 11.0e9),
)
"""Usual figures of the two, for ranks of one machine each."""


def fitted(small: float, large: float, size: int, ranks: int) -> Network:
    """The network in which an all-reduce over ``ranks`` takes ``small`` seconds for next to
    nothing and ``large`` for ``size`` bytes."""
    rounds = 2 * math.ceil(math.log2(ranks))
    share = 2 * (ranks - 1) / ranks
    return Network("measured", small / rounds, share * size / max(large - small, 1e-9))


def step_seconds(
    alone: Sequence[float], size: int, ranks: int, network: Network,
    *, messages: int = 1, steps: int = 400, seed: int = 0,
) -> float:  # fmt: skip
    """Mean seconds of a step of ``ranks`` ranks, none of whose messages hide behind the step.

    ``alone``: measured seconds of steps without messages, from which every rank's are drawn,
    each independently (so that a machine's own pauses count as often as there are ranks).
    """
    rng = np.random.default_rng(seed)
    slowest = [rng.choice(np.asarray(alone), ranks).max() for _ in range(steps)]
    return float(np.mean(slowest)) + network.all_reduce(size, ranks, messages)


def efficiency(alone: Sequence[float], step: float) -> float:
    """Samples a second and rank, as a part of those of one rank by itself."""
    return float(np.median(alone)) / step
