"""cuDNN on a device, through NVIDIA's binding: what its convolutions and its attention share."""

from __future__ import annotations

import importlib
import threading
from typing import Any

BINDING = "cudnn"
TYPES = {"f16": "HALF", "bf16": "BFLOAT16", "f32": "FLOAT", "tf32": "FLOAT", "f64": "DOUBLE"}
"""The library's names of element types."""


class Handle:
    """The binding's ``module``, and a handle for the device in use when it is made, which one
    thread at a time uses, under ``lock``.

    Raises whatever the binding does where cuDNN does not start.
    """

    def __init__(self) -> None:
        self.module, self.lock = importlib.import_module(BINDING), threading.Lock()
        self.number: Any = self.module.create_handle()
        self.version = int(self.module.backend_version())
        major, rest = divmod(self.version, 10000)
        self.name = f"cuDNN {major}.{rest // 100}.{rest % 100}"

    def type(self, short: str) -> Any:
        """An element type."""
        return getattr(self.module.data_type, TYPES[short])

    def follow(self, stream: Any) -> None:
        """Let what is started next go to a stream."""
        self.module.set_stream(handle=self.number, stream=int(stream))
