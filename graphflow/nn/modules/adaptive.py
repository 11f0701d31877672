"""A softmax over very many classes, of which few are frequent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.checks import need_tensor
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.functions.elementwise import add, clamp, ge, logical_and, lt, neg, sub, where
from graphflow.functions.picking import gather
from graphflow.functions.reductions import argmax, log_softmax
from graphflow.functions.shaping import cat, squeeze, unsqueeze
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.nn.module import Module
from graphflow.nn.modules.containers import ModuleList, Sequential
from graphflow.nn.modules.linear import Linear
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class OutputAndLoss(NamedTuple):
    """Log-probabilities of the targets, and the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Classes in clusters of falling frequency, rare ones from narrower features.

    Classes up to ``cutoffs[0]`` are entries of the head, which has one more entry for each
    cluster; cluster i has ``in_features / div_value ** (i + 1)`` features.  Classes are
    numbered from the most frequent on (Grave et al. 2017, "Efficient softmax
    approximation for GPUs").
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        edges = list(cutoffs)
        whole = all(isinstance(c, int) and 0 < c < n_classes for c in edges)
        if not edges or not whole or edges != sorted(set(edges)):
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing "
                f"order, where each value is between 1 and n_classes-1, not {cutoffs!r}"
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs = [*edges, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = edges[0], len(edges)
        self.head_size = self.shortlist_size + self.n_clusters
        made = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **made)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            width = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            down = Linear(in_features, width, bias=False, **made)
            self.tail.append(Sequential(down, Linear(width, size, bias=False, **made)))

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.head.reset_parameters()
        for down, up in self.tail:
            down.reset_parameters()
            up.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> OutputAndLoss:
        """Input [N, in] and targets [N], or [in] and a 0-d target."""
        input, target = need_tensor("input", input_), need_tensor("target", target_)
        single = target.ndim == 0
        if target.ndim > 1 or input.ndim != target.ndim + 1:
            raise ShapeError(
                "AdaptiveLogSoftmaxWithLoss takes [N, in] with targets [N] or [in] with one "
                f"target, not {list(input.shape)} with {list(target.shape)}"
            )
        if single:
            input, target = unsqueeze(input, 0), unsqueeze(target, 0)
        if input.shape[0] != target.shape[0]:
            raise ShapeError("Input and target should have the same size in the batch dimension.")
        self._check_targets(target)
        output = self._of_targets(input, target)
        loss = neg(output).mean()
        return OutputAndLoss(squeeze(output, 0) if single else output, loss)

    def _check_targets(self, target: Tensor) -> None:
        if mode.tracer is not None or not target.numel():
            return
        least, most = int(target.min()), int(target.max())
        if least < 0 or most >= self.n_classes:
            raise GraphFlowError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                f"[{least}, {most}] were found."
            )

    def _of_targets(self, input: Tensor, target: Tensor) -> Tensor:
        head = log_softmax(self.head(input), 1)
        place = clamp(target, max=self.shortlist_size - 1)
        found = squeeze(gather(head, 1, unsqueeze(place, 1)), 1)
        for i, layers in enumerate(self.tail):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            inside = logical_and(ge(target, low), lt(target, high))
            own = clamp(sub(target, low), 0, high - low - 1)
            logs = log_softmax(layers(input), 1)
            value = squeeze(gather(logs, 1, unsqueeze(own, 1)), 1)
            found = where(inside, add(value, head[:, self.shortlist_size + i]), found)
        return found

    def log_prob(self, input: Tensor) -> Tensor:
        """[N, in] to the log-probabilities of all classes, [N, classes]."""
        head = log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, layers in enumerate(self.tail):
            at = self.shortlist_size + i
            parts.append(add(log_softmax(layers(input), 1), head[:, at : at + 1]))
        return cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """[N, in] to the most probable class of each, [N]."""
        return argmax(self.log_prob(input), 1)
