"""Metrics in files that anything reads: a table of comma-separated values, or JSON a line."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphflow.errors import GraphFlowError
from graphflow.utils.event_parts import number

__all__ = ["CSVLogger", "JSONLogger"]


class JSONLogger:
    """Appends one JSON object a call to ``path``: ``{"step": 3, "loss": 0.5}``.

    Every call is on disk when it returns, so that nothing is lost if the process is killed; a
    line that was cut off by that is completed before the next one is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = self.path.read_bytes() if self.path.exists() else b""
            if text and not text.endswith(b"\n"):
                self.path.write_bytes(text[: text.rfind(b"\n") + 1])
            self.path.touch()
        except OSError as error:
            raise GraphFlowError(f"cannot write logs to {str(self.path)!r}: {error}") from error

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """One row of numbers (Python's, or tensors of one element)."""
        row = {"step": int(step), **{name: number(value) for name, value in metrics.items()}}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """All that was logged."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]


class CSVLogger:
    """Writes a table to ``path``: a column a metric, a row a step; rows of one step are joined.

    The file is there in full after every call; new metrics add columns.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._rows: dict[int, dict[str, Any]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                for row in self._read():
                    self._rows[int(row.pop("step"))] = {k: v for k, v in row.items() if v != ""}
            self._write()
        except OSError as error:
            raise GraphFlowError(f"cannot write logs to {str(self.path)!r}: {error}") from error

    def _read(self) -> list[dict[str, Any]]:
        with self.path.open(newline="") as file:
            return [dict(row) for row in csv.DictReader(file) if row.get("step")]

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Numbers (Python's, or tensors of one element) of one step."""
        row = self._rows.setdefault(int(step), {})
        row.update({name: number(value) for name, value in metrics.items()})
        self._write()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self._rows.values() for name in row))
        beside = self.path.with_name(self.path.name + ".new")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *names], restval="")
            writer.writeheader()
            for step in sorted(self._rows):
                writer.writerow({"step": step, **self._rows[step]})
        beside.replace(self.path)
