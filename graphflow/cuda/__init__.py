"""CUDA devices: whether there are any, and the memory that tensors take there."""

from typing import TYPE_CHECKING

from graphflow.cuda import devices, memory
from graphflow.cuda.devices import *
from graphflow.cuda.memory import *
from graphflow.later import importer

if TYPE_CHECKING:
    from graphflow.cuda import amp
    from graphflow.cuda.streams import Event, Stream, current_stream, default_stream, stream
else:
    _STREAMS = ("Event", "Stream", "current_stream", "default_stream", "stream")
    _LATER = {"amp": "graphflow.cuda.amp"}
    _LATER |= {name: f"graphflow.cuda.streams:{name}" for name in _STREAMS}
    __getattr__ = importer(globals(), _LATER)

__all__ = ["Event", "Stream", "amp", "current_stream", "default_stream", "stream"]
__all__ += devices.__all__ + memory.__all__
