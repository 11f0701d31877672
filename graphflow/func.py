"""Transforms of functions: gradients, Jacobians, ``vmap``; modules as functions.

Each takes a function and gives a function (``vjp`` and ``jvp`` give values).  They nest, take
and return nests of tensors, and may stand inside ``gf.compile``.  Results have a history only
where something outside, that wants a gradient, went into them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphflow import pytree
from graphflow.autograd.engine import grad as gradients
from graphflow.autograd.modes import enable_grad, is_grad_enabled, no_grad
from graphflow.dispatch import full
from graphflow.errors import GraphFlowError
from graphflow.functional_modules import (
    functional_call,
    replace_all_batch_norm_modules_,
    stack_module_state,
)
from graphflow.functions.creation import eye
from graphflow.functions.shaping import cat, movedim, reshape
from graphflow.tensor import Tensor
from graphflow.vectorised import of_all, on_entries

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp",
    "linearize", "replace_all_batch_norm_modules_", "stack_module_state", "vjp", "vmap",
]  # fmt: skip

Function = Callable[..., Any]

# ---- one function, recorded ----------------------------------------------------------


class _Recorded:
    """What ``func(*args)`` gives, and how: ``wrt`` are the leaves of the arguments ``chosen``.

    ``keep``: something outside wants a gradient through the results, so they keep their history.
    """

    def __init__(
        self, name: str, func: Function, chosen: Sequence[int], args: tuple[Any, ...],
        kwargs: Mapping[str, Any], has_aux: bool,
    ) -> None:  # fmt: skip
        self.name, self.aux, given = name, None, list(args)
        outside = is_grad_enabled()
        self.wrt: list[Tensor] = []
        self.nests = []
        for i in chosen:
            if not -len(args) <= i < len(args):
                raise IndexError(f"{name}: there is no argument {i}: {len(args)} were given")
            leaves, nest = pytree.flatten(args[i])
            own = [_own(name, leaf) for leaf in leaves]
            given[i] = pytree.unflatten(nest, own)
            self.wrt += own
            self.nests.append(nest)
        with enable_grad():
            returned = func(*given, **kwargs)
        if has_aux:
            if not isinstance(returned, tuple) or len(returned) != 2:
                raise GraphFlowError(f"{name}: with has_aux the function must return (output, aux)")
            returned, self.aux = returned
        self.outs, self.out_nest = pytree.flatten(returned)
        for out in self.outs:
            if not isinstance(out, Tensor):
                raise GraphFlowError(
                    f"{name}: the function must return tensors, not {type(out).__name__}"
                )
        extra = [leaf for leaf in pytree.flatten(self.aux)[0] if isinstance(leaf, Tensor)]
        self.keep = outside and _reach_outside([*self.outs, *extra], self.wrt)

    def slopes(self, outs: Sequence[Tensor], cts: Sequence[Tensor] | None) -> list[Tensor]:
        """Gradients by ``wrt``: zeros where an output does not depend on it."""
        pairs = [(o, None if cts is None else cts[i]) for i, o in enumerate(outs)]
        pairs = [pair for pair in pairs if pair[0].requires_grad]
        if not pairs:
            return [full(tuple(t.shape), 0, t.dtype, t.device) for t in self.wrt]
        found = gradients(
            [o for o, _ in pairs], self.wrt, None if cts is None else [ct for _, ct in pairs],
            retain_graph=True, create_graph=self.keep, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return [self.settled(g) for g in found]

    def settled(self, tree: Any) -> Any:
        """``tree`` with its tensors as they leave the transform."""
        if self.keep:
            return tree
        leaves, nest = pytree.flatten(tree)
        return pytree.unflatten(nest, [t.detach() if isinstance(t, Tensor) else t for t in leaves])

    def value(self) -> Any:
        """What the function returned."""
        return self.settled(pytree.unflatten(self.out_nest, self.outs))

    def by_argument(self, single: bool, found: Sequence[Any]) -> Any:
        """``found``, one a leaf, as nests of the arguments: one, or a tuple."""
        rest = iter(found)
        made = [
            pytree.unflatten(n, [next(rest) for _ in range(pytree.count(n))]) for n in self.nests
        ]
        return made[0] if single else tuple(made)

    def scalar(self) -> Tensor:
        """The only output, of one element."""
        if len(self.outs) != 1 or self.outs[0].ndim:
            shapes = [list(out.shape) for out in self.outs]
            raise GraphFlowError(
                f"{self.name}: the function must return one tensor without dimensions, not {shapes}"
            )
        out: Tensor = self.outs[0]
        return out


def _own(name: str, leaf: Any) -> Tensor:
    """A tensor over the memory of ``leaf`` whose uses are this transform's to see."""
    if not isinstance(leaf, Tensor):
        raise TypeError(f"{name}: arguments to differentiate by must be tensors, not {leaf!r}")
    return leaf.view_as(leaf) if leaf.requires_grad else leaf.detach().requires_grad_()


def _reach_outside(outs: Iterable[Tensor], own: Sequence[Tensor]) -> bool:
    """Whether a gradient of ``outs`` is wanted by anything but the leaves ``own``."""
    known = {id(t) for t in own}
    reached = [out.grad_fn for out in outs if out.grad_fn is not None]
    if any(o.requires_grad and o.grad_fn is None and id(o) not in known for o in outs):
        return True
    seen = set()
    while reached:
        node = reached.pop()
        if node in seen:
            continue
        seen.add(node)
        for edge in node.edges:
            if edge is None:
                continue
            if edge.node is not None:
                reached.append(edge.node)
            elif id(edge.leaf) not in known:
                return True
    return False


def _positions(argnums: int | Sequence[int]) -> tuple[bool, tuple[int, ...]]:
    return isinstance(argnums, int), (argnums,) if isinstance(argnums, int) else tuple(argnums)


# ---- gradients -----------------------------------------------------------------------


def grad(
    func: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of a scalar function by the arguments ``argnums``, which may be nests.

    With ``has_aux`` the function returns ``(output, aux)``, and this ``(gradient, aux)``.
    """

    def function(*args: Any, **kwargs: Any) -> Any:
        found, value = grad_and_value(func, argnums, has_aux)(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return function


def grad_and_value(
    func: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """``(gradient, output)``; with ``has_aux`` ``(gradient, (output, aux))``."""
    single, chosen = _positions(argnums)

    def function(*args: Any, **kwargs: Any) -> Any:
        run = _Recorded("grad", func, chosen, args, kwargs, has_aux)
        found = run.by_argument(single, run.slopes([run.scalar()], None))
        return found, (run.value(), run.settled(run.aux)) if has_aux else run.value()

    return function


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """``(output, pull)``, and aux: ``pull(cotangents)`` is a tuple, one entry a primal."""
    run = _Recorded("vjp", func, range(len(primals)), primals, {}, has_aux)

    def pulled(cotangents: Any) -> Any:
        cts, nest = pytree.flatten(cotangents)
        if nest != run.out_nest:
            raise GraphFlowError("vjp: the cotangents must be a nest like the function's output")
        run.keep = run.keep or (is_grad_enabled() and any(ct.requires_grad for ct in cts))
        return run.by_argument(False, run.slopes(run.outs, cts))

    return (run.value(), pulled, run.settled(run.aux)) if has_aux else (run.value(), pulled)


class _Tangents:
    """Derivatives along directions: those by ``u`` of ``uᵀ J``, which is linear in ``u``."""

    def __init__(self, run: _Recorded) -> None:
        self.run, self.keep = run, run.keep
        run.keep = True
        with enable_grad():
            self.duals = [
                full(tuple(o.shape), 0, o.dtype, o.device).requires_grad_() for o in run.outs
            ]
            self.rows = run.slopes(run.outs, self.duals)
        run.keep = self.keep

    def along(self, directions: Sequence[tuple[int, Tensor]], keep: bool) -> list[Tensor]:
        """The derivative of each output, the arguments' leaves of these numbers moving."""
        pairs = [(self.rows[i], d) for i, d in directions if self.rows[i].requires_grad]
        if not pairs:
            return [full(tuple(o.shape), 0, o.dtype, o.device) for o in self.run.outs]
        found = gradients(
            [r for r, _ in pairs], self.duals, [d for _, d in pairs], retain_graph=True,
            create_graph=keep, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return [x for x in found if x is not None]

    def columns(self, number: int, chunk: int | None) -> list[Tensor]:
        """The derivatives of the outputs by each element of a leaf."""
        leaf, outs = self.run.wrt[number], self.run.outs
        if not leaf.numel():
            return [full((*o.shape, *leaf.shape), 0, o.dtype, o.device) for o in outs]
        with enable_grad() if self.keep else no_grad():
            rows = _along_each(lambda d: self.along([(number, d[0])], self.keep), leaf, chunk)
            made = [reshape(movedim(x, 0, -1), (*x.shape[1:], *leaf.shape)) for x in rows]
        return [self.run.settled(x) for x in made]


def jvp(
    func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> tuple[Any, ...]:
    """``(output, derivative along the tangents)``, and aux."""
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise GraphFlowError("jvp: primals and tangents must be tuples")
    directions, nest = pytree.flatten(tangents)
    if nest != pytree.flatten(primals)[1]:
        raise GraphFlowError("jvp: the tangents must be a nest like the primals")
    run = _Recorded("jvp", func, range(len(primals)), primals, {}, has_aux)
    run.keep = run.keep or (is_grad_enabled() and any(t.requires_grad for t in directions))
    found = _Tangents(run).along(list(enumerate(directions)), run.keep)
    along = run.settled(pytree.unflatten(run.out_nest, found))
    return (run.value(), along, run.settled(run.aux)) if has_aux else (run.value(), along)


def linearize(func: Function, *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """``(output, push)``: ``push(*tangents)`` is the derivative along them.

    The function runs once, here, for any number of directions.
    """
    run = _Recorded("linearize", func, range(len(primals)), primals, {}, False)
    tangents, wanted = _Tangents(run), pytree.flatten(primals)[1]

    def push(*directions: Any) -> Any:
        leaves, nest = pytree.flatten(directions)
        if nest != wanted:
            raise GraphFlowError("linearize: the tangents must be a nest like the primals")
        keep = run.keep or (is_grad_enabled() and any(t.requires_grad for t in leaves))
        found = pytree.unflatten(run.out_nest, tangents.along(list(enumerate(leaves)), keep))
        return found if keep else run.settled(found)

    return run.value(), push


def jacrev(
    func: Function, argnums: int | Sequence[int] = 0, *, has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """The Jacobian by ``argnums``: for each output a nest like the argument's, of matrices.

    A matrix has the output's shape, then the argument's.  The rows are one backward pass for
    all elements of an output at once, or for ``chunk_size`` of them.
    """
    single, chosen = _positions(argnums)

    def function(*args: Any, **kwargs: Any) -> Any:
        run = _Recorded("jacrev", func, chosen, args, kwargs, has_aux)
        rows = [run.by_argument(single, _rows(run, out, chunk_size)) for out in run.outs]
        found = pytree.unflatten(run.out_nest, rows)
        return (found, run.settled(run.aux)) if has_aux else found

    return function


def _rows(run: _Recorded, out: Tensor, chunk: int | None) -> list[Tensor]:
    """The derivatives of every element of ``out``, for each leaf: its shape, then the leaf's."""
    if not out.numel():
        return [full((*out.shape, *t.shape), 0, t.dtype, t.device) for t in run.wrt]
    with enable_grad() if run.keep else no_grad():
        rows = _along_each(lambda cts: run.slopes([out], cts), out, chunk)
        made = [reshape(x, (*out.shape, *x.shape[1:])) for x in rows]
    return [run.settled(x) for x in made]


def _along_each(
    function: Callable[[list[Tensor]], Sequence[Tensor]], like: Tensor, chunk: int | None
) -> list[Tensor]:
    """``function`` of the tensors like ``like`` that are 1 at one element and else 0: its results
    [elements, ...], in the order of the elements."""
    count = like.numel()
    directions = reshape(eye(count, dtype=like.dtype, device=like.device), (count, *like.shape))
    found = _in_chunks(function, [directions], count, "different", chunk)
    return [of_all(x, own, count) for x, own in found]


def jacfwd(
    func: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False, *,
    chunk_size: int | None = None, randomness: str = "error",
) -> Callable[..., Any]:  # fmt: skip
    """:func:`jacrev` column by column: products with all directions of the arguments at once.

    Each is a backward pass through the backward pass, which is what ``jvp`` takes here: for
    functions with fewer inputs than outputs.
    """
    single, chosen = _positions(argnums)

    def function(*args: Any, **kwargs: Any) -> Any:
        run = _Recorded("jacfwd", func, chosen, args, kwargs, has_aux)
        tangents = _Tangents(run)
        columns = [tangents.columns(i, chunk_size) for i in range(len(run.wrt))]
        rows = [run.by_argument(single, [c[k] for c in columns]) for k in range(len(run.outs))]
        found = pytree.unflatten(run.out_nest, rows)
        return (found, run.settled(run.aux)) if has_aux else found

    return function


def hessian(func: Function, argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The second derivatives: the Jacobian of the Jacobian."""
    return jacrev(jacrev(func, argnums), argnums)


# ---- batches -------------------------------------------------------------------------


def vmap(
    func: Function, in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """``func`` on each entry of dimension ``in_dims`` of the arguments, the results stacked.

    ``in_dims`` and ``out_dims`` are numbers, or nests of them like the arguments and results;
    None passes an argument whole, and keyword arguments always are.  The function runs once,
    traced on one entry, and its operations are applied to all entries at once, or to
    ``chunk_size`` of them.  It may not look at values; ``randomness`` is ``"different"`` or
    ``"same"`` where it draws random numbers.
    """
    if randomness not in ("error", "different", "same"):
        raise ValueError(f"vmap: randomness is 'error', 'different' or 'same', not {randomness!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"vmap: chunk_size must be at least 1, not {chunk_size}")

    def function(*args: Any, **kwargs: Any) -> Any:
        leaves, nest = pytree.flatten(args)
        axes = _spread("in_dims", in_dims, args)
        size = _entries(leaves, axes)
        mapped = [i for i, axis in enumerate(axes) if axis is not None]
        operands = [_first(leaves[i], axes[i]) for i in mapped]
        nests = []

        def of_entry(tensors: list[Tensor]) -> list[Tensor]:
            own = list(leaves)
            for i, tensor in zip(mapped, tensors, strict=True):
                own[i] = tensor
            returned = func(*pytree.unflatten(nest, own), **kwargs)
            found, structure = pytree.flatten(returned)
            for leaf in found:
                if not isinstance(leaf, Tensor):
                    raise GraphFlowError(
                        f"vmap: the function must return tensors, not {type(leaf).__name__}"
                    )
            nests.append((structure, _spread("out_dims", out_dims, returned)))
            return found

        found = _in_chunks(of_entry, operands, size, randomness, chunk_size)
        structure, places = nests[0]
        made = [_placed(x, own, at, size) for (x, own), at in zip(found, places, strict=True)]
        return pytree.unflatten(structure, made)

    return function


def _first(x: Tensor, axis: int) -> Tensor:
    return movedim(x, axis, 0) if axis else x


def _placed(x: Tensor, own: bool, place: int | None, size: int) -> Tensor:
    """A result with its entries along axis ``place``."""
    if place is None:
        if own:
            raise ValueError("vmap: out_dims is None for a result that differs between entries")
        return x
    return movedim(x if own else of_all(x, own, size).clone(), 0, place)


def _in_chunks(
    function: Callable[[list[Tensor]], Sequence[Tensor]], operands: Sequence[Tensor], size: int,
    randomness: str, chunk: int | None,
) -> list[tuple[Tensor, bool]]:  # fmt: skip
    """What :func:`on_entries` gives, by ``chunk`` entries at a time."""
    if chunk is None or chunk >= size:
        return on_entries(function, operands, size, randomness)
    parts = [
        on_entries(function, [x[i : i + chunk] for x in operands], min(chunk, size - i), randomness)
        for i in range(0, size, chunk)
    ]
    return [
        (cat([x for x, _ in column]), True) if column[0][1] else column[0]
        for column in zip(*parts, strict=True)
    ]


def _spread(what: str, dims: Any, tree: Any) -> list[Any]:
    """The dimension for each leaf of ``tree``; one number counts for all that is below."""
    if dims is None or isinstance(dims, int):
        return [dims] * len(pytree.flatten(tree)[0])
    if isinstance(dims, (tuple, list)) and isinstance(tree, (tuple, list)):
        pairs = list(zip(dims, tree, strict=False))
        fits = len(dims) == len(tree)
    else:
        fits = isinstance(dims, dict) and isinstance(tree, dict) and dims.keys() == tree.keys()
        pairs = [(dims[key], tree[key]) for key in tree] if fits else []
    if not fits:
        raise ValueError(f"vmap: {what} {dims!r} is no nest like what it is for")
    return [axis for part, below in pairs for axis in _spread(what, part, below)]


def _entries(leaves: Sequence[Any], axes: Sequence[int | None]) -> int:
    """How many entries the mapped dimensions have, all of them alike."""
    sizes = []
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is not None:
            if not isinstance(leaf, Tensor):
                raise ValueError(f"vmap: in_dims must be None for {leaf!r}, which is no tensor")
            sizes.append(leaf.size(axis))
    if len(set(sizes)) != 1 or not sizes[0]:
        raise ValueError(
            f"vmap: the mapped dimensions must have one size, not 0; here they have {sizes}"
        )
    return int(sizes[0])
