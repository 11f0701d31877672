"""What a command is about: a model file, a frozen program, an ONNX model or a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphflow.api import compile, trace
from graphflow.cli import modelfile
from graphflow.errors import GraphError, GraphFlowError
from graphflow.frozen import load_program
from graphflow.ir.graph import Graph
from graphflow.program import Program
from graphflow.specs import TensorSpec

HELP = (
    "FILE.py[:builder] with build() -> (step, specs), a frozen program (.gf), an ONNX model "
    "(.onnx), or a graph (.json, .txt)"
)


class Subject:
    """A file that holds a program in some form.

    ``step`` is its function and ``specs`` what that takes, where the file has one to call
    (Python and ONNX); ``program`` is made when it is first asked for.
    """

    def __init__(self, argument: str, device: str = "cpu") -> None:
        self.argument, self.device = argument, device
        self.path = Path(argument)
        self.step: Any = None
        self._program: Program | None = None
        self._make: Callable[[], Any]
        self.specs: tuple[Any, ...] = ()
        opened = _FORMS.get(self.path.suffix.lower(), Subject._open_python)
        if opened is not Subject._open_python:
            if not self.path.is_file():
                raise GraphFlowError(f"{argument}: no such file")
            if device != "cpu":
                raise GraphFlowError(f"{argument}: only a model file can be compiled for {device}")
        opened(self)

    @property
    def name(self) -> str:
        """What files made of this are called: the file's name without its ending."""
        return modelfile.split(self.argument)[0].stem

    @property
    def program(self) -> Program:
        """The compiled program."""
        if self._program is None:
            self._program = self._make()
        return self._program

    def callable(self, what: str) -> Any:
        """The step that runs eagerly too; an error where the file has none."""
        if self.step is None:
            raise GraphFlowError(
                f"{self.argument}: {what} needs a function that also runs eagerly: "
                "a model file (.py) or an ONNX model"
            )
        return self.step

    def examples(self) -> list[Any]:
        """Values for the inputs."""
        specs = self.specs or _specs_of(self.program)
        return [modelfile.example(spec) for spec in specs]

    # ---- the forms -----------------------------------------------------------------

    def _open_python(self) -> None:
        self.step, self.specs = modelfile.load_builder(self.argument)
        self._make = lambda: compile(trace(self.step, *self.specs), device=self.device)

    def _open_frozen(self) -> None:
        self._make = lambda: load_program(self.path)

    def _open_onnx(self) -> None:
        from graphflow.onnx.load import load, load_module

        self.step = load_module(self.path).eval()
        self._make = lambda: load(self.path)

    def _open_graph(self) -> None:
        self._make = lambda: Program.from_graph(read_graph(self.argument))


_FORMS: dict[str, Callable[[Subject], None]] = {
    ".gf": Subject._open_frozen,
    ".onnx": Subject._open_onnx,
    ".json": Subject._open_graph,
    ".txt": Subject._open_graph,
}


def read_graph(argument: str) -> Graph:
    """The graph in a file of JSON or text."""
    try:
        text = Path(argument).read_text(encoding="utf-8")
    except OSError as error:
        raise GraphFlowError(f"{argument}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise GraphFlowError(f"{argument}: neither JSON nor text") from None
    try:
        return Graph.from_json(text) if text.lstrip()[:1] in "{[" else Graph.parse(text)
    except GraphError as error:
        raise GraphFlowError(f"{argument}: {error}") from None


def _specs_of(program: Program) -> list[Any]:
    """What a program takes at its sizes: a spec for each tensor, a number where it wants one."""
    types = program._input_types[: len(program.face.inputs) - len(program.scalars)]
    return [
        1.0 if position in program._numbers else TensorSpec(type.static_shape, type.dtype)
        for position, type in enumerate(types)
    ]
