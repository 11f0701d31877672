"""Products: tiles in shared memory, results in registers, what follows as an epilogue.

Every product is seen as one of matrices: axes of the first operand and the result are its
*rows*, of the second and the result its *columns*, of all three its *batch*, of the operands
alone its *depth*.  Each may be several axes with strides of their own, so a convolution's
windows and an ``einsum`` need no copies.  What fusion put behind the product runs on each
result while it is in a register: the product itself is stored only if something wants it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.codegen.contraction.kernels import accumulator
from graphflow.codegen.cuda.convolution import Convolution, as_convolution
from graphflow.codegen.cuda.epilogue import epilogue_of
from graphflow.codegen.cuda.matmul import Matmul, as_matmul
from graphflow.codegen.cuda.tiles import Tile, tile_for_device
from graphflow.codegen.cuda.writer import CudaWriter, finished, numpy_name
from graphflow.codegen.emit import Emitter
from graphflow.codegen.evaluate import Evaluator, Memory
from graphflow.codegen.kernel_writer import held_as, literal
from graphflow.codegen.layout import Layout, contiguous
from graphflow.codegen.library import Numerics, Operand, Padded, Plan, Seen, Term
from graphflow.codegen.loops import Kernel, Load, Slot
from graphflow.codegen.names import PLACEHOLDER
from graphflow.codegen.schedule import Address, Argument, Call
from graphflow.codegen.sizes import whole
from graphflow.codegen.spaces import Axis, Space, Survey, Target, survey
from graphflow.codegen.task import LowerContext, Task
from graphflow.codegen.writer import Writer
from graphflow.errors import CompileError
from graphflow.ir.affine import Affine
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.products import labels_of
from graphflow.ir.types import DType, dtype_named
from graphflow.records import dataclass

PRODUCT = -1
"""The buffer of a product that is in registers only."""
KINDS = {"batch": (1, 1, 1), "rows": (1, 0, 1), "columns": (0, 1, 1), "depth": (1, 1, 0)}

_RESIDENT = 2
"""Blocks of a product that a multiprocessor holds, so that one computes while another loads."""
_NARROW = ("f32", "i32", "u32")
"""Types of sums of which a tile fits in half the registers."""
_CALLED = {"batch": "batch", "rows": "row", "columns": "column", "depth": "step"}


@dataclass(slots=True)
class Product:
    """A product being lowered: its axes by kind, and where its operands lie.

    ``steps`` are the strides of every axis in the two operands.
    """

    axes: Mapping[str, list[Axis]]
    steps: Mapping[Axis, tuple[int, int]]
    slots: tuple[Slot, Slot]
    starts: tuple[int, int]
    tile: Tile
    dtype: DType
    total: str

    def extent(self, kind: str) -> int:
        """How many elements the axes of one kind run over."""
        count = 1
        for axis in self.axes[kind]:
            count *= axis.extent
        return count


def plan_of(call: Call, copied: bool = False) -> Plan[Matmul] | Plan[Convolution] | str:
    """What a library would be asked for instead of ``call``, or why none can be.

    What is a product of matrices is asked for as that.  With ``copied``, filters will be.
    """
    seen = call.library
    assert not isinstance(seen, Padded)
    if isinstance(seen, str):
        return seen
    matmul = as_matmul(seen)
    if not isinstance(matmul, str):
        return matmul
    convolution = as_convolution(seen, copied)
    if not isinstance(convolution, str):
        return convolution
    return matmul if convolution == matmul else f"{matmul}, and {convolution}"


def product_call(
    body: Graph,
    product: Node,
    operands: Sequence[Layout],
    results: Sequence[Layout],
    context: LowerContext,
) -> Call:
    """The one kernel of a product and what follows it."""
    position = {node: index for index, node in enumerate(body.inputs)}
    places = [operands[position[n]] for n in product.inputs]
    names, extents = axes_of(product)
    kept = tuple(n for n in names if n.startswith("k"))
    layouts = {**dict(zip(body.inputs, operands)), product: _in_registers(product)}
    memory = Memory([*operands, layouts[product]], results, whole=True)
    evaluator = Evaluator(layouts, memory, extents, (), context.failure)
    index = evaluator.variables(kept)
    targets = []
    for node, layout in zip(body.outputs, results):
        slot, flat = memory.element(layout, index)
        targets.append(Target(slot, flat, evaluator.value(node, index)))
    found = survey(targets)
    task = Task(Space(kept, (), extents, evaluator.bits), context)
    task.prepare(found)
    described = _described(product, places, names, extents, evaluator, found, memory)
    return _call(task, described, targets, found)


def _in_registers(product: Node) -> Layout:
    return contiguous(PRODUCT, product.tensor_type)


def axes_of(product: Node) -> tuple[list[str], dict[str, int]]:
    """Names of the axes, ``k0 …`` along the result and ``r0 …`` along the depth, and extents."""
    labels = labels_of(product)
    sizes: dict[int, int] = {}
    for own, node in zip(labels, product.inputs):
        for label, extent in zip(own, node.tensor_type.static_shape, strict=True):
            sizes[label] = extent if sizes.get(label, 1) == 1 else sizes[label]
    inner = [label for label in dict.fromkeys((*labels[0], *labels[1])) if label not in labels[2]]
    order = [*labels[2], *inner]
    names = [f"k{n}" for n in range(len(labels[2]))] + [f"r{n}" for n in range(len(inner))]
    return names, {name: sizes[label] for name, label in zip(names, order)}


def _described(
    product: Node,
    places: Sequence[Layout],
    names: Sequence[str],
    extents: Mapping[str, int],
    evaluator: Evaluator,
    found: Survey,
    memory: Memory,
) -> Product:
    labels = labels_of(product)
    inner = [label for label in dict.fromkeys((*labels[0], *labels[1])) if label not in labels[2]]
    name_of = dict(zip([*labels[2], *inner], names))
    steps: dict[str, tuple[int, int]] = {}
    has: dict[str, tuple[int, int, int]] = {}
    for label, name in name_of.items():
        both = []
        for own, place in zip(labels, places):
            at = own.index(label) if label in own else -1
            both.append(place.strides[at] if at >= 0 and place.shape[at] != 1 else 0)
        steps[name] = (both[0], both[1])
        has[name] = tuple(int(label in own) for own in labels)  # type: ignore[assignment]
    accesses = [dict(a.terms) for a in found.accesses]
    axes: dict[str, list[Axis]] = {}
    strides: dict[Axis, tuple[int, int]] = {}
    for kind, wanted in KINDS.items():
        own_names = [n for n in names if has[n] == wanted and extents[n] != 1]
        axes[kind] = []
        for run in _runs(own_names, steps, accesses, extents):
            mask = sum(evaluator.bits.get(n, 0) for n in run)
            axis = Axis(
                f"{_CALLED[kind]}{len(axes[kind])}", run, tuple(extents[n] for n in run), mask
            )
            axes[kind].append(axis)
            strides[axis] = steps[run[-1]]
    if any(has[n] not in KINDS.values() for n in names if extents[n] != 1):
        raise CompileError(f"{product.op.name} sums an axis that one operand alone has")
    (a, at_a), (b, at_b) = (memory.element(p, (Affine(),) * len(p.shape)) for p in places)
    starts = whole(at_a.offset), whole(at_b.offset)
    total = accumulator(product.dtype.short)
    return Product(axes, strides, (a, b), starts, tile_for_device(), product.dtype, total)


def _runs(
    names: Sequence[str],
    steps: Mapping[str, tuple[int, int]],
    accesses: Sequence[Mapping[str, object]],
    extents: Mapping[str, int],
) -> list[tuple[str, ...]]:
    """Neighbours joined where operands and everything the epilogue reads step evenly."""
    runs: list[tuple[str, ...]] = []
    for name in names:
        if runs:
            last, extent = runs[-1][-1], extents[name]
            even = all(a == b * extent for a, b in zip(steps[last], steps[name]))
            if even and all(
                x.get(last, 0) == x.get(name, 0) * extent  # type: ignore[operator]
                for x in accesses
            ):
                runs[-1] = (*runs[-1], name)
                continue
        runs.append((name,))
    return runs


def _call(task: Task, product: Product, targets: Sequence[Target], found: Survey) -> Call:
    axes = (*product.axes["batch"], *product.axes["rows"], *product.axes["columns"])
    emitter = Emitter("mm", targets, found.uses, task.error, outside=axes)
    pointers = []
    for slot in product.slots:
        pointers.append(emitter.pointer(slot))
        emitter.read.add(slot)
    for value in found.values:
        if isinstance(value, Load) and value.slot.buffer == PRODUCT:
            emitter.bind(value, "total")
    for kind, variable in (("batch", "batch"), ("rows", "row"), ("columns", "column")):
        emitter.split(variable, product.axes[kind])
    emitter.store(targets)
    texts = {
        (kind, which): _offset(emitter, product, kind, which) for kind in KINDS for which in (0, 1)
    }
    counts = {kind: emitter.count(product.axes[kind]) for kind in KINDS}
    kernel = emitter.finish()
    out = Writer()
    _ProductWriter(kernel, out, product, pointers, texts, counts).function()
    tile = product.tile
    rows, columns = (-(-product.extent(k) // n) for k, n in
                     (("rows", tile.rows), ("columns", tile.columns)))  # fmt: skip
    reads = frozenset(slot.buffer for slot in emitter.read if slot.buffer != PRODUCT)
    seen = _seen(product, targets, found, kernel.arguments, task.context.backend.numerics)
    resident = _RESIDENT if product.total in _NARROW else 1
    return Call(
        kernel=finished(kernel, out.text(), True, tile.threads, resident),
        arguments=kernel.arguments,
        reads=reads,
        writes=frozenset(slot.buffer for slot in emitter.written),
        parallel=True,
        fallible=emitter.fallible,
        flops=0,
        items=product.extent("batch") * rows * columns,
        library=seen,
    )


def _seen(
    product: Product,
    targets: Sequence[Target],
    found: Survey,
    arguments: Sequence[Argument],
    numerics: Numerics,
) -> Seen | str:
    """The product and what follows it as a library could be asked for them."""
    if len(targets) != 1:
        return "it has several results"
    loads = [v for v in found.loads if v.slot.buffer == PRODUCT]
    if len(loads) != 1:
        return "what follows it reads it at several places"
    epilogue = epilogue_of(targets[0].value, found.values, loads[0])
    if isinstance(epilogue, str):
        return epilogue
    axes = [(kind, axis) for kind in KINDS for axis in product.axes[kind]]

    def operand(slot: Slot, offset: int, strides: Sequence[int]) -> Operand:
        where = Address(slot.buffer, slot.offset * slot.dtype.itemsize)
        return Operand(arguments.index(where), offset, slot.dtype.short, tuple(strides))

    def stepping(slot: Slot, index: Affine) -> Operand:
        strides = [0 if kind == "depth" else axis.coefficient(index) for kind, axis in axes]
        return operand(slot, whole(index.offset), strides)

    a, b = (
        operand(product.slots[n], product.starts[n], [product.steps[axis][n] for _, axis in axes])
        for n in (0, 1)
    )
    return Seen(
        kinds=tuple(kind for kind, _ in axes), extents=tuple(axis.extent for _, axis in axes),
        a=a, b=b, result=stepping(targets[0].slot, targets[0].index), alpha=epilogue.alpha,
        terms=tuple(Term(stepping(x.slot, x.index), factor) for x, factor in epilogue.terms),
        activation=epilogue.activation, numerics=numerics,
    )  # fmt: skip


def _offset(emitter: Emitter, product: Product, kind: str, which: int) -> str:
    """Where an operand is at position ``batch``, ``row``, ``column`` or ``step``."""
    variable, axes = _CALLED[kind], product.axes[kind]
    terms = []
    if kind == "batch" and product.starts[which]:
        terms.append(emitter.integer("o", which, product.starts[which]))
    for position, axis in enumerate(axes):
        stride = product.steps[axis][which]
        if stride == 0:
            continue
        inner = emitter.count(axes[position + 1 :])
        digit = variable if inner == "1" else f"{variable} // ({inner})"
        if position:
            digit = f"{digit} % {emitter.extent(axis)}"
        if digit != variable:
            digit = f"({digit})"
        if stride != 1:
            digit += f" * {emitter.integer('s', (kind, axis, which), stride)}"
        terms.append(digit)
    return " + ".join(terms) or "0"


class _ProductWriter(CudaWriter):
    """The function of a product; the kernel's own statements are its epilogue."""

    def __init__(
        self,
        kernel: Kernel,
        out: Writer,
        product: Product,
        pointers: Sequence[str],
        texts: Mapping[tuple[str, int], str],
        counts: Mapping[str, str],
    ) -> None:
        super().__init__(kernel, out)
        self.product, self.pointers = product, pointers
        self.texts, self.counts = texts, counts
        self.named.update(v for v, name in kernel.names.items() if name == "total")

    def function(self) -> None:
        """The whole function: tiles of the result, one after the other."""
        out, tile, p = self.out, self.product.tile, self.product
        held = numpy_name(p.total)
        with out.block(f"def {PLACEHOLDER}({self.parameters()}):"):
            self.begin()
            out.line(f"tile_a = cuda.shared.array(({tile.depth}, {tile.rows}), {held})")
            out.line(f"tile_b = cuda.shared.array(({tile.depth}, {tile.columns}), {held})")
            out.line(f"sums = cuda.local.array({tile.height * tile.width}, {held})")
            across = tile.columns // tile.width
            out.line("thread = cuda.threadIdx.x")
            out.line(f"top = thread // {across} * {tile.height}")
            out.line(f"left = thread % {across} * {tile.width}")
            for name, kind in (("m", "rows"), ("n", "columns"), ("k", "depth")):
                out.line(f"{name} = {self.counts[kind]}")
            out.line(f"down = (m + {tile.rows - 1}) // {tile.rows}")
            out.line(f"along = (n + {tile.columns - 1}) // {tile.columns}")
            out.line(f"tiles = {self.counts['batch']} * down * along")
            with out.block("for number in range(cuda.blockIdx.x, tiles, cuda.gridDim.x):"):
                out.line("batch = number // (down * along)")
                out.line(f"i0 = number // along % down * {tile.rows}")
                out.line(f"j0 = number % along * {tile.columns}")
                out.line(f"pa = {self.texts['batch', 0]}")
                out.line(f"pb = {self.texts['batch', 1]}")
                self._sums()
                self._results()

    def _sums(self) -> None:
        """Add up products, one slice of the depth after the other."""
        out, tile = self.out, self.product.tile
        zero = literal(0, dtype_named(self.product.total))
        with out.block(f"for q in range({tile.height * tile.width}):"):
            out.line(f"sums[q] = {zero}")
        with out.block(f"for k0 in range(0, k, {tile.depth}):"):
            self._fill(0, "tile_a", "row", "rows", "i0", tile.rows, zero)
            self._fill(1, "tile_b", "column", "columns", "j0", tile.columns, zero)
            out.line("cuda.syncthreads()")
            with out.block(f"for deep in range({tile.depth}):"):
                with out.block(f"for u in range({tile.height}):"):
                    out.line("x = tile_a[deep, top + u]")
                    with out.block(f"for v in range({tile.width}):"):
                        place = f"sums[u * {tile.width} + v]"
                        out.line(f"{place} = {place} + x * tile_b[deep, left + v]")
            out.line("cuda.syncthreads()")

    def _fill(
        self, which: int, tile: str, variable: str, kind: str, start: str, size: int, zero: str
    ) -> None:
        """Load a slice of an operand, neighbouring threads along its contiguous axis."""
        out, product = self.out, self.product
        depth = product.tile.depth
        last = product.axes["depth"][-1:]
        along = bool(last) and product.steps[last[0]][which] == 1
        with out.block(f"for q in range(thread, {size * depth}, {product.tile.threads}):"):
            first, second = f"q // {depth}", f"q % {depth}"
            if not along:
                first, second = f"q % {size}", f"q // {size}"
            out.line(f"at, deep = {first}, {second}")
            out.line(f"{variable} = {start} + at")
            out.line("step = k0 + deep")
            out.line(f"x = {zero}")
            with out.block(f"if {variable} < {'nm'[which == 0]} and step < k:"):
                base = ("pa", "pb")[which]
                terms = [base, self.texts[kind, which], self.texts["depth", which]]
                index = " + ".join(t for t in terms if t != "0")
                element = self.element(product.slots[which], index)
                held = product.total
                stored = product.slots[which].dtype.short
                same = stored == held or (stored in ("f16", "bf16") and held == "f32")
                out.line(f"x = {element if same else f'{held}({element})'}")
            out.line(f"{tile}[deep, at] = x")

    def _results(self) -> None:
        """Run the epilogue on every result of this thread."""
        out, tile = self.out, self.product.tile
        with out.block(f"for u in range({tile.height}):"):
            out.line("row = i0 + top + u")
            with out.block(f"for v in range({tile.width}):"):
                out.line("column = j0 + left + v")
                held = held_as(self.product.dtype)
                same = held == self.product.total
                out.line(f"total = {'sums[0]' if same else f'{held}(sums[0])'}")
                with out.block(f"for q in range({tile.height * tile.width - 1}):"):
                    out.line("sums[q] = sums[q + 1]")
                with out.block("if row < m and column < n:"):
                    self.statements(self.kernel.body)

    def store(self, statement: object) -> None:
        """Every thread stores its own results."""
        self.by_block = False
        super().store(statement)  # type: ignore[arg-type]
