"""``jit.trace`` and ``jit.script`` with PyTorch's names: thin forms of ``gf.compile`` and saving.

What is compiled is guarded: a call for which something else would have to run (another shape,
``eval()``, a changed attribute) is traced anew.  So nothing has to be checked after tracing, and
scripting needs no language of its own: both give the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from graphflow.api import trace as trace_graph
from graphflow.autograd import no_grad
from graphflow.compiled import Compiled, CompiledModule
from graphflow.entry import Entry
from graphflow.errors import GraphFlowError
from graphflow.frozen import load_program
from graphflow.ir.graph import Graph
from graphflow.mode import mode
from graphflow.program import Program
from graphflow.pytree import Structure, flatten, unflatten
from graphflow.specs import TensorSpec
from graphflow.tensor import Tensor

__all__ = [
    "Final", "ScriptFunction", "ScriptModule", "annotate", "export", "fork", "freeze",
    "ignore", "is_scripting", "is_tracing", "load", "optimize_for_inference", "save", "script",
    "script_if_tracing", "script_method", "trace", "trace_module", "unused", "wait",
]  # fmt: skip

F = TypeVar("F")


class ScriptFunction(Compiled):
    """A compiled function that shows its graph and saves its program."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        super().__init__(function, **options)
        self._example: tuple[Structure, list[Any]] | None = None

    def prepare(self, *args: Any, **kwargs: Any) -> Entry:
        """Compile for arguments like these, which the next call is expected to have."""
        entry = super().prepare(*args, **kwargs)
        self._keep_example(args, kwargs)
        self._turn_to(entry)
        return entry

    def _slow_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        result = super()._slow_call(args, kwargs)
        self._keep_example(args, kwargs)
        return result

    def _keep_example(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """What the arguments of the last new signature were like, without their data."""
        leaves, structure = flatten((args, dict(kwargs)))
        self._example = structure, [_like(leaf) for leaf in leaves]

    @property
    def graph(self) -> Graph:
        """What the function computes for arguments like those of its last new signature."""
        if self._example is None:
            raise GraphFlowError(f"{self.__name__} has not been called: there is no graph yet")
        structure, leaves = self._example
        args, kwargs = unflatten(structure, leaves)
        with no_grad():
            graph: Graph = trace_graph(self.original, *args, **kwargs)
        return graph

    @property
    def code(self) -> str:
        """The graph as a Python function."""
        return self.graph.to_python()

    def save(self, f: str | os.PathLike[str]) -> None:
        """Write a program of :attr:`graph` with its state, for :func:`load`."""
        Program.from_graph(self.graph).save(f)


class ScriptModule(CompiledModule, ScriptFunction):
    """A compiled module that shows its graph and saves its program."""


def trace(
    func: Callable[..., Any],
    example_inputs: Any = None,
    optimize: bool | None = None,
    check_trace: bool = True,
    check_inputs: Sequence[Any] | None = None,
    check_tolerance: float = 1e-5,
    strict: bool = True,
    *,
    example_kwarg_inputs: Mapping[str, Any] | None = None,
    dynamic: Any = None,
) -> Any:
    """``func`` (a function or a module), compiled for arguments like the examples.

    ``example_inputs`` is a tuple of arguments, or one tensor; it may be left out where
    ``example_kwarg_inputs`` has them all.  Other arguments make other programs when they come;
    ``dynamic`` is :func:`graphflow.compile`'s.  The flags for checking are taken as they are in
    PyTorch and have nothing to do: every call is held against what was assumed.
    """
    if example_inputs is None and example_kwarg_inputs is None:
        raise TypeError("jit.trace needs example_inputs (or example_kwarg_inputs)")
    args = () if example_inputs is None else example_inputs
    made = _compiled(func, dynamic)
    args = (args,) if isinstance(args, Tensor) else args
    made.prepare(*args, **(example_kwarg_inputs or {}))
    return made


def trace_module(mod: Any, inputs: Mapping[str, Any], **options: Any) -> Any:
    """:func:`trace` of a module for ``inputs={"forward": …}``; other methods have no trace."""
    if set(inputs) != {"forward"}:
        raise GraphFlowError(
            f"jit.trace_module traces forward, not {', '.join(sorted(set(inputs) - {'forward'}))}; "
            "gf.compile compiles any method"
        )
    return trace(mod, inputs["forward"], **options)


def script(obj: Any, optimize: bool | None = None, **unused: Any) -> Any:
    """``obj`` (a function or a module) compiled at its first call; a class is left as it is."""
    return obj if isinstance(obj, type) else _compiled(obj, None)


def _compiled(target: Any, dynamic: Any) -> Compiled:
    if isinstance(target, ScriptFunction):
        return target
    if not callable(target):
        raise TypeError(f"jit takes a function or an nn.Module, not {type(target).__name__}")
    kind = ScriptModule if hasattr(target, "named_parameters") else ScriptFunction
    return kind(target, dynamic=dynamic)


def save(m: Any, f: str | os.PathLike[str]) -> None:
    """Write what :func:`trace` or :func:`script` gave, with its state, as a program to be called
    with arguments like those of its last new signature."""
    if not isinstance(m, ScriptFunction | Program):
        raise TypeError(
            f"jit.save takes what jit.trace or jit.script returned, not {type(m).__name__}"
        )
    m.save(f)


def load(f: str | os.PathLike[str], map_location: Any = None) -> Program:
    """The program of a file, ready to run; see :func:`graphflow.load_program`.

    ``map_location`` may only name the CPU.
    """
    if map_location is not None and getattr(map_location, "type", str(map_location)) != "cpu":
        raise GraphFlowError(f"jit.load: programs are loaded to the CPU, not {map_location}")
    return load_program(f)


def freeze(
    mod: F, preserved_attrs: Sequence[str] | None = None, optimize_numerics: bool = True
) -> F:
    """``mod`` itself, which has to be in eval mode: what depends on its parameters alone is
    folded when it is saved or exported, not while they can still change."""
    if getattr(mod, "training", False):
        raise GraphFlowError("jit.freeze takes a module in eval mode: call mod.eval() first")
    return mod


def ignore(drop: F | bool = False, **unused: Any) -> F | Callable[[F], F]:
    """A mark for scripting; calls are traced here, so it changes nothing."""
    return drop if callable(drop) else lambda function: function


def unused(fn: F) -> F:
    """A mark for scripting; calls are traced here, so it changes nothing."""
    return fn


export = script_if_tracing = script_method = unused


def annotate(the_type: Any, the_value: F) -> F:
    """``the_value``: types are those of the values that a trace meets."""
    return the_value


class Future:
    """What :func:`fork` gives: a result that is there."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def wait(self) -> Any:
        """The result."""
        return self._value


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Future:
    """The result of a call, which is made at once: kernels use the threads that there are."""
    return Future(func(*args, **kwargs))


def wait(future: Future) -> Any:
    """The result of a call of :func:`fork`."""
    return future.wait()


def optimize_for_inference(mod: F, other_methods: Sequence[str] | None = None) -> F:
    """``mod`` itself, which has to be in eval mode: programs are optimised as they are made."""
    return freeze(mod)


def is_tracing() -> bool:
    """Whether the running code is being traced."""
    return mode.tracer is not None


def is_scripting() -> bool:
    """Always false: what is scripted is traced."""
    return False


def _like(leaf: Any) -> Any:
    return TensorSpec(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf
