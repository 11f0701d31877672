"""``ZeroRedundancyOptimizer``: each rank keeps the optimiser's state of some parameters only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.distributed.collectives import all_gather_object
from graphflow.distributed.process_group import ProcessGroup, group_or_world
from graphflow.distributed.reducing import EagerReduction, GraphReduction, reduced
from graphflow.errors import GraphFlowError
from graphflow.functions.creation import zeros_like
from graphflow.ir.ops.collectives import transport
from graphflow.mode import mode
from graphflow.nn.parallel.distributed import buckets
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import Tensor

MESSAGE_BYTES = 25 << 20


class ZeroRedundancyOptimizer(Optimizer):
    """``optimizer_class(params, **defaults)``, its state divided over the ranks.

    Each rank updates its share of the parameters (whole ones, shares of about equal size) with
    gradients that are the same on all ranks, as ``DistributedDataParallel`` leaves them, and
    keeps state for these alone.  Then all ranks get all parameters, in a compiled step as
    ``all_reduce`` operations of the graph to which every rank adds what it updated and zeros.
    Rajbhandari et al., "ZeRO" (2020), stage 1.

    ``state_dict`` is that of an ordinary optimiser, on ranks that :meth:`consolidate_state_dict`
    gave it to; ``load_state_dict`` takes it on any number of ranks.  The class must update
    parameters one by one (not L-BFGS).  The other arguments are accepted and mean nothing here.
    """

    def __init__(
        self, params: Iterable[Any], optimizer_class: type[Optimizer],
        process_group: ProcessGroup | None = None, parameters_as_bucket_view: bool = False,
        overlap_with_ddp: bool = False, **defaults: Any,
    ) -> None:  # fmt: skip
        whole = (Optimizer._run, Optimizer._step_group)
        if (optimizer_class._run, optimizer_class._step_group) != whole:
            raise GraphFlowError(
                f"ZeroRedundancyOptimizer cannot divide {optimizer_class.__name__}, which does not "
                "update parameters one by one"
            )
        self.optim = optimizer_class(params, **defaults)
        self._group = group_or_world(process_group)
        self._loads = [0] * self._group.size()
        self._owners: dict[int, int] = {}
        self._whole: dict[str, Any] | None = None
        self._hooks: dict[str, list[Callable[..., Any]]] = {}
        self.requests = None
        self.defaults, self.state = self.optim.defaults, self.optim.state
        self.param_groups = self.optim.param_groups
        if self._group.size() > 1:
            self.optim.updates_here = self._is_mine
        self._divide()

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters, which are divided like the others."""
        self.optim.add_param_group(param_group)
        self._divide()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _divide(self) -> None:
        """Give each parameter that has no owner, largest first, to the rank that has least."""
        new = [p for p in self._parameters() if id(p) not in self._owners]
        for parameter in sorted(new, key=lambda p: -p.numel()):
            rank = self._loads.index(min(self._loads))
            self._owners[id(parameter)] = rank
            self._loads[rank] += parameter.numel()

    def _is_mine(self, parameter: Tensor) -> bool:
        return self._owners[id(parameter)] == self._group.rank()

    # ---- steps -----------------------------------------------------------------------------

    def _run(self, closure: Callable[[], Any] | None) -> Any:
        loss = self.optim.step(closure)
        self._whole = None
        if self._group.size() > 1:
            with no_grad():
                self._share()
        return loss

    def _share(self) -> None:
        """Let every parameter be what its owner made of it, on all ranks."""
        begun: list[EagerReduction | GraphReduction] = []
        for bucket in buckets(self._parameters(), MESSAGE_BYTES):
            given = [p.detach() if self._is_mine(p) else zeros_like(p) for p in bucket]
            if mode.tracer is not None:
                begun.append(GraphReduction(bucket, reduced(given, "sum", self._group)))
            else:
                arrays = [t.numpy() for t in given]
                ticket = transport().start(arrays, "sum", self._group.number, False)
                begun.append(EagerReduction(bucket, ticket))
        for reduction in begun:
            reduction.wait()

    # ---- saving and loading ----------------------------------------------------------------

    def consolidate_state_dict(self, to: int | None = 0) -> None:
        """Bring the state together on rank ``to`` (None: on all); every rank must call this."""
        saved = self.optim.state_dict()
        parts: list[Any] = [None] * self._group.size()
        all_gather_object(parts, saved["state"], self._group)
        if to is None or self._group.ranks[self._group.rank()] == to:
            merged = {number: slots for part in parts for number, slots in part.items()}
            self._whole = {**saved, "state": dict(sorted(merged.items()))}

    def state_dict(self) -> dict[str, Any]:
        """What ``optimizer_class`` would save; consolidate it first if there are several ranks."""
        if self._group.size() == 1:
            return self.optim.state_dict()
        if self._whole is None:
            raise GraphFlowError(
                "the optimiser's state is divided over the ranks; call consolidate_state_dict() "
                "on all of them after the last step, then state_dict() on the rank it went to"
            )
        return self._whole

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the options, and of the state what is this rank's."""
        numbers = [number for g in state_dict["param_groups"] for number in g["params"]]
        mine = {n for n, p in zip(numbers, self._parameters(), strict=False) if self._is_mine(p)}
        known = {*numbers}
        kept = {n: s for n, s in state_dict["state"].items() if n in mine or n not in known}
        self.optim.load_state_dict({**state_dict, "state": kept})
        self._whole = None
