"""Data parallelism within one process: here a compiled step uses all cores by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.errors import GraphFlowError
from graphflow.nn.module import Module


class DataParallel(Module):
    """``module`` under PyTorch's name for several devices of one process.

    There is one device a process, whose threads share every kernel already, so this only
    forwards calls; for several devices or machines use :class:`DistributedDataParallel`.
    Parameters keep PyTorch's prefix, ``module.``
    """

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None,
        dim: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(module, Module):
            raise TypeError(f"DataParallel wraps a Module, not a {type(module).__name__}")
        if device_ids is not None and len(device_ids) > 1:
            raise GraphFlowError(
                f"DataParallel over {len(device_ids)} devices is not possible; start a process "
                "for each and wrap the module in DistributedDataParallel"
            )
        self.module = module
        self.dim = dim

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own result."""
        return self.module(*args, **kwargs)
