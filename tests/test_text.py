"""Text of graphs: it parses back to the same graph, and bad text is explained."""

import time

import numpy as np
import pytest
from graphs import random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.errors import GraphError
from graphflow.ir.build import NODES, constant, input_node, splat, state_node
from graphflow.ir.dims import symbol
from graphflow.ir.graph import Graph, Location
from graphflow.ir.node import Node, make_node
from graphflow.ir.op import lookup
from graphflow.ir.types import DTYPES, DType, TensorType, float32, int64

TEXT = """\
graph main {
  %x: f32[8,4] = input(name="x")
  %w: f32[4,2] = state(name="w")  # model.py:12 fc
  %0: f32[8,2] = matmul(%x, %w)  # model.py:20 fc
  %1: f32[] = constant(0.5)
  %hidden: f32[8,2] = mul(%0, %1)  # model.py:21
  %2: f32[8] = reduce_sum(%hidden, axes=(1,))
  %3: f32[4,2] = neg(%w)
  return %2
  update %w = %3
}
"""


def check(graph: Graph) -> str:
    """Round trip: the same structure, places and names, and the same text again."""
    text = str(graph)
    again = Graph.parse(text)
    assert again.same_as(graph), text
    assert str(again) == text
    assert again.name == graph.name
    assert {n: p for n, p in graph.locations.items() if n in graph.users} == again.locations
    return text


def test_the_example_of_the_docstring() -> None:
    graph = Graph.parse(TEXT)
    assert str(graph) == TEXT
    assert [n.attrs["name"] for n in (*graph.inputs, *graph.state)] == ["x", "w"]
    assert graph.updates[0][0] is graph.state[0] and graph.outputs[0].type == TensorType(
        float32, (8,)
    )
    assert graph.locations[graph.state[0]] == Location("model.py", 12, "fc")
    assert set(graph.names.values()) == {"hidden"}


def test_types_may_be_left_out_and_comments_stand_anywhere() -> None:
    lines = [line.replace(": f32[8,2]", "") if "mul" in line else line for line in TEXT.split("\n")]
    text = "# a remark\n\n" + "\n# more\n".join(lines) + "\n  # the end\n"
    assert Graph.parse(text).same_as(Graph.parse(TEXT))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("symbolic", [False, True])
def test_random_graphs_come_back(seed: int, symbolic: bool) -> None:
    check(random_graph(seed, 40, symbolic=symbolic).graph)


# ---- constants ------------------------------------------------------------------------

SPECIAL = {
    "f16": [0x7E00, 0x7E01, 0xFE00, 0x7C00, 0xFC00, 0x8000, 1, 0x3555],
    "bf16": [0x7FC0, 0x7FC1, 0xFFC0, 0x7F80, 0xFF80, 0x8000, 1, 0x3EAB],
    "f32": [0x7FC00000, 0x7FC00001, 0xFFC00000, 0x7F800000, 0xFF800000, 0x80000000, 1, 0x3DCCCCCD],
    "f64": [0x7FF8 << 48, (0x7FF8 << 48) + 1, 0xFFF8 << 48, 0x7FF0 << 48, 1 << 63, 1,
            0x3FB999999999999A, 0x7FEFFFFFFFFFFFFF],
}  # fmt: skip
UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.short)
@pytest.mark.parametrize("count", [0, 1, 8, 9, 100])
def test_constants_come_back_bit_for_bit(dtype: DType, count: int) -> None:
    rng = np.random.default_rng(count)
    raw = rng.integers(0, 256, count * dtype.itemsize, np.uint8).tobytes()
    if dtype.kind == "bool":
        array = rng.integers(0, 2, count).astype(bool)
    else:
        array = np.frombuffer(raw, dtype.numpy)
    graph = Graph((), (constant(array),))
    text = check(graph)
    assert Graph.parse(text).outputs[0].attrs["value"].array.tobytes() == array.tobytes()
    assert ("base64" in text) == (count > 8)


@pytest.mark.parametrize("short", SPECIAL)
def test_special_floats_come_back_and_read_well(short: str) -> None:
    dtype = next(d for d in DTYPES if d.short == short)
    bits = np.array(SPECIAL[short], UNSIGNED[dtype.itemsize])
    text = check(Graph((), (constant(bits.view(dtype.numpy)),)))
    for word in ("nan, 0x", "inf", "-0.0"):
        assert word in text
    for one in bits:
        value = np.array(one).view(dtype.numpy)
        parsed = Graph.parse(check(Graph((), (constant(value),))))
        assert parsed.outputs[0].attrs["value"].array.tobytes() == value.tobytes()


def test_shortest_decimals_are_used() -> None:
    text = str(Graph((), (constant(np.float32(0.1)), constant(np.float64(0.1)))))
    assert text.count("constant(0.1)") == 2


@pytest.mark.parametrize("shape", [(), (2, 3), (1, 1, 1), (0,), (2, 0), (1_000_000, 0), (3, 4, 5)])
def test_constants_keep_their_shape(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    assert Graph.parse(check(Graph((), (constant(array),)))).outputs[0].shape == shape


def test_a_large_constant_stands_once_in_the_table() -> None:
    data = constant(np.arange(1000, dtype=np.float32))
    text = check(Graph((), (data, NODES.tanh(data))))
    assert text.count("base64") == 1 and max(map(len, text.split("\n"))) < 100


# ---- names and places -------------------------------------------------------------------

NAMES = ["h", "fc1.weight", "7", "a b", 'q"uote', "a@2", "x\ny", "", "é", "\u2028", "graph", "x"]


def test_names_survive_whatever_they_are() -> None:
    x = input_node("x", TensorType(float32, (2,)))
    node, names = x, {}
    for name in [*NAMES, *NAMES]:  # every name twice
        node = NODES.tanh(node)
        names[node] = name
    graph = Graph((x,), (node,), names=names, name="a graph")
    check(graph)
    assert Graph.parse(str(graph)).names == names


def test_leaves_are_labelled_by_their_own_names() -> None:
    w = TensorType(float32, (2,))
    leaves = [input_node("w", w), state_node("w", w), state_node("odd name", w)]
    text = check(Graph((leaves[0],), (leaves[1],), tuple(leaves[1:])))
    assert all(label in text for label in ("%w: ", "%w@2: ", '%"odd name": '))


@pytest.mark.parametrize(
    "place",
    [
        Location("model.py", 41, "model.fc1"),
        Location("model.py", 41),
        Location(module="layers.0"),
        Location("", 7, "m"),
        Location("my file.py", 3, 'a"b'),
        Location("C:\\x:y.py", 3, "#1"),
        Location("a#b.py", -1, "x:3"),
    ],
    ids=str,
)
def test_locations_survive(place: Location) -> None:
    x = input_node("x", TensorType(float32, (2,)))
    graph = Graph((x,), (NODES.tanh(x),), locations={NODES.tanh(x): place, x: place})
    assert Graph.parse(check(graph)).locations == graph.locations


# ---- attributes and regions ----------------------------------------------------------------


def test_every_kind_of_attribute_survives() -> None:
    x = input_node("x", TensorType(float32, (2,)))
    n = symbol("n")
    values: list[object] = [
        True, False, None, 0, -3, 10**20, 0.5, -0.0, 1e-300, float("nan"), float("inf"),
        -float("inf"), np.frombuffer(b"\1\0\0\0\0\0\xf8\x7f")[0].item(), "", 'a "b"\n', "%x, # no",
        float32, int64, TensorType(float32, (2, n)), (), (1,), (1, (2.0, (True,))), n, n * 2 - 1,
        -n, symbol("nan"), symbol("f32") + symbol("true"), Graph((x,), (NODES.tanh(x),)),
        (Graph((x,), (x,)), 1, Graph((), (splat(1.0, TensorType(float32, (3,))),))),
        constant(np.arange(12.0)).attrs["value"], constant(1 + 2j).attrs["value"],
    ]  # fmt: skip
    node = x
    for value in values:  # the parser infers types: an operation whose rule ignores attributes
        node = make_node(lookup("tanh"), (node,), {"value": value}, node.type)
    check(Graph((x,), (node,)))


def test_regions_are_nested_and_indented() -> None:
    x = input_node("x", TensorType(float32, (2,)))
    inner = Graph((x,), (NODES.sin(x),), name="inner", names={NODES.sin(x): "s"})
    middle = make_node(lookup("tanh"), (x,), {"body": inner}, x.type)
    outer = Graph((x,), (middle,), name="outer", locations={middle: Location("b.py", 2)})
    top = make_node(lookup("tanh"), (x,), {"body": outer}, x.type)
    text = check(Graph((x,), (top,)))
    assert (
        "  %0: f32[2] = tanh(%x, body=@body)\n"
        "    @body = graph outer {\n"
        '      %x: f32[2] = input(name="x")\n'
        "      %0: f32[2] = tanh(%x, body=@body)  # b.py:2\n"
        "        @body = graph inner {\n"
        '          %x: f32[2] = input(name="x")\n'
        "          %s: f32[2] = sin(%x)\n"
        "          return %s\n"
        "        }\n"
        "      return %0\n"
        "    }\n"
    ) in text


def test_regions_too_deep_are_refused() -> None:
    nested = "graph g {\n return\n}\n"
    for _ in range(100):
        body = "".join("  " + line + "\n" for line in ("@b = " + nested).strip().split("\n"))
        nested = (
            'graph g {\n %x: f32[] = input(name="x")\n %0 = tanh(%x, b=@b)\n'
            f"{body} return %0\n}}\n"
        )
    with pytest.raises(GraphError, match="nested more than 64 deep"):
        Graph.parse(nested)


# ---- errors -----------------------------------------------------------------------------------

ERRORS = [
    ("%0: f32[8,2] = matmul(%x, %w)", "%0: f32[8,2] = matmull(%x, %w)", "line 4.*unknown.*matmul"),
    ("matmul(%x, %w)", "matmul(%x, %v)", "line 4: %v is not defined above"),
    ("matmul(%x, %w)", "matmul(%x, %w", "line 4: expected ',' or '\\)', found '# model"),
    ("matmul(%x, %w)", "matmul(%x %w)", "line 4: expected ',' or '\\)', found '%w'"),
    ("matmul(%x, %w)", "matmul(%x, 3)", "line 4: expected an operand or an attribute"),
    ("matmul(%x, %w)", "matmul(%w, %x)", "line 4: matmul does not take"),
    ("%0: f32[8,2] =", "%0: f32[8,3] =", r"line 4: matmul yields f32\[8,2\] here, not f32\[8,3\]"),
    ("%0: f32[8,2] =", "%0: g32[8,2] =", "line 4: expected a type such as"),
    ("%0: f32[8,2] =", "%0: f32[8,] =", "line 4: '' is no dimension"),
    ("%0: f32[8,2] =", "%0: f32[8,²] =", "line 4: '²' is no dimension"),
    ("%0: f32[8,2] =", "%0 f32[8,2] =", "line 4: expected '='"),
    ("%0: f32[8,2] =", "0: f32[8,2] =", "line 4: expected a label such as %0, or 'return'"),
    ("%hidden:", "%0:", "line 6: %0 is defined twice"),
    ("constant(0.5)", "constant(zero)", "line 5: expected a number of type f32, found 'zero'"),
    ("constant(0.5)", "constant([0.5, 1.0])", r"line 5: f32\[\] has 1 elements, but 2 are given"),
    ("constant(0.5)", "constant(0x3f)", "line 5: expected a number of type f32"),
    ("constant(0.5)", "constant(const<12ab>)", "line 5: const<12ab> is not in the table"),
    ("%1: f32[] = constant", "%1 = constant", "line 5: a constant needs a tensor type"),
    ("axes=(1,)", "axes=(1", "line 7: expected ',' or '\\)'"),
    ("axes=(1,)", "axes=__import__('os')", "line 7"),
    ("axes=(1,))", "axes=", "line 7: expected a value, found the end of the line"),
    ("axes=(1,)", "axes=@b", "line 7: the region @b does not follow"),
    ("axes=(1,)", "axes=(1,), axes=()", "line 7: attribute axes is given twice"),
    ("axes=(1,)", "axis=1", "line 7: reduce_sum does not take"),
    ("axes=(1,)", "%x", "line 7: reduce_sum does not take"),
    ('input(name="x")', "input()", "line 2: input needs a name"),
    ('input(name="x")', 'input(name="x)', "line 2: .* is no string"),
    ("%x: f32[8,4] = input", "%x = input", "line 2: input needs a type"),
    ("  return %2\n", "", "line 9: expected a label.*found 'update'"),
    ("return %2", "return %2 %3", "line 9: expected the end of the line, found '%3'"),
    ("update %w = %3", "update %w", "line 10: expected '=', found the end of the line"),
    ("update %w = %3", "updates %w = %3", "line 10: expected '}'"),
    ("graph main {", "graf main {", "line 1: expected 'graph', found 'graf'"),
    ("graph main {", "graph {", "line 1: expected a name"),
    ("}\n", "", "expected 'update' or '}', found the end of the text"),
    ("}\n", "}\n}\n", "line 12: expected the end of the text"),
    ("}\n", "}\nconst<00>: f32[9]\n", "line 12: expected const<hash>: type = base64"),
    ("}\n", "}\nconst<00>: f32[9] = base64\n  AAA\n", "line 12: the data is no base64"),
    ("}\n", "}\nconst<00>: f32[9] = base64\n  AAAA\n", "line 12: .* takes 36 bytes"),
    ("}\n", "}\nconst<00>: u8[3] = base64\n  AAAA\n", "line 12: the data does not have the hash"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"), ERRORS, ids=[str(i) for i in range(len(ERRORS))]
)
def test_bad_text_names_the_line_and_what_was_expected(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(GraphError, match=message):
        Graph.parse(TEXT.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "\n\n", "# only a remark"])
def test_no_graph_at_all(text: str) -> None:
    with pytest.raises(GraphError, match="expected a graph, found the end of the text"):
        Graph.parse(text)


def test_damaged_text_fails_with_our_error_only() -> None:
    rng = np.random.default_rng(7)
    text = str(random_graph(11, 30).graph)
    for trial in range(300):
        at = int(rng.integers(len(text)))
        damaged = text[:at] + chr(rng.integers(32, 127)) + text[at + int(rng.integers(0, 4)) :]
        try:
            Graph.parse(damaged)
        except GraphError:
            continue
        except Exception as error:
            raise AssertionError(f"trial {trial}: {error!r} for\n{damaged}") from error


# ---- size ---------------------------------------------------------------------------------------


def test_fifty_thousand_nodes() -> None:
    node: Node = input_node("x", TensorType(float32, (8,)))
    for i in range(25_000):
        node = NODES.tanh(node) * float(i % 50)
    graph = Graph((input_node("x", TensorType(float32, (8,))),), (node,))
    start = time.perf_counter()
    check(graph)
    graph.verify("traced")
    print(f"{len(graph.nodes)} nodes printed twice, parsed, verified in "
          f"{time.perf_counter() - start:.1f} s")  # fmt: skip
