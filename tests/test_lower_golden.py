"""The text of a dozen kernels: a change in what is generated shows as a difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lowering import Memory
from test_lower_cases import layer_norm, leaf, softmax, spread

from graphflow.codegen.lower import lower_epilogue, lower_group
from graphflow.codegen.schedule import KernelSource
from graphflow.ir.build import NODES as b
from graphflow.ir.build import splat
from graphflow.ir.graph import Graph
from graphflow.ir.op import Application
from graphflow.ir.ops.standardise import STANDARDISE
from graphflow.ir.types import float32, int64


def cross_entropy() -> Graph:
    """The mean of -log softmax at the labels, a row at a time."""
    x, labels = leaf("x", 128, 100), leaf("y", 128, dtype=int64)
    shifted = x - spread(b.reduce_max(x, axes=(1,)), x)
    total = b.log(b.reduce_sum(b.exp(shifted), axes=(1,)))
    picked = b.gather(shifted, b.reshape(labels, shape=(128, 1)), axis=1)
    return Graph((x, labels), (total - b.reshape(picked, shape=(128,)),))


def cross_entropy_gradient() -> Graph:
    """(softmax - one hot) / rows."""
    x, labels = leaf("x", 128, 100), leaf("y", 128, dtype=int64)
    places = b.iota(shape=(128, 100), axis=1, dtype=int64)
    hot = b.cast(b.eq(places, b.reshape(labels, shape=(128, 1))), dtype=float32)
    return Graph((x, labels), ((softmax(x) - hot) * (1.0 / 128),))


def standardised() -> Graph:
    """Rows around their mean, over the root of their variance."""
    x = leaf("x", 60, 70)
    assert STANDARDISE.decompose is not None
    made = STANDARDISE.decompose(b, Application((x,), None, {"axes": (1,), "eps": 1e-5}))
    return Graph((x,), (made,))


def dropout() -> Graph:
    """Elements kept where 24 random bits are below a threshold."""
    x, key = leaf("x", 60, 70), leaf("k", 2, dtype=int64)
    bits = b.random_bits(key, shape=(60, 70), call=0, word=0)
    uniform = b.cast(b.shift_right(bits, 8), dtype=float32) * 2.0**-24
    return Graph((x, key), (b.where(b.lt(uniform, 0.9), x * (1 / 0.9), x * 0.0),))


def bodies() -> dict[str, Graph]:
    x, y, w = leaf("x", 60, 70), leaf("y", 60, 70), leaf("w", 70)
    line, wide = leaf("x", 1 << 18), leaf("x", 5, 6, 70)
    table, at, rows = leaf("t", 50, 70), leaf("i", 60, 1, dtype=int64), leaf("r", 60, 70)
    dz = b.where(b.gt(x, 0.0), y, splat(0.0, y.tensor_type))
    column = b.expand(at, shape=(60, 70))
    return {
        "map": Graph((x, y), (b.tanh(x * y),)),
        "map_broadcast": Graph((x, w), (b.relu(x + w),)),
        "map_transposed": Graph((wide, y), (b.permute(wide, axes=(1, 0, 2)) * 2.0,)),
        "map_padded": Graph((x,), (b.pad(b.abs(x), low=(1, 2), high=(0, 2), value=1.0),)),
        "map_joined": Graph((x, y), (b.concatenate(x, y, axis=1),)),
        "map_random": dropout(),
        "row_softmax": Graph((x,), (softmax(x),)),
        "row_standardise": standardised(),
        "row_layer_norm": Graph((x, w), (layer_norm(x, w, w),)),
        "row_cross_entropy": cross_entropy(),
        "row_cross_entropy_gradient": cross_entropy_gradient(),
        "row_argmax": Graph((x,), (b.argmax(x, axis=1),)),
        "column_bias_gradient": Graph((x, y), (dz, b.reduce_sum(dz, axes=(0,)))),
        "full_mean": Graph((line,), (b.reduce_sum(line, axes=(0,)) * (1.0 / (1 << 18)),)),
        "take": Graph((table, at), (b.take(table, b.reshape(at, shape=(60,)), axis=0),)),
        "scatter_add": Graph((table, at, rows), (b.scatter_add(table, column, rows, axis=0),)),
    }


def kernels(body: Graph) -> list[KernelSource]:
    memory = Memory()
    operands = [memory.new(n.tensor_type)[1] for n in body.inputs]
    results = [memory.new(n.tensor_type)[1] for n in body.outputs]
    return [call.kernel for call in lower_group(body, operands, results, memory)]


BODIES = bodies()


@pytest.mark.parametrize("name", BODIES)
def test_kernels_read_as_before(name: str, golden: Callable[[str, str], None]) -> None:
    text = "\n\n".join(kernel.source for kernel in kernels(BODIES[name]))
    golden(f"{name}.py.txt", text)


def test_an_epilogue_reads_as_before(golden: Callable[[str, str], None]) -> None:
    a, w, bias = leaf("a", 3, 5, 4), leaf("w", 3, 4, 7), leaf("c", 7)
    product = b.matmul(a, w)
    memory = Memory()
    operands = [memory.new(n.tensor_type)[1] for n in (a, w, bias)]
    result = memory.new(product.tensor_type)[1]
    body = Graph((a, w, bias), (b.relu(product + bias),))
    kernel = lower_epilogue(body, product, result, operands, [result], memory).kernel
    golden("epilogue.py.txt", kernel.source)


@pytest.mark.parametrize("name", BODIES)
def test_lowering_is_repeatable(name: str) -> None:
    assert kernels(BODIES[name]) == kernels(bodies()[name])


@pytest.mark.parametrize(
    ("steps", "written"), [(2, "i * 2"), (4, "i * 4"), (5, "i * s"), (-1, "j * -1")]
)
def test_small_strides_of_the_innermost_loop_are_numbers(steps: int, written: str) -> None:
    """A known stride becomes shuffles of whole vectors; an argument would be a gather."""
    x = leaf("x", 6, 40)
    if steps < 0:
        view = b.flip(x, axes=(1,))
    else:
        view = b.slice(x, starts=(0, 0), limits=(6, 40), steps=(1, steps))
    memory = Memory()
    graph = Graph((x,), (b.exp(view),))
    operand, result = (memory.new(n.tensor_type)[1] for n in (x, graph.outputs[0]))
    (call,) = lower_group(graph, [operand], [result], memory)
    assert written in call.kernel.source
