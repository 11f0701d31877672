"""What a run has measured so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphflow import distributed
from graphflow.training.ranks import place


class Means:
    """Means of metrics over samples, from their means over batches."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, metrics: Mapping[str, float], count: int) -> None:
        """The metrics of a batch of so many samples."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * count
        self.count += count

    def values(self) -> dict[str, float]:
        """The means on this rank."""
        return {name: value / self.count for name, value in self.sums.items()}

    def over_ranks(self) -> dict[str, float]:
        """The means over the samples of all ranks, the same on each."""
        _, size = place()
        found: list[Any] = [None] * size
        if size == 1:
            return self.values()
        distributed.all_gather_object(found, (self.sums, self.count))
        whole = Means()
        for sums, count in found:
            for name, value in sums.items():
                whole.sums[name] = whole.sums.get(name, 0.0) + value
            whole.count += count
        return whole.values()


class Record:
    """Steps done, the means of the epoch under way, and the metrics of those before."""

    state_is_own = True
    """Each rank has measured its own part of the epoch."""

    def __init__(self) -> None:
        self.step = 0
        self.means = Means()
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        sums, count = dict(self.means.sums), self.means.count
        return {"step": self.step, "sums": sums, "count": count, "history": self.history}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.step, self.history = state_dict["step"], list(state_dict["history"])
        self.means = Means()
        self.means.sums, self.means.count = dict(state_dict["sums"]), state_dict["count"]
