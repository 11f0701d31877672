"""Logs for TensorBoard: PyTorch's ``SummaryWriter`` over the ``tensorboard`` package's writer."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.utils.event_parts import (
    curve_part,
    graph_part,
    hyper_parameter_parts,
    image_part,
    number,
    numbers_of,
    text_part,
)

__all__ = ["SummaryWriter"]

_MOST_THRESHOLDS = 127
"""As many as PyTorch writes."""


def _package() -> Any:
    """The modules of ``tensorboard`` that are written with."""
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise GraphFlowError(
            "SummaryWriter needs the tensorboard package: pip install 'graphflow[logging]'"
        ) from None
    return event_pb2.Event, summary_pb2, EventFileWriter


class SummaryWriter:
    """Writes event files to ``log_dir`` (by default ``runs/<time>_<host><comment>``).

    ``tensorboard --logdir runs`` shows them.  ``purge_step``: what was logged from this step on,
    before a crash, is not shown.  Also a context, which is closed at its end.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] | None = None, comment: str = "",
        purge_step: int | None = None, max_queue: int = 10, flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:  # fmt: skip
        self._event, self._summary, self._file_writer = _package()
        if not log_dir:
            now = datetime.now().strftime("%b%d_%H-%M-%S")
            log_dir = Path("runs") / f"{now}_{socket.gethostname()}{comment}"
        self.log_dir = os.fspath(log_dir)
        self._options = (max_queue, flush_secs, filename_suffix)
        self._files: dict[str, Any] = {}
        """Event files by folder: groups of scalars have one for each member."""
        writer = self._file(self.log_dir)
        if purge_step is not None:
            event = self._event(step=purge_step, wall_time=time.time())
            event.session_log.status = 1  # START
            writer.add_event(event)

    def _file(self, folder: str) -> Any:
        if folder not in self._files:
            try:
                self._files[folder] = self._file_writer(folder, *self._options)
            except OSError as error:
                raise GraphFlowError(f"cannot write logs to {folder!r}: {error}") from error
        return self._files[folder]

    def _add(
        self, tag: str, step: int | None, walltime: float | None, folder: str = "", **value: Any
    ) -> None:
        """One summary; ``value`` is the field of the protocol's ``Summary.Value``."""
        part = self._summary.Summary.Value(tag=tag, **value)
        self._add_parts([part], step, walltime, folder or self.log_dir)

    def _add_parts(
        self, parts: list[Any], step: int | None, walltime: float | None, folder: str
    ) -> None:
        event = self._event(summary=self._summary.Summary(value=parts))
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        self._file(folder).add_event(event)

    # ---- numbers -------------------------------------------------------------------

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None,
        walltime: float | None = None, new_style: bool = False, double_precision: bool = False,
    ) -> None:  # fmt: skip
        """One number (a Python number, an array or a tensor of one element)."""
        self._add(tag, global_step, walltime, simple_value=number(scalar_value))

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Several numbers in one chart, each a run of its own."""
        for name, value in tag_scalar_dict.items():
            folder = f"{self.log_dir}/{main_tag.replace('/', '_')}_{name}"
            self._add(main_tag, global_step, walltime, folder, simple_value=number(value))

    def add_histogram(
        self, tag: str, values: Any, global_step: int | None = None, bins: Any = "tensorflow",
        walltime: float | None = None, max_bins: int | None = None,
    ) -> None:  # fmt: skip
        """How values are distributed.

        ``bins``: ``"tensorflow"`` (each 1.1 times as wide as the one before it, from zero
        outwards), or what ``numpy.histogram`` takes; ``max_bins`` joins neighbours.
        """
        flat = numbers_of(values).astype(np.float64).reshape(-1)
        if not flat.size:
            raise ValueError(f"add_histogram({tag!r}): there are no values")
        edges = _geometric_edges() if isinstance(bins, str) and bins == "tensorflow" else bins
        counts, edges = np.histogram(flat[np.isfinite(flat)], bins=edges)
        if max_bins is not None and len(counts) > max_bins:
            group = -(-len(counts) // max_bins)
            counts = np.add.reduceat(counts, range(0, len(counts), group))
            edges = np.append(edges[:-1][::group], edges[-1])
        filled = np.flatnonzero(counts)
        first, last = (filled[0], filled[-1]) if filled.size else (0, 0)
        histogram = self._summary.HistogramProto(
            min=flat.min(), max=flat.max(), num=flat.size, sum=flat.sum(),
            sum_squares=float(flat @ flat),
            bucket_limit=[edges[first], *edges[first + 1 : last + 2]],
            bucket=[0, *counts[first : last + 1]],
        )  # fmt: skip
        self._add(tag, global_step, walltime, histo=histogram)

    def add_pr_curve(
        self, tag: str, labels: Any, predictions: Any, global_step: int | None = None,
        num_thresholds: int = 127, weights: Any = None, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Precision over recall: ``labels`` are 0 or 1, ``predictions`` numbers in [0, 1]."""
        given = [labels, predictions, 1.0 if weights is None else weights]
        truth, scores, shares = np.broadcast_arrays(*(numbers_of(x).reshape(-1) for x in given))
        if not truth.size or not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"add_pr_curve({tag!r}): predictions must be numbers in [0, 1]")
        if num_thresholds < 2:
            raise ValueError(f"add_pr_curve({tag!r}): num_thresholds must be 2 or more")
        steps = min(num_thresholds, _MOST_THRESHOLDS)
        part = curve_part(self._summary, tag, truth, scores, shares, steps)
        self._add_parts([part], global_step, walltime, self.log_dir)

    # ---- images and text -----------------------------------------------------------

    def add_image(
        self, tag: str, img_tensor: Any, global_step: int | None = None,
        walltime: float | None = None, dataformats: str = "CHW",
    ) -> None:  # fmt: skip
        """One image: floats in [0, 1] or uint8, of 1, 3 or 4 channels (``"HW"``: none)."""
        part = image_part(self._summary, numbers_of(img_tensor), dataformats)
        self._add(tag, global_step, walltime, image=part)

    def add_images(
        self, tag: str, img_tensor: Any, global_step: int | None = None,
        walltime: float | None = None, dataformats: str = "NCHW",
    ) -> None:  # fmt: skip
        """A batch of images, side by side."""
        part = image_part(self._summary, numbers_of(img_tensor), dataformats)
        self._add(tag, global_step, walltime, image=part)

    def add_figure(
        self, tag: str, figure: Any, global_step: int | None = None, close: bool = True,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """A figure of matplotlib (or a list of them), drawn; it is closed then."""
        figures = figure if isinstance(figure, list) else [figure]
        drawn = []
        for item in figures:
            item.canvas.draw()
            drawn.append(np.asarray(item.canvas.buffer_rgba())[..., :3])
            if close:
                from matplotlib import pyplot

                pyplot.close(item)
        self.add_images(tag, np.stack(drawn), global_step, walltime, dataformats="NHWC")

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Text, which may use Markdown."""
        parts = [text_part(self._summary, f"{tag}/text_summary", text_string)]
        self._add_parts(parts, global_step, walltime, self.log_dir)

    # ---- points, sounds, films -------------------------------------------------------

    def add_embedding(
        self, mat: Any, metadata: Sequence[Any] | None = None, label_img: Any = None,
        global_step: int | None = None, tag: str = "default",
        metadata_header: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Points [N, D] for the projector, with a label and a picture [C, H, W] each, if given.

        ``metadata_header`` names several columns of labels.
        """
        from graphflow.utils.event_media import write_embedding

        images = None if label_img is None else numbers_of(label_img)
        step = int(global_step or 0)
        write_embedding(
            Path(self.log_dir), tag, step, numbers_of(mat), metadata, images, metadata_header
        )

    def add_audio(
        self, tag: str, snd_tensor: Any, global_step: int | None = None,
        sample_rate: int = 44100, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """A sound of one channel: samples between -1 and 1."""
        from graphflow.utils.event_media import audio_part

        part = audio_part(self._summary, numbers_of(snd_tensor), sample_rate)
        self._add(tag, global_step, walltime, audio=part)

    def add_video(
        self, tag: str, vid_tensor: Any, global_step: int | None = None, fps: float = 4,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Films [N, T, C, H, W] side by side, of ``fps`` pictures a second."""
        from graphflow.utils.event_media import video_part

        part = video_part(self._summary, numbers_of(vid_tensor), fps)
        self._add(tag, global_step, walltime, image=part)

    # ---- charts of several numbers -----------------------------------------------------

    def add_custom_scalars(self, layout: Mapping[str, Mapping[str, Any]]) -> None:
        """Charts of numbers that ``add_scalar`` logs: {category: {chart: [kind, tags]}}.

        A chart is "Multiline" with patterns of its tags, or "Margin" with the tags of a number
        and its bounds.
        """
        from graphflow.utils.event_media import layout_part

        self._add_parts([layout_part(self._summary, layout)], None, None, self.log_dir)

    def add_custom_scalars_multilinechart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """One chart with these tags."""
        self.add_custom_scalars({category: {title: ["Multiline", tags]}})

    def add_custom_scalars_marginchart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """One chart of a number between two others."""
        self.add_custom_scalars({category: {title: ["Margin", tags]}})

    # ---- programs and experiments ----------------------------------------------------

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False,
        use_strict_trace: bool = True,
    ) -> None:  # fmt: skip
        """The graph of a module or function for these inputs; modules are boxes to open.

        ``model`` may also be a ``gf.Graph``, such as that of a whole training step.
        """
        event = self._event(graph_def=graph_part(model, input_to_model, verbose))
        event.wall_time = time.time()
        self._file(self.log_dir).add_event(event)

    def add_hparams(
        self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Mapping[str, list[Any]] | None = None,
        run_name: str | None = None, global_step: int | None = None,
    ) -> None:  # fmt: skip
        """Hyper-parameters and the metrics they led to, as a run of its own."""
        parts = hyper_parameter_parts(
            self._summary, hparam_dict, metric_dict, hparam_domain_discrete or {}
        )
        folder = os.path.join(self.log_dir, run_name or str(time.time()))
        for part in parts:
            self._add_parts([part], global_step, None, folder)
        for tag, value in metric_dict.items():
            self._add(tag, global_step, None, folder, simple_value=number(value))

    # ---- the end ---------------------------------------------------------------------

    def get_logdir(self) -> str:
        """The folder."""
        return self.log_dir

    def flush(self) -> None:
        """Write what waits."""
        for writer in self._files.values():
            writer.flush()

    def close(self) -> None:
        """Write what waits, and let go of the files; more logging opens new ones."""
        for writer in self._files.values():
            writer.flush()
            writer.close()
        self._files.clear()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _geometric_edges() -> np.ndarray[Any, Any]:
    """Edges from -1e20 to 1e20, each 1.1 times as far from zero as the one before it."""
    steps = int(np.log(1e32) / np.log(1.1)) + 1
    positive = 1e-12 * 1.1 ** np.arange(steps)
    return np.concatenate([-positive[::-1], [0.0], positive])
