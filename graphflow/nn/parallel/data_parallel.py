"""Data parallelism within one process: here a compiled step uses all cores by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        _check_devices(device_ids)
        self.module = module
        self.dim = dim

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own result."""
        return self.module(*args, **kwargs)


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Sequence[Any] | None = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """``module(*inputs)``: :class:`DataParallel` for one call."""
    _check_devices(device_ids)
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    return module(*args, **(module_kwargs or {}))


def _check_devices(device_ids: Sequence[Any] | None) -> None:
    if device_ids is not None and len(device_ids) > 1:
        raise GraphFlowError(
            f"DataParallel over {len(device_ids)} devices is not possible; start a process "
            "for each and wrap the module in DistributedDataParallel"
        )
