"""Einstein summation: diagonals and sums first, then pairwise matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphflow.autocasting import in_lower_precision
from graphflow.checks import need_tensor
from graphflow.dispatch import apply
from graphflow.errors import ShapeError
from graphflow.functions.diagonals import diagonal
from graphflow.functions.products import _count, _same_dtype
from graphflow.functions.reductions import sum as total
from graphflow.functions.shaping import expand, permute, reshape, unsqueeze

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = ["einsum"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class _Term:
    """A tensor with one label a dimension, no label twice."""

    def __init__(self, value: Tensor, labels: Sequence[Any]) -> None:
        self.value, self.labels = value, list(labels)


@in_lower_precision
def einsum(*args: Any) -> Tensor:
    """``einsum("ij,jk->ik", a, b)``: sums over products of elements, by labelled dimensions.

    Labels may repeat in an operand (its diagonal), ``...`` stands for dimensions that
    broadcast, and without ``->`` the labels that occur once are the result's, in order.
    The other form, ``einsum(a, [0, 1], b, [1, 2], [0, 2])``, has lists of numbers.
    """
    inputs, output, operands = _parsed(args)
    for operand in operands:
        need_tensor("einsum", operand, "an operand")
    _same_dtype("einsum", *operands)
    if len(inputs) != len(operands):
        raise ShapeError(
            f"einsum: the equation has {len(inputs)} terms for {len(operands)} operands"
        )
    rank = max(
        (t.ndim - len(labels) + 1 for labels, t in zip(inputs, operands) if ... in labels),
        default=0,
    )
    terms = [_labelled(labels, t, rank) for labels, t in zip(inputs, operands)]
    result = _result_labels(inputs, output, rank)
    sizes = _sizes(terms)
    missing = [label for label in result if label not in sizes]
    if missing:
        raise ShapeError(f"einsum: label {missing[0]!r} of the result is in no operand")
    terms = [_diagonals(term) for term in terms]
    return _reduced(terms, result, sizes)


def _parsed(args: tuple[Any, ...]) -> tuple[list[list[Any]], list[Any] | None, list[Tensor]]:
    if not args:
        raise ShapeError("einsum: takes an equation and operands")
    if isinstance(args[0], str):
        given = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        text = args[0].replace(" ", "")
        left, arrow, right = text.partition("->")
        return (
            [_letters(part, text) for part in left.split(",")],
            _letters(right, text) if arrow else None,
            list(given),
        )
    operands = list(args[0::2])
    labels = [list(part) for part in args[1::2]]
    output = list(operands.pop()) if len(args) % 2 else None
    for label in (x for part in (*labels, output or ()) for x in part):
        if label is not ... and not (isinstance(label, int) and 0 <= label < 52):
            raise ShapeError(f"einsum: a number in a list must be in 0 … 51, not {label!r}")
    return labels, output, operands


def _letters(part: str, text: str) -> list[Any]:
    found: list[Any] = []
    for i, piece in enumerate(part.split("...")):
        if i == 2:
            raise ShapeError(f"einsum: '...' appears twice in a term of {text!r}")
        found += [...] * (i == 1)
        for letter in piece:
            if letter not in _LETTERS:
                raise ShapeError(f"einsum: {letter!r} in {text!r} is no letter")
            found.append(letter)
    return found


def _labelled(labels: list[Any], value: Tensor, rank: int) -> _Term:
    """Ellipses become labels ``("...", k)``, counted from the last."""
    if ... in labels:
        place = labels.index(...)
        count = value.ndim - len(labels) + 1
        hidden = [("...", rank - count + k) for k in range(count)]
        labels = [*labels[:place], *hidden, *labels[place + 1 :]]
    if len(labels) != value.ndim:
        raise ShapeError(
            f"einsum: a term of {len(labels)} labels does not fit an operand of shape "
            f"{list(value.shape)}"
        )
    return _Term(value, labels)


def _result_labels(inputs: list[list[Any]], output: list[Any] | None, rank: int) -> list[Any]:
    hidden = [("...", k) for k in range(rank)]
    if output is None:
        every = [label for labels in inputs for label in labels if label is not ...]
        return hidden + sorted(label for label in set(every) if every.count(label) == 1)
    found: list[Any] = []
    for label in output:
        found += hidden if label is ... else [label]
    if len(set(found)) != len(found):
        raise ShapeError("einsum: a label appears twice in the result")
    return found


def _sizes(terms: list[_Term]) -> dict[Any, int]:
    """The extent of every label; extents of 1 broadcast."""
    sizes: dict[Any, int] = {}
    for term in terms:
        for label, extent in zip(term.labels, term.value.shape):
            known = sizes.get(label, 1)
            if known != 1 and extent not in (1, known):
                raise ShapeError(f"einsum: label {label!r} has extents {known} and {extent}")
            sizes[label] = known if extent == 1 else extent
    return sizes


def _diagonals(term: _Term) -> _Term:
    """Labels that repeat within an operand: its diagonal."""
    value, labels = term.value, term.labels
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            if value.shape[first] != value.shape[second]:
                raise ShapeError(
                    f"einsum: label {label!r} repeats over extents {value.shape[first]} and "
                    f"{value.shape[second]}"
                )
            value = diagonal(value, 0, first, second)
            labels = [x for i, x in enumerate(labels) if i not in (first, second)] + [label]
    return _Term(value, labels)


def _reduced(terms: list[_Term], result: list[Any], sizes: dict[Any, int]) -> Tensor:
    """From left to right: sum what nobody else needs, then multiply the next in."""
    held = terms[0]
    for i, term in enumerate(terms[1:], 1):
        wanted = {*result, *(label for t in terms[i + 1 :] for label in t.labels)}
        held = _summed(held, wanted | set(term.labels))
        term = _summed(term, wanted | set(held.labels))
        held = _multiplied(held, term, wanted)
    held = _summed(held, set(result))
    value = permute(held.value, *(held.labels.index(x) for x in result if x in held.labels))
    for place, label in enumerate(result):
        if label not in held.labels:
            value = unsqueeze(value, place)
    return expand(value, tuple(sizes[label] for label in result)) if result else value


def _summed(term: _Term, wanted: set[Any]) -> _Term:
    gone = [i for i, label in enumerate(term.labels) if label not in wanted]
    if not gone:
        return term
    value = total(term.value, tuple(gone), dtype=term.value.dtype)
    return _Term(value, [x for x in term.labels if x in wanted])


def _multiplied(a: _Term, b: _Term, wanted: set[Any]) -> _Term:
    """One matrix product: shared labels that stay are its batch, others its depth."""
    extent = [dict(zip(t.labels, t.value.shape)) for t in (a, b)]
    shared = [x for x in a.labels if x in extent[1]]
    folded = [x for x in shared if x not in wanted and extent[0][x] == extent[1][x]]
    a, b = (_widened(t, [x for x in shared if x not in wanted and x not in folded], extent)
            for t in (a, b))  # fmt: skip
    folded = [x for x in shared if x not in wanted]
    batch = [x for x in shared if x in wanted]
    rows = [x for x in a.labels if x not in shared]
    columns = [x for x in b.labels if x not in shared]
    first = permute(a.value, *map(a.labels.index, (*batch, *rows, *folded)))
    second = permute(b.value, *map(b.labels.index, (*batch, *folded, *columns)))
    size = [dict(zip(t.labels, t.value.shape)) for t in (a, b)]
    depth = _count([size[0][x] for x in folded])
    heads = [[s[x] for x in batch] for s in size]
    height, width = [size[0][x] for x in rows], [size[1][x] for x in columns]
    product = apply(
        "matmul",
        reshape(first, (*heads[0], _count(height), depth)),
        reshape(second, (*heads[1], depth, _count(width))),
    )
    outer = [max(p, q) if p and q else 0 for p, q in zip(*heads)]
    return _Term(reshape(product, (*outer, *height, *width)), [*batch, *rows, *columns])


def _widened(term: _Term, labels: list[Any], extent: list[dict[Any, int]]) -> _Term:
    """An extent of 1 that meets a longer one in a sum is repeated."""
    sizes = [
        max(extent[0][x], extent[1][x]) if x in labels else d
        for x, d in zip(term.labels, term.value.shape)
    ]
    return _Term(expand(term.value, tuple(sizes)) if labels else term.value, term.labels)
