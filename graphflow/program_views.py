"""What a person asks a program for: stages, kernels, times, a report, a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from graphflow.comparison import Comparison
    from graphflow.explain import Explanation, Kernel, StageRecord
    from graphflow.profiling.rows import Profile
    from graphflow.program import Program


class ProgramViews:
    """A program's ways to be looked at; each imports what it needs when it is asked."""

    def save(self, path: str | os.PathLike[str], *, native: bool = False) -> None:
        """Write the program with its state to one file, for :func:`graphflow.load_program`.

        The file has the graph, the schedule, and the weights; with ``native`` also the object
        code of the kernels, which loads with ``trusted=True`` on machines like this one.
        """
        from graphflow.frozen import save_program

        save_program(cast("Program", self), path, native)

    def stages(self) -> list[StageRecord]:
        """Every stage the graph went through, then the schedule."""
        from graphflow.explain import stages_of

        return stages_of(cast("Program", self))

    def explain(self) -> Explanation:
        """Stages, kernels, memory, cache and host operations, printable."""
        from graphflow.explain import explain_program

        return explain_program(cast("Program", self))

    def profile(self, *args: Any, repeat: int | None = None) -> Profile:
        """Time ``program(*args)`` kernel by kernel; state is put back afterwards.

        ``repeat`` steps are timed (as many as fit in half a second if not given).  The result
        prints as a table, and has ``.table()``, ``.modules()``, ``.to_chrome(path)``.
        """
        from graphflow.profiling.record import profile_program

        return profile_program(cast("Program", self), args, repeat)

    def report(
        self,
        path: str | Path,
        inputs: Sequence[Any] | None = None,
        comparison: Comparison | None = None,
    ) -> Path:
        """Write everything about the program as one HTML page; returns its path.

        With ``inputs`` every kernel is timed on them (state is put back); ``comparison``
        of :func:`graphflow.benchmark` adds the table of static against eager.
        """
        from graphflow.report import write_report

        return write_report(cast("Program", self), path, inputs, comparison)

    @property
    def kernels(self) -> list[Kernel]:
        """The kernel calls in order, with source, IR, bytes, operations and user lines."""
        from graphflow.explain import kernels_of

        return kernels_of(cast("Program", self))
