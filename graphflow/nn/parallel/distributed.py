"""``DistributedDataParallel``: gradients averaged over the ranks of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphflow.autograd.engine import call_afterwards
from graphflow.autograd.modes import no_grad
from graphflow.distributed.collectives import all_gather_object, broadcast
from graphflow.distributed.process_group import ProcessGroup, group_or_world
from graphflow.distributed.reducing import begin
from graphflow.errors import GraphFlowError
from graphflow.functions.creation import zeros_like
from graphflow.ir.ops.collectives import PAIRWISE
from graphflow.mode import mode, structure
from graphflow.nn.module import Module
from graphflow.nn.parallel.virtual_ranks import in_parts, parts_of
from graphflow.tensor import Tensor

FIRST_BUCKET_BYTES = 1 << 20
"""The first bucket is small, so that messages begin early in the backward pass.

Nothing travels between ranks that share memory: there the first bucket is like the others.
"""


class DistributedDataParallel(Module):
    """``module``, whose gradients ``backward()`` averages over the ranks.

    At the start every rank takes over rank 0's parameters and buffers; from then on equal
    gradients keep them equal.  Gradients travel in few *buckets* of about ``bucket_cap_mb``, in
    the order in which the backward pass makes them; in a compiled step each is one
    ``all_reduce`` of the graph, begun as soon as its gradients are there and waited for when
    the optimiser wants them.  With one rank this only forwards calls.

    ``broadcast_buffers``: before each forward call in training, rank 0's buffers (running
    statistics) replace those of the others; it happens outside compiled steps only, where each
    rank keeps its own.  ``find_unused_parameters``: parameters without a gradient in a pass
    take part with zeros, for models whose ranks use different parts.  ``check_finite``: NaN or
    infinity in a gradient is an error that names the rank; switch it off for a
    gradient scaler that looks for them itself.

    ``virtual_ranks``: train as on so many ranks, a power of two, however many there are.
    Each rank then computes its batch in as many equal parts, along axis ``dim``, as it stands
    for ranks, and gradients are added up in an order that does not depend on who computes which
    part: parameters have the same bits on 1, 2, 4 … ranks whose batches, in the order of
    ranks, are the same global batch.  The other arguments are accepted and mean nothing here.
    """

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None,
        dim: int = 0, broadcast_buffers: bool = True, init_sync: bool = True,
        process_group: ProcessGroup | None = None, bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False, check_reduction: bool = False,
        gradient_as_bucket_view: bool = False, static_graph: bool = False,
        *, check_finite: bool = True, virtual_ranks: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(module, Module):
            raise TypeError(
                f"DistributedDataParallel wraps a Module, not a {type(module).__name__}"
            )
        self._group = group_or_world(process_group)
        trained = [p for p in module.parameters() if p.requires_grad]
        if not trained:
            raise GraphFlowError(
                "DistributedDataParallel is of no use for a module without parameters that "
                "require a gradient"
            )
        self.module = module
        self._trained = trained
        self._dim = dim
        self._parts = 0 if virtual_ranks is None else parts_of(virtual_ranks, self._group.size())
        self.broadcast_buffers = broadcast_buffers
        self.find_unused_parameters = find_unused_parameters
        self.check_finite = check_finite
        self.require_backward_grad_sync = True
        cap = 25.0 if bucket_cap_mb is None else float(bucket_cap_mb)
        cap_bytes = int(cap * (1 << 20))
        if self._group.size() > 1:
            if init_sync:
                self._agree()
            for parameter in trained:
                parameter.register_post_accumulate_grad_hook(self._gradient_made)
        first = cap_bytes if self._shares_memory(trained, cap_bytes) else FIRST_BUCKET_BYTES
        self._buckets = buckets(trained, cap_bytes, first)

    def _shares_memory(self, trained: Sequence[Tensor], cap: int) -> bool:
        """Whether the group's ranks find each other's buckets in memory."""
        size = sum(p.numel() * p.dtype.itemsize for p in trained)
        channel = self._group.channel
        return channel is not None and channel.ring(min(size, cap)) is not None

    def _agree(self) -> None:
        """Check that all ranks have the same model, and take over rank 0's values."""
        state = [*self.module.named_parameters(), *self.module.named_buffers()]
        shapes = [(name, str(t._type)) for name, t in state]
        others: list[Any] = [None] * self._group.size()
        all_gather_object(others, shapes, self._group)
        for rank, found in enumerate(others):
            if found != others[0]:
                known = {*others[0]}
                difference = next((x for x in found if x not in known), ("", "another order"))
                raise GraphFlowError(
                    f"rank {self._group.ranks[rank]} has another model than rank "
                    f"{self._group.ranks[0]}: {' '.join(difference)}"
                )
        self._broadcast([t for _, t in state])

    def _broadcast(self, tensors: Sequence[Tensor]) -> None:
        begun = [broadcast(t, group=self._group, async_op=True, group_src=0) for t in tensors]
        for work in begun:
            assert work is not None
            work.wait()

    # ---- calls -----------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own result."""
        if self._wants_buffers():
            self._broadcast(list(self.module.buffers()))
        if self._parts and mode.grad:
            return in_parts(self.module, self._trained, self._parts, self._dim, args, kwargs)
        return self.module(*args, **kwargs)

    def _wants_buffers(self) -> bool:
        return (
            self._group.size() > 1
            and self.broadcast_buffers
            and self.require_backward_grad_sync
            and self.training
            and mode.tracer is None
        )

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """A stretch in which gradients stay on their rank and add up (gradient accumulation)."""
        held = self.require_backward_grad_sync
        self.require_backward_grad_sync = False
        structure.bump()
        try:
            yield
        finally:
            self.require_backward_grad_sync = held
            structure.bump()

    # ---- gradients -------------------------------------------------------------------------

    def _gradient_made(self, parameter: Tensor) -> None:
        call_afterwards(self, self._reduce)

    def _reduce(self) -> None:
        """Average the gradients: begin with all buckets, then wait for them in turn."""
        if mode.tracer is not None:
            mode.tracer.guard(
                lambda: self.require_backward_grad_sync,
                self.require_backward_grad_sync,
                "whether gradients are reduced (no_sync)",
            )
        if not self.require_backward_grad_sync:
            return
        how = PAIRWISE if self._parts else "avg"
        with no_grad():
            begun = [
                begin(self._gradients(bucket), how, self._group, self.check_finite)
                for bucket in self._buckets
                if self._gradients(bucket)
            ]
            for reduction in begun:
                reduction.wait()

    def _gradients(self, bucket: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for parameter in bucket:
            if parameter.grad is None and self.find_unused_parameters:
                parameter.grad = zeros_like(parameter)
            if parameter.grad is not None:
                found.append(parameter.grad)
        return found


def buckets(
    parameters: Sequence[Tensor], cap: int, first: int = FIRST_BUCKET_BYTES
) -> list[list[Tensor]]:
    """Parameters grouped as their gradients travel: the last first, of one dtype, up to a size.

    The first bucket of a dtype holds at most ``first`` bytes, others ``cap``,
    unless one parameter alone is larger.
    """
    found: list[list[Tensor]] = []
    open_now: dict[Any, tuple[list[Tensor], int]] = {}
    limits: dict[Any, int] = {}
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.dtype.itemsize
        bucket, held = open_now.get(parameter.dtype, ([], 0))
        limit = limits.setdefault(parameter.dtype, min(cap, first))
        if bucket and held + size > limit:
            limits[parameter.dtype] = cap
            bucket, held = [], 0
        if not bucket:
            found.append(bucket)
        bucket.append(parameter)
        open_now[parameter.dtype] = (bucket, held + size)
    return found
