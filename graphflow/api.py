"""The verbs of the compiler: ``compile``, ``trace``, ``grad``, ``value_and_grad``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from graphflow.autograd.engine import grad as _tape_grad
from graphflow.capture import capture, inherit, remember
from graphflow.compiled import Compiled, CompiledModule
from graphflow.device import available as as_device
from graphflow.dynamic import check_asked
from graphflow.functions.reductions import trace as matrix_trace
from graphflow.ir.graph import Graph
from graphflow.program import Program
from graphflow.tensor import Tensor


def compile(
    target: Any = None,
    *,
    device: str | None = None,
    dynamic: Any = None,
    passes: Any = None,
    tune: float | str | None = None,
    keep_grads: bool = False,
    name: str | None = None,
    memory_limit: int | str | None = None,
) -> Any:
    """Compile a callable, a module or a graph; without a target, a decorator.

    A callable gives a :class:`Compiled` that traces at its first call and then
    plays the program; a module the same with its attributes; a :class:`Graph`
    a :class:`Program`.  ``dynamic`` says which dimensions of arguments are symbolic
    (``{"images": {0: "batch"}}``; True: all leading ones; None: those whose sizes turn out to
    change, False: none); one program serves all their sizes.  ``keep_grads`` keeps
    ``.grad`` of parameters readable after steps that update them.

    ``memory_limit`` (bytes, or ``"512MB"``) bounds what the program needs in all: arguments,
    state, results, constants and temporaries.  What would not fit is computed again in the
    backward pass instead of being kept; :class:`OutOfMemoryError` says how much is needed at least.

    ``tune`` (``"10s"``, or seconds) is time in which a new program may try out how its matrix
    products and convolutions are cut into blocks; what is fastest here is kept, also for the next
    process, and ``explain()`` shows it.  Results have the same bits with any.
    """
    options: dict[str, Any] = {"device": device, "passes": passes}
    if memory_limit is not None:
        from graphflow.scheduling import limit_in_bytes

        options["memory_limit"] = limit_in_bytes(memory_limit)
    if tune is not None:
        from graphflow.tuning import budget_in_seconds

        options["tune"] = budget_in_seconds(tune)
    check_asked(dynamic)
    if target is None:
        return lambda function: compile(
            function, dynamic=dynamic, keep_grads=keep_grads, name=name, **options
        )
    as_device(device or "cpu")
    for entry in passes or ():
        if not hasattr(entry, "run"):
            raise TypeError(
                f"gf.compile(passes=...) takes passes (objects with a name and run(graph)), "
                f"not {type(entry).__name__}"
            )
    if isinstance(target, Graph):
        return Program.from_graph(target, **options)
    if not callable(target):
        raise TypeError(
            f"gf.compile takes a callable, an nn.Module or a Graph, not {type(target).__name__}"
        )
    kind = CompiledModule if hasattr(target, "named_parameters") else Compiled
    return kind(target, dynamic=dynamic, keep_grads=keep_grads, name=name, **options)


@overload
def trace(fn: Tensor) -> Tensor: ...
@overload
def trace(fn: Callable[..., Any], *specs: Any, **kwspecs: Any) -> Graph: ...
def trace(fn: Any, *specs: Any, **kwspecs: Any) -> Any:
    """The graph of ``fn`` for arguments like ``specs``.

    A spec is a :class:`TensorSpec`, an example tensor, or a plain value.  The
    graph refers to the live tensors it captured: ``gf.compile(graph)`` makes a
    program that reads and updates them.

    ``trace(matrix)``, of a tensor, is the sum of its diagonal.
    """
    if isinstance(fn, Tensor):
        return matrix_trace(fn)
    function = fn.original if isinstance(fn, Compiled) else fn
    captured = capture(function, specs, kwspecs, explicit=True)
    remember(captured)
    return captured.graph


def grad(target: Any, argnums: Any = 0, *, wrt: Any = None, of: int = 0) -> Any:
    """Gradients: of a graph's scalar output (a new graph), or of a function (a new function).

    ``grad(graph, wrt, of=0)`` also returns the gradients with respect to inputs
    or state given by name or position; ``grad(fn, argnums=0)`` is a function
    that returns the gradient of ``fn`` by those arguments.
    """
    if isinstance(target, Graph):
        from graphflow.passes.autodiff import differentiate

        return inherit(differentiate(target, wrt if wrt is not None else argnums, of), target)

    def function(*args: Any, **kwargs: Any) -> Any:
        return value_and_grad(target, argnums)(*args, **kwargs)[1]

    function.__name__ = f"grad_{getattr(target, '__name__', 'function')}"
    return function


def value_and_grad(fn: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns ``fn(*args)`` and its gradient by the arguments ``argnums``."""
    single = isinstance(argnums, int)
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def function(*args: Any, **kwargs: Any) -> Any:
        given = list(args)
        for i in chosen:
            if not -len(given) <= i < len(given):
                raise IndexError(f"there is no argument {i}: {len(given)} were given")
            if not isinstance(given[i], Tensor):
                raise TypeError(f"argument {i} must be a tensor to differentiate by it")
            given[i] = given[i].detach().requires_grad_()
        value = fn(*given, **kwargs)
        found = _tape_grad(value, [given[i] for i in chosen])
        return value.detach(), (found[0] if single else found)

    function.__name__ = f"value_and_grad_{getattr(fn, '__name__', 'function')}"
    return function
