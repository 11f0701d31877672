"""CUDA devices: whether there are any, and the memory that tensors take there."""

from typing import TYPE_CHECKING

from graphflow.cuda import devices, memory
from graphflow.cuda.devices import *
from graphflow.cuda.memory import *
from graphflow.later import Gathering, importer

if TYPE_CHECKING:
    from graphflow.cuda import amp, nvtx, properties, typed
    from graphflow.cuda.properties import *
    from graphflow.cuda.streams import (
        Event,
        Stream,
        current_stream,
        default_stream,
        set_stream,
        stream,
    )
    from graphflow.cuda.typed import *
else:
    _STREAMS = ("Event", "Stream", "current_stream", "default_stream", "set_stream", "stream")
    _LATER = {"amp": "graphflow.cuda.amp", "nvtx": "graphflow.cuda.nvtx"}
    _LATER |= {name: f"graphflow.cuda.streams:{name}" for name in _STREAMS}

    _RARE = Gathering(__name__, ("properties", "typed"))
    __getattr__ = importer(globals(), _LATER, _RARE.find)

__all__ = ["Event", "Stream", "amp", "current_stream", "default_stream", "nvtx", "set_stream"]
__all__ += ["stream"]
__all__ += devices.__all__ + memory.__all__
