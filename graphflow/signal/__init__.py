"""Signal processing by the names of ``torch.signal``."""

from graphflow.signal import windows

__all__ = ["windows"]
