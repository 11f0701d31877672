"""Batch normalisation over the batches of all processes."""

from __future__ import annotations

from typing import Any

from graphflow.autograd.modes import no_grad
from graphflow.functions.elementwise import add, div, mul, rsqrt, sub
from graphflow.functions.reductions import count
from graphflow.functions.reductions import sum as total
from graphflow.ir import types as T
from graphflow.nn.module import Module
from graphflow.nn.modules.batchnorm import BATCH_NORMS, _BatchNorm
from graphflow.promotion import cast
from graphflow.tensor import Tensor

__all__ = ["SyncBatchNorm"]


class SyncBatchNorm(_BatchNorm):
    """Normalises [N, C, …] by statistics of the samples of every rank of a process group.

    While training each rank sends two sums a channel, forward and backward; every rank must
    call it.  Without a process group, of one rank or in evaluation it is a batch norm.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, process_group: Any = None,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        options = (affine, track_running_stats, device, dtype)
        super().__init__(num_features, eps, momentum, *options, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")

    def _normalised(
        self, input: Tensor, mean: Tensor | None, var: Tensor | None, batch: bool, momentum: Any
    ) -> Tensor:
        if not (batch and self._ranks() > 1):
            return super()._normalised(input, mean, var, batch, momentum)
        dims = (0, *range(2, input.ndim))
        x = cast(input, T.float32) if input.dtype.itemsize < 4 else input
        here = add(mul(total(x[:1].detach(), dims), 0), float(count(input, dims)))
        seen = self._summed(here)
        shape = (1, -1, *(1 for _ in dims[1:]))
        centre = div(self._summed(total(x, dims)), seen)
        away = sub(x, centre.reshape(shape))
        variance = div(self._summed(total(mul(away, away), dims)), seen)
        out = mul(away, rsqrt(add(variance, self.eps)).reshape(shape))
        with no_grad():
            unbiased = mul(variance.detach(), div(seen, sub(seen, 1.0)))
            for held, new in ((mean, centre.detach()), (var, unbiased)):
                if held is not None:
                    held.copy_(add(mul(held, 1.0 - momentum), mul(new, momentum)))
        if self.weight is not None:
            out = mul(out, self.weight.reshape(shape))
        if self.bias is not None:
            out = add(out, self.bias.reshape(shape))
        return cast(out, input.dtype)

    def _ranks(self) -> int:
        from graphflow import distributed

        there = distributed.is_available() and distributed.is_initialized()
        return distributed.get_world_size(self.process_group) if there else 1

    def _summed(self, value: Tensor) -> Tensor:
        from graphflow.distributed.nn import all_reduce

        return all_reduce(value, group=self.process_group)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """``module`` with every batch norm in it replaced by one of these, with its tensors."""
        if isinstance(module, BATCH_NORMS) and not isinstance(module, cls):
            tracked = module.track_running_stats
            made = cls(
                module.num_features, module.eps, module.momentum, False, tracked, process_group
            )
            made.affine = module.affine
            for table in ("_parameters", "_buffers"):
                getattr(made, table).update(getattr(module, table))
            made.training = module.training
            return made
        for name, child in list(module.named_children()):
            module.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return module
