"""One record a primitive: everything the system knows about an operation.

The type rule, the NumPy meaning, the gradient, how fusion may treat it, how
its scalar form is spelled in a kernel, and the facts its tests are made from
stand together in one :class:`OpDef`.  Passes and backends ask the record;
none of them knows an operation by name.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from graphflow.errors import GraphError
from graphflow.ir.affine import Index, Piece
from graphflow.ir.dims import Dim
from graphflow.ir.types import DType, TensorType, Type
from graphflow.records import dataclass, field

Array: TypeAlias = Any  # np.ndarray of any dtype; NumPy's own stubs reject half of what NumPy does


Labels: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

Attrs: TypeAlias = Mapping[str, Any]
Order: TypeAlias = tuple[int, ...]
"""Axes in another order: the axis that each axis was."""
Reordered: TypeAlias = tuple[Attrs, Order]
GATHERED = "@"
"""Variable of an index map: the integer that the index operand holds (see ``OpDef.index``)."""
POSITION = -1
"""``Piece.operand`` of a generator's piece that is an index value, not an element."""


class Kind(enum.Enum):
    """What fusion, scheduling and code generation may assume."""

    LEAF = "leaf"  # input, state, constant: no computation
    ELEMENTWISE = "elementwise"  # out[i] depends on in[i] only; operands broadcast
    GENERATOR = "generator"  # out[i] depends on the index i only (iota, random bits)
    VIEW = "view"  # out[i] is in[f(i)], f affine, or a fill value (reshape, permute, pad, …)
    GATHER = "gather"  # out[i] is in[f(i, index operand)]
    SCATTER = "scatter"  # writes in[f(i, index operand)]
    REDUCTION = "reduction"  # folds the axes in attrs["axes"] (kept out of the result shape)
    LINE = "line"  # whole lines along attrs["axis"] at a time: see ``OpDef.line``
    CONTRACTION = "contraction"  # sum of products over an axis of two operands
    CONTROL = "control"  # cond, while_loop, scan: carries closed graphs
    OPAQUE = "opaque"  # run by its NumPy reference on the host


class Line(enum.Enum):
    """What an operation of kind LINE does to the lines of its operands along one axis."""

    SCAN = "scan"  # folds: element j of the result is ``OpDef.reduction`` of elements up to j
    SORT = "sort"  # positions of the elements in stable order
    SEARCH = "search"  # where elements of operand 1 belong in the lines of operand 0


class Transform(enum.Enum):
    """What a Fourier transform over ``attrs["axes"]`` reads and makes."""

    COMPLEX = "complex"  # complex numbers of complex ones
    REAL = "real"  # of real numbers the first half, along the last of the axes
    HERMITIAN = "hermitian"  # real numbers, ``attrs["extent"]`` of them, of such a half


class Elimination(enum.Enum):
    """What is made of matrices, in the last two axes, by subtracting multiples of rows."""

    LU = "lu"  # both factors in one matrix, the swaps of rows from 1, the order of rows
    CHOLESKY = "cholesky"  # the lower factor; fails unless matrices are positive-definite
    SOLVE = "solve"  # the solutions for operand 1; fails where a matrix has no inverse
    TRIANGULAR = "triangular"  # they for triangular matrices
    DETERMINANT = "determinant"


class Tiles(enum.Enum):
    """What a contraction without labels does to the tiles of images (see ``winograd``)."""

    TAPS = "taps"  # transforms the taps of a convolution
    IMAGE = "image"  # convolves an image with transformed taps
    WHOLE = "whole"  # convolves an image with taps, which it transforms
    GRADIENT = "gradient"  # the gradient of the taps, from the image and the result's

    @property
    def convolves(self) -> bool:
        """Whether the result is an image."""
        return self in (Tiles.IMAGE, Tiles.WHOLE)


class Builder(Protocol):
    """Emits operations on values: graph nodes, or tensors (traced or eager).

    ``b.mul(x, y)`` emits operation ``mul``; attributes are keywords.  Values
    support ``+ - * /``, unary ``-`` and Python scalars on either side.
    """

    def emit(self, op: str, *inputs: Any, **attrs: Any) -> Any:
        """Emit operation ``op`` and return its result."""

    def several(self, op: str, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """Emit operation ``op``, which has several results, and return those."""

    def __getattr__(self, op: str) -> Callable[..., Any]: ...


@dataclass(frozen=True, slots=True)
class Application:
    """An operation applied: what a gradient rule may look at."""

    inputs: tuple[Any, ...]
    out: Any
    attrs: Mapping[str, Any]


OperandRule: TypeAlias = Callable[[Builder, Application, Any], Any]
VariadicRule: TypeAlias = Callable[[Builder, Application, Any, int], Any]
OrderRule: TypeAlias = "Callable[[Sequence[TensorType], Attrs, Sequence[Order]], Reordered | None]"
PartsRule: TypeAlias = "Callable[[Builder, OpDef, Application], Any]"
"""An operation on complex operands in terms of real ones: ``n.inputs`` are pairs (real,
imaginary), or values that are real already; the result is a pair or a real value."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Which operands of an application hold entries of a batch, along a first axis more."""

    size: Dim
    batched: tuple[bool, ...]
    randomness: str = "error"
    """What to do where random numbers are drawn: ``"different"`` ones, the ``"same"``, or raise."""


BatchRule: TypeAlias = "Callable[[Builder, OpDef, Application, Entries], Any]"
"""An operation applied to all entries of a batch (:mod:`graphflow.ir.ops.batches`).  ``n.inputs``
are whole operands, ``n.out`` is the type of an entry's result; the result has the entries along
its first axis (or is the tuple of results that have)."""

RoomOf: TypeAlias = "tuple[TensorType, Attrs, Sequence[TensorType]]"
"""The type of a vector, the attributes of the operation that will have it as its operand, and the
types of what lies there end to end."""


class RoomsWanted:
    """Vectors of a program that are to be made where they are wanted, in order.

    ``plan`` is for who says where: it is asked before every run.
    """

    __slots__ = ("plan", "vectors")

    def __init__(self, vectors: Sequence[RoomOf]) -> None:
        self.vectors = vectors
        self.plan: Any = None


RoomsRule: TypeAlias = "Callable[[RoomsWanted], Sequence[int] | None]"
"""The addresses for them; ``None``: it does not matter.  The :data:`ROOM_HEAD` bytes before each
belong to the operation; they are zeros where it does not matter."""
ROOM_HEAD = 192


@dataclass(frozen=True, slots=True)
class Choice:
    """How a result shows for each of its elements at most one of a box of operand 0, by numbers
    that nothing else of that operand goes into."""

    shown: Callable[[Builder, Application, Any], tuple[Any, Any]]
    """The condition that elements of operand 0 are shown, and a value of the result's shape at
    all places of its box: the cotangent is the second where the first holds."""
    together: Callable[[Builder, Application, Any], Any]
    """What that value adds up to over each box where the condition holds."""


class NonDifferentiable:
    """Marks an operation whose result carries no gradient (comparisons, indices)."""

    def __repr__(self) -> str:
        return "NON_DIFFERENTIABLE"


NON_DIFFERENTIABLE = NonDifferentiable()


@dataclass(frozen=True, slots=True)
class Reduction:
    """How a reduction folds: ``identity(dtype)`` and a scalar ``combine`` template.

    ``reassociate`` says whether partial results may be regrouped (they may for
    sums, within the tolerance, and for max and min exactly).
    ``position`` marks folds that yield the position of an element (argmax): then
    ``combine`` is the condition that element ``{1}`` replaces the best so far, ``{0}``, and
    ``element`` may be the reduction that yields the element itself.
    """

    identity: Callable[[DType], bool | int | float]
    combine: str
    reassociate: bool = True
    position: bool = False
    element: OpDef | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One call for the tests: operand shapes (or arrays) and attributes."""

    inputs: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpTests:
    """The facts tests are generated from.

    ``domain`` is the interval operands are drawn from, per operand or for all;
    ``tolerance`` relative error allowed against float64, per dtype short name;
    ``dtypes`` the element types to try; ``samples`` extra calls beside the
    shapes that the kind implies.
    """

    domain: tuple[float, float] | tuple[tuple[float, float], ...] = (-3.0, 3.0)
    tolerance: Mapping[str, float] = field(default_factory=lambda: {"f32": 1e-6, "f64": 1e-13})
    dtypes: tuple[str, ...] = ("f32", "f64")
    samples: tuple[Sample, ...] = ()
    gradient: bool = True


@dataclass(frozen=True, eq=False)
class OpDef:
    """The record of one primitive.  Register it with :func:`register`."""

    name: str
    kind: Kind
    summary: str
    infer: Callable[[Sequence[TensorType], Mapping[str, Any]], Type]
    """Result type from operand types and attributes; raises Shape/DTypeError."""
    reference: Callable[..., Any]
    """The meaning: ``reference(*arrays, **attrs)`` in NumPy, in the operands' dtype."""
    vjp: tuple[OperandRule | None, ...] | VariadicRule | NonDifferentiable
    """A cotangent rule an operand (``None``: no gradient); a variadic operation has
    one rule that also takes the operand's position.  Rules may return a cotangent of
    the broadcast shape: the driver sums it down."""
    tests: OpTests
    scalar: str | Mapping[str, str] | None = None
    """Kernel expression over ``{0}``, ``{1}`` … and attributes by name, as the CPU writes
    it; a mapping gives one per operand kind (``float``, ``int``, ``uint``, ``bool``).
    Functions come from the kernel prelude: ``vm.tanh({0})``."""
    cuda: str | Mapping[str, str] | None = None
    """The CUDA spelling where it differs from ``scalar``."""
    reduction: Reduction | None = None
    line: Line | None = None
    """Operations of kind LINE: which of the kernels over lines computes it.  A scan takes
    the attribute ``reverse`` (from the end), a sort ``descending``, a search ``right``."""
    transform: Transform | None = None
    """Fourier transforms, which kernels compute where they are quick and else the host: attribute
    ``inverse`` says which way, ``scale`` what results are multiplied by."""
    elimination: Elimination | None = None
    """Operations on the host that kernels compute where matrices are small.  They leave what
    fails to the host."""
    index: Callable[[Sequence[TensorType], Mapping[str, Any], Index], Sequence[Piece]] | None = None
    """Which operand elements result element ``index`` is made of, as pieces.

    Views: the elements shown (the first piece whose conditions hold, else ``fill``).
    Gathers: a piece for the index operand, then one for the data operand in which the
    variable ``GATHERED`` stands for the integer loaded by the first (range-checked).
    Scatters: ``index`` is of an element of the *last* operand; the pieces say where it
    goes: one for the index operand if there is one, then one for operand 0, in which
    ``GATHERED`` stands for the loaded integer.  ``reduction`` says how it is folded
    into what is there (``None``: it replaces it).
    Generators: a piece an argument of the scalar template, in order: an element of an
    operand, or, with ``operand=POSITION``, the integer ``piece.index[0]`` itself (i64)."""
    fills: bool = False
    """Whether ``reference`` also takes ``into``, an array that its result may be written to
    instead of a new one.  Where it is, NumPy's warnings are the reference's business."""
    alone: int = -1
    """Operations on the host with several results: the one that ``reference`` makes by less work
    if it is all that is wanted: then ``alone`` is true, and it is all that is returned."""
    rooms: RoomsRule | None = None
    """Operations on the host whose operands after the first are made end to end: where, for all
    calls of a program in the run that begins.  ``reference`` gets them as one vector, and their
    types as ``parts``."""
    attempt: tuple[str, str] | None = None
    """Operations on the host, if they have no ``rooms`` or their operands lie there: name and text
    of a kernel that does what ``reference`` does, where that can be done at once.  Its arguments
    are a word for whether it did, then the addresses of operands (the room's) and result."""
    fill: Callable[[Mapping[str, Any], DType], bool | int | float] | None = None
    """Views with conditions: the value where no piece applies."""
    view_inverse: Callable[..., Any] | None = None
    """Views: ``view_inverse(emit, parent, new, attrs)``, the parent with the shown part
    replaced by ``new`` (what an in-place write through the view means)."""
    contraction: Callable[[Sequence[TensorType], Mapping[str, Any]], Labels] | None = None
    """Contractions: a label for every axis of the two operands and of the result.  Axes of
    one label run together; those that the result lacks are summed over."""
    tiles: Tiles | None = None
    """Contractions over tiles of images, which have no labels: which of them."""
    choice: Choice | None = None
    """Operations whose result shows elements that were chosen; attribute ``axes`` names those of
    the boxes of operand 0."""
    slides: bool = False
    """Contractions: taps ``w[G, O, C, *K]`` over images ``x[N, G, C, *S]``, with attributes
    ``steps``, ``low``, ``high``, ``spread`` and ``dilations`` an axis (see ``conv``)."""
    decompose: Callable[[Builder, Application], Any] | None = None
    """What the operation is made of, ``lambda b, n: …`` over ``n.inputs`` and ``n.attrs``,
    for operations without a kernel of their own; a tuple where there are several results."""
    blas: bool = False
    """Whether ``reference`` is BLAS for single and double precision: as quick as a kernel."""
    routine: str = ""
    """Operations with a decomposition: of what kind of a library's routines it is, if some are
    known to compute it as a whole.  Where there is one, the operation is not decomposed."""
    unordered: Callable[..., Any] | None = None
    """The meaning once more, for eager gradient rules: NumPy may lay out the result's axes
    in any order.  What a rule wants for a transposed operand it transposes at the end, and
    then the gradient is row-major like the operand."""
    parts: PartsRule | None = None
    """How operands of complex dtypes are computed on their real and imaginary parts;
    without it such an application is a host call."""
    reordered: OrderRule | None = None
    """What the application is on operands whose axes are in the given orders: attributes and
    the order of the result's axes (:mod:`graphflow.ir.ops.orders`).  Operations of kind
    ELEMENTWISE need no rule."""
    batched: BatchRule | None = None
    """The application to all entries of a batch; without a rule it is one for every entry.
    Operations of kind ELEMENTWISE need none."""
    draws: bool = False
    """The result is random numbers, which differ if there are more of them."""
    pure: bool = True
    early: bool = False
    """Sets off something that goes on by itself: the schedule runs it as soon as it can."""
    late: bool = False
    """Waits for something that goes on by itself: the schedule runs all it can before it."""
    commutative: bool = False
    picks: bool = False
    """The result's elements are elements of the operands, the greatest or the least: a rising
    function may be taken of the elements before."""
    chooses: bool = False
    """The second operand where the first holds, else the third: the one that is not chosen need
    not be known."""
    begins: str = ""
    """Views: the attribute that numbers the part of the graph to which what is made of the
    result belongs, by itself or through others (-1: to none).  Parts share no kernel."""
    fallible: bool = False
    """May fail at run time (an index out of range): state is committed after it."""
    cost: float = 1.0
    """Rough scalar instructions an element; fusion recomputes only what is cheap."""

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def scalar_for(self, dtype: DType, target: str = "cpu") -> str:
        """The kernel template for operands of ``dtype``; raises if there is none."""
        template = (self.cuda if target == "cuda" else None) or self.scalar
        if isinstance(template, Mapping):
            template = template.get(dtype.short) or template.get(dtype.kind)
        if template is None:
            raise GraphError(f"operation {self.name} has no {target} template for {dtype.short}")
        return template


_REGISTRY: dict[str, OpDef] = {}
_LATER: list[str] = []


def register_later(modules: Sequence[str]) -> None:
    """Modules with records that few programs use: imported one after the other, in this order,
    when an unknown name is looked up, until one has it."""
    _LATER.extend(modules)


def register(op: OpDef) -> OpDef:
    """Add ``op`` to the registry; a second record of the same name is an error."""
    if op.name in _REGISTRY:
        raise GraphError(f"operation {op.name!r} is already registered")
    _REGISTRY[op.name] = op
    return op


def lookup(name: str) -> OpDef:
    """The record called ``name``; :class:`GraphError` with close names if unknown."""
    op = _REGISTRY.get(name)
    if op is None:
        for module in _LATER:  # where another thread imports one, it is waited for
            import_module(module)
            if name in _REGISTRY:
                return _REGISTRY[name]
        import difflib

        close = difflib.get_close_matches(name, _REGISTRY)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise GraphError(f"unknown operation {name!r}{hint}")
    return op


class ArrayBuilder:
    """The :class:`Builder` over NumPy's arrays: operations by their references."""

    def emit(self, op: str, *inputs: Any, **attrs: Any) -> Any:
        """What the reference of ``op`` makes of arrays (and Python scalars)."""
        return lookup(op).reference(*inputs, **attrs)

    def several(self, op: str, *inputs: Any, **attrs: Any) -> tuple[Any, ...]:
        """The several results of ``op``."""
        return tuple(self.emit(op, *inputs, **attrs))

    def __getattr__(self, op: str) -> Callable[..., Any]:
        return lookup(op).reference


ARRAYS = ArrayBuilder()


def all_ops() -> tuple[OpDef, ...]:
    """Every record, by name."""
    for module in _LATER:
        import_module(module)
    return tuple(_REGISTRY[name] for name in sorted(_REGISTRY))
