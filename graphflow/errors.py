"""The errors a user can meet.  Each says what went wrong, where, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphflow.ir.graph import Location


class GraphFlowError(RuntimeError):
    """Base of every error GraphFlow raises on purpose."""

    module: str = ""
    """Path of the module at work when it arose in a trace, such as ``model.fc1``."""


class ShapeError(GraphFlowError):
    """Operand shapes do not fit together (PyTorch raises ``RuntimeError`` here too)."""


class DTypeError(GraphFlowError, TypeError):
    """Operand dtypes do not fit the operation."""


class IndexRangeError(GraphFlowError, IndexError):
    """A position in data (an index, a class label) is outside the axis it points into."""


class LinAlgError(GraphFlowError):
    """A matrix that an operation of linear algebra cannot work on: singular, not definite."""


class NonFiniteError(GraphFlowError, ArithmeticError):
    """A NaN or an infinity arose while ``gf.nan_guard()`` was looking."""

    location: Location | None = None
    """The user's line, if known."""


class OutOfMemoryError(GraphFlowError, MemoryError):
    """More memory is needed than there is, or than a program was given."""


class ChangedInPlaceError(GraphFlowError):
    """A value that a gradient is made of has been changed in place since it was used."""


class DeviceLostError(GraphFlowError):
    """A kernel has faulted: its device cannot be used by this process any more."""


class TraceError(GraphFlowError):
    """The program did something a static graph cannot hold, such as ``if tensor:``."""


class CannotPostpone(TraceError):
    """A gradient that a trace left open is not what was taken for it (never seen by users)."""


class GraphError(GraphFlowError):
    """A graph, its text or its data form is malformed."""


class CompileError(GraphFlowError):
    """A kernel could not be generated, compiled or linked."""


class CacheWarning(UserWarning):
    """The kernel cache could not be used; the program runs on without it."""
