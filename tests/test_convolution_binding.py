"""The calls of cuDNN's binding, noted by a module in its place; cuDNN itself needs a GPU."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from graphflow.codegen.cuda.convolution import FORWARD, WEIGHTS, Convolution, Tensor
from graphflow.errors import GraphFlowError
from graphflow.records import replace
from graphflow.runtime.cuda import convolutions, library

PLAIN = Convolution(
    FORWARD, "tf32", Tensor("f32", (4, 8, 9, 9), (648, 1, 72, 8)),
    Tensor("f32", (6, 8, 3, 3), (72, 1, 24, 8)), Tensor("f32", (4, 6, 4, 4), (96, 1, 24, 6)),
    (2, 2), (1, 1), (1, 0), (1, 0),
)  # fmt: skip


class Array:
    """A tensor of a graph."""

    def __init__(self, **given: Any) -> None:
        self.given = given

    def _set(self, **more: Any) -> Array:
        self.given.update(more)
        return self

    def set_output(self, value: bool) -> Array:
        return self._set(output=value)

    def set_data_type(self, value: str) -> Array:
        return self._set(data_type=value)

    def set_dim(self, value: list[int]) -> Array:
        return self._set(dim=value)

    def set_stride(self, value: list[int]) -> Array:
        return self._set(stride=value)


class Graph:
    """Notes what is asked of it, in order."""

    def __init__(self, module: Module, **given: Any) -> None:
        self.module, self.given, self.calls = module, given, list[tuple[str, Any]]()
        module.graphs.append(self)

    def tensor(self, **given: Any) -> Array:
        assert set(given) == {"name", "dim", "stride", "data_type"}
        return Array(**given)

    def conv_fprop(self, **given: Any) -> Array:
        self.calls.append(("conv_fprop", given))
        return Array()

    def conv_wgrad(self, **given: Any) -> Array:
        self.calls.append(("conv_wgrad", given))
        return Array()

    def get_workspace_size(self) -> int:
        return self.module.sizes.pop(0)

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **more: Any) -> None:
            self.calls.append((name, (*given, *more.items())))
            if name == self.module.fails:
                raise self.module.cudnnGraphNotSupportedError("no engine\nfor it")

        return call


class Module:
    """``cudnn`` as far as it is used."""

    class cudnnGraphNotSupportedError(Exception):
        pass

    data_type = SimpleNamespace(HALF="half", BFLOAT16="bfloat16", FLOAT="float", DOUBLE="double")
    heur_mode = SimpleNamespace(A="a", FALLBACK="fallback")
    build_plan_policy = SimpleNamespace(HEURISTICS_CHOICE="choice")
    numerical_note = SimpleNamespace(TENSOR_CORE="tensor core", NONDETERMINISTIC="any order")

    def __init__(self) -> None:
        self.graphs, self.sizes, self.streams = list[Graph](), [0] * 9, list[Any]()
        self.fails = ""

    def create_handle(self) -> int:
        return 7

    def backend_version(self) -> int:
        return 91900

    def set_stream(self, handle: int, stream: int) -> None:
        self.streams.append((handle, stream))

    def pygraph(self, **given: Any) -> Graph:
        return Graph(self, **given)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    made = Module()
    monkeypatch.setitem(sys.modules, "cudnn", made)  # type: ignore[arg-type]
    monkeypatch.setattr(convolutions, "on", lambda device: nullcontext())
    blocks = iter(range(4096, 10**6, 4096))
    monkeypatch.setattr(
        convolutions,
        "Block",
        lambda size, device: SimpleNamespace(address=next(blocks), nbytes=size),
    )
    return made


def test_a_response_is_planned_once_and_started(module: Module) -> None:
    found = convolutions.Convolutions(0)
    assert (found.name, found.version) == ("cuDNN 9.19.0", 91900)
    start = found.prepared(PLAIN, (16, 16, 16))
    assert found.prepared(PLAIN, (16, 16, 16)) == start and len(module.graphs) == 1
    (graph,) = module.graphs
    types = {name: graph.given[f"{name}_data_type"] for name in ("io", "intermediate", "compute")}
    assert set(types.values()) == {"float"} and graph.given["handle"] == 7
    names = [name for name, _ in graph.calls]
    assert names == [
        "conv_fprop", "validate", "build_operation_graph", "create_execution_plans",
        "check_support", "build_plans",
    ]  # fmt: skip
    asked = graph.calls[0][1]
    image, filter = asked.pop("image"), asked.pop("weight")
    assert asked == {
        "pre_padding": [1, 0], "post_padding": [1, 0], "stride": [2, 2], "dilation": [1, 1],
    }  # fmt: skip
    assert (image.given["dim"], image.given["stride"]) == ([4, 8, 9, 9], [648, 1, 72, 8])
    assert (filter.given["dim"], filter.given["stride"]) == ([6, 8, 3, 3], [72, 1, 24, 8])
    assert graph.calls[3][1] == (["a", "fallback"],) and graph.calls[5][1] == ("choice",)
    for stream in (0, 5):
        start((16, 32, 48), stream)
    assert module.streams == [(7, 0), (7, 5)]
    name, (arrays, room, handle) = graph.calls[-1]
    assert (name, room, handle) == ("execute", 0, ("handle", 7))
    response = next(array for array in arrays if array not in (image, filter))
    assert arrays == {image: 16, filter: 32, response: 48}
    assert response.given == {
        "output": True, "data_type": "float", "dim": [4, 6, 4, 4], "stride": [96, 1, 24, 6],
    }  # fmt: skip


def test_the_gradient_of_filters(module: Module) -> None:
    half = replace(
        PLAIN, form=WEIGHTS, compute="f32",
        **{n: replace(getattr(PLAIN, n), dtype="f16") for n in ("image", "filter", "response")},
    )  # fmt: skip
    start = convolutions.Convolutions(0).prepared(half, (16, 16, 16))
    (graph,) = module.graphs
    assert graph.given["io_data_type"] == "half" and graph.given["compute_data_type"] == "float"
    name, asked = graph.calls[0]
    assert name == "conv_wgrad" and asked["loss"].given["dim"] == [4, 6, 4, 4]
    start((16, 32, 48), 0)
    arrays = graph.calls[-1][1][0]
    (made,) = (array for array in arrays if array not in (asked["image"], asked["loss"]))
    assert (arrays[asked["image"]], arrays[made], arrays[asked["loss"]]) == (16, 32, 48)
    assert (made.given["dim"], made.given["stride"]) == ([6, 8, 3, 3], [72, 1, 24, 8])


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"compute": "f32"}, ["tensor core"]), ({"deterministic": True}, ["any order"]),
        ({"compute": "f32", "deterministic": True}, ["tensor core", "any order"]), ({}, None),
    ],
)  # fmt: skip
def test_what_a_plan_must_not_do(module: Module, change: Any, wanted: list[str] | None) -> None:
    convolutions.Convolutions(0).prepared(replace(PLAIN, **change), (16, 16, 16))
    names = [name for name, _ in module.graphs[0].calls]
    said = [given for name, given in module.graphs[0].calls if name == "deselect_numeric_notes"]
    assert said == ([] if wanted is None else [(wanted,)])
    if wanted:
        after, before = (names.index(x) for x in ("create_execution_plans", "check_support"))
        assert after < names.index("deselect_numeric_notes") < before


def test_one_workspace_that_never_moves_under_what_has_used_it(module: Module) -> None:
    module.sizes = [100, 300, 0, 500]
    found = convolutions.Convolutions(0)
    others = [replace(PLAIN, steps=(n, n)) for n in (2, 3, 4, 5)]
    starts = [found.prepared(what, (16, 16, 16)) for what in others[:3]]

    def rooms() -> list[int]:
        return [graph.calls[-1][1][1] for graph in module.graphs]

    for start in starts:
        start((16, 32, 48), 0)
    assert rooms() == [4096, 4096, 0], "the largest of a program for all"
    last = found.prepared(others[3], (16, 16, 16))
    for start in (*starts, last):
        start((16, 32, 48), 0)
    assert rooms() == [4096, 4096, 0, 8192]
    kept = found._known[others[0]]
    assert isinstance(kept, convolutions._Planned) and kept._room is not None, "it is not freed"


@pytest.mark.parametrize("where", ["validate", "check_support", "build_plans"])
def test_what_is_not_supported_is_an_error_once_asked(module: Module, where: str) -> None:
    module.fails = where
    found = convolutions.Convolutions(0)
    said = r"cuDNN 9.19.0: no engine for it \(images of 4 by 8 by 9 by 9, filters of 6 by"
    for _ in range(2):
        with pytest.raises(GraphFlowError, match=said):
            found.prepared(PLAIN, (16, 16, 16))
    assert len(module.graphs) == 1
    with pytest.raises(GraphFlowError, match=r"for it \(the gradient of filters, images"):
        found.prepared(replace(PLAIN, form=WEIGHTS), (16, 16, 16))


def test_a_call_that_fails_says_what_the_library_said(module: Module) -> None:
    start = convolutions.Convolutions(0).prepared(PLAIN, (16, 16, 16))
    module.fails = "execute"
    with pytest.raises(GraphFlowError, match=r"cuDNN 9.19.0: no engine for it"):
        start((16, 32, 48), 0)


def test_arrays_that_begin_anywhere_are_not_taken(module: Module) -> None:
    found = convolutions.Convolutions(0)
    with pytest.raises(GraphFlowError, match="arrays at multiples of 16 bytes"):
        found.prepared(PLAIN, (16, 4, 16))
    assert not module.graphs


def test_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = library.library.__wrapped__
    monkeypatch.setattr(library, "missing", lambda: "")
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    assert found(0, Convolution).startswith("nvidia-cudnn-frontend is not installed: ")
    monkeypatch.setattr(library, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cudnn", None)
    assert found(0, Convolution).startswith("cuDNN does not start: ")
