"""cuDNN through nvidia-cudnn-frontend: a convolution's graph, its plan, the call.

Memory is ours: the library gets addresses, and a workspace whose size is known when a program has
been loaded.  All of our work is on one stream, so that one workspace does; it never moves under a
convolution that has used it, since calls may be captured in a CUDA graph.  Plans are kept as
long as the process runs, for a captured call needs the plan's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.codegen.cuda.convolution import FORWARD, Convolution, Tensor
from graphflow.errors import GraphFlowError
from graphflow.runtime.cuda.cudnn import Handle
from graphflow.runtime.cuda.current import on
from graphflow.runtime.cuda.library import ALIGNED, Launch
from graphflow.runtime.cuda.memory import Block


class Convolutions:
    """cuDNN on one device: a handle, a workspace, and the convolutions asked for so far."""

    def __init__(self, device: int) -> None:
        self.device = device
        with on(device):
            self.handle = Handle()
        self.name, self.version = self.handle.name, self.handle.version
        self._known: dict[Convolution, _Planned | str] = {}
        self._wanted = 0
        self._room: Block | None = None

    def prepared(self, asked: Convolution, alignments: tuple[int, ...]) -> Launch:
        """See :class:`~graphflow.runtime.cuda.library.Library`."""
        if min(alignments) < ALIGNED:
            raise GraphFlowError(f"{self.name} wants arrays at multiples of {ALIGNED} bytes")
        with self.handle.lock:
            if asked not in self._known:
                self._known[asked] = self._planned(asked)
            found = self._known[asked]
        if isinstance(found, str):
            raise GraphFlowError(found)
        return found.start

    def _planned(self, asked: Convolution) -> _Planned | str:
        try:
            with on(self.device):
                made = _Planned(self, asked)
        except (self.handle.module.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:
            return self._said(error, asked)
        self._wanted = max(self._wanted, made.size)
        return made

    def room(self, size: int) -> Block:
        """A workspace of ``size`` bytes: the one that there is, or one for all that is known."""
        if self._room is None or self._room.nbytes < size:
            self._room = Block(self._wanted, self.device)
        return self._room

    def start(self, planned: _Planned, addresses: Sequence[int], stream: Any) -> None:
        """Start a convolution on a stream.

        Raises :class:`GraphFlowError` with what the library says if it cannot.
        """
        try:
            with self.handle.lock, on(self.device):
                self.handle.follow(stream)
                planned.execute(addresses)
        except (self.handle.module.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:
            raise GraphFlowError(self._said(error, planned.asked)) from error

    def _said(self, error: Exception, asked: Convolution) -> str:
        image, filter = (" by ".join(map(str, x.extents)) for x in (asked.image, asked.filter))
        kind = "" if asked.form == FORWARD else "the gradient of filters, "
        shape = f"{kind}images of {image}, filters of {filter}"
        return f"{self.name}: {' '.join(str(error).split())} ({shape})"


class _Planned:
    """A convolution's graph with the plan that the library has chosen for it."""

    def __init__(self, library: Convolutions, asked: Convolution) -> None:
        self.asked, self._library = asked, library
        cudnn = library.handle.module
        io, compute = (library.handle.type(x) for x in (asked.image.dtype, asked.compute))
        self._graph = graph = cudnn.pygraph(
            io_data_type=io, intermediate_data_type=compute, compute_data_type=compute,
            handle=library.handle.number,
        )  # fmt: skip
        along = {
            "pre_padding": list(asked.low), "post_padding": list(asked.high),
            "stride": list(asked.steps), "dilation": list(asked.dilations),
        }  # fmt: skip
        image = self._tensor("image", asked.image, io)
        if asked.form == FORWARD:
            filter = self._tensor("filter", asked.filter, io)
            made = response = graph.conv_fprop(image=image, weight=filter, **along)
            shape = asked.response
        else:
            response = self._tensor("response", asked.response, io)
            made = filter = graph.conv_wgrad(image=image, loss=response, **along)
            shape = asked.filter
        made.set_output(True).set_data_type(io)
        made.set_dim(list(shape.extents)).set_stride(list(shape.strides))
        self._operands = (image, filter, response)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        notes = self._unwanted()
        if notes:
            graph.deselect_numeric_notes(notes)
        graph.check_support()
        graph.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
        self.size = int(graph.get_workspace_size())
        self._room: Block | None = None

    def _tensor(self, name: str, shape: Tensor, type: Any) -> Any:
        return self._graph.tensor(
            name=name, dim=list(shape.extents), stride=list(shape.strides), data_type=type
        )

    def _unwanted(self) -> list[Any]:
        """What a plan must not do."""
        note, asked = self._library.handle.module.numerical_note, self.asked
        plain = asked.compute == "f32" == asked.image.dtype
        notes = [note.TENSOR_CORE] if plain else []
        return [*notes, note.NONDETERMINISTIC] if asked.deterministic else notes

    def start(self, addresses: Sequence[int], stream: Any) -> None:
        """Start it."""
        self._library.start(self, addresses, stream)

    def execute(self, addresses: Sequence[int]) -> None:
        """Start it on the stream of the library's handle."""
        if self.size and self._room is None:
            self._room = self._library.room(self.size)
        room = 0 if self._room is None else self._room.address
        given = dict(zip(self._operands, map(int, addresses), strict=True))
        self._graph.execute(given, room, handle=self._library.handle.number)
