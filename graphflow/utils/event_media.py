"""What event files hold beside numbers and texts: points, sounds, films, layouts of charts."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from graphflow.errors import GraphFlowError, ShapeError
from graphflow.utils.event_parts import Array, as_pixels, png
from graphflow.vision.pillow import pil

_MOST_LEVEL = 32767  # of 16 bits


def write_embedding(
    folder: Path, tag: str, step: int, points: Array, metadata: Sequence[Any] | None,
    images: Array | None, header: Sequence[str] | None,
) -> None:  # fmt: skip
    """Files for TensorBoard's projector: the points, their labels and pictures, and a list of all
    that has been written so, which is written last."""
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    if points.ndim != 2:
        raise ShapeError(f"add_embedding: points are [N, D], not {list(points.shape)}")
    for what, given in (("metadata", metadata), ("label_img", images)):
        if given is not None and len(given) != len(points):
            raise ShapeError(f"add_embedding: {len(given)} of {what} for {len(points)} points")
    place = Path(f"{step:05}") / quote(tag, safe="")
    try:
        (folder / place).mkdir(parents=True, exist_ok=True)
        config, list_of_all = ProjectorConfig(), folder / "projector_config.pbtxt"
        if list_of_all.exists():
            text_format.Parse(list_of_all.read_text(encoding="utf-8"), config)
        name = f"{tag}:{step:05}"
        kept = [e for e in config.embeddings if e.tensor_name != name]
        del config.embeddings[:]
        config.embeddings.extend(kept)
        entry = config.embeddings.add(tensor_name=name)
        entry.tensor_path = str(place / "tensors.tsv")
        _write(folder / entry.tensor_path, ["\t".join(map(str, p)) for p in points.tolist()])
        if metadata is not None:
            entry.metadata_path = str(place / "metadata.tsv")
            _write(folder / entry.metadata_path, _labels(metadata, header))
        if images is not None:
            entry.sprite.image_path = str(place / "sprite.png")
            entry.sprite.single_image_dim.extend([images.shape[3], images.shape[2]])
            (folder / entry.sprite.image_path).write_bytes(png(_sheet(images)))
        _write(list_of_all, [text_format.MessageToString(config)])
    except OSError as error:
        raise GraphFlowError(f"cannot write logs to {str(folder)!r}: {error}") from error


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _labels(metadata: Sequence[Any], header: Sequence[str] | None) -> list[str]:
    """A line a point; with a header there are several columns."""
    if not header:
        return [str(getattr(label, "item", lambda found=label: found)()) for label in metadata]
    for row in metadata:
        if len(row) != len(header):
            raise ShapeError(
                f"add_embedding: a row of metadata has {len(row)} columns, the header {len(header)}"
            )
    return ["\t".join(map(str, row)) for row in (header, *metadata)]


def _sheet(images: Array) -> Array:
    """Pictures [N, C, H, W] side by side in as many rows as columns."""
    if images.ndim != 4:
        raise ShapeError(f"add_embedding: label_img is [N, C, H, W], not {list(images.shape)}")
    side = int(np.ceil(np.sqrt(len(images))))
    whole = np.zeros((side * side, *images.shape[1:]), images.dtype)
    whole[: len(images)] = images
    return as_pixels(whole, "NCHW")


def audio_part(summary: Any, samples: Array, rate: int) -> Any:
    """The summary of a sound: samples between -1 and 1, of one channel."""
    flat = samples.squeeze()
    if flat.ndim != 1:
        raise ShapeError(f"a sound is [1, L], not {list(samples.shape)}")
    levels = (np.clip(flat.astype(np.float64), -1, 1) * _MOST_LEVEL).astype("<i2")
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(levels.tobytes())
    return summary.Summary.Audio(
        sample_rate=rate, num_channels=1, length_frames=len(flat),
        encoded_audio_string=made.getvalue(), content_type="audio/wav",
    )  # fmt: skip


def video_part(summary: Any, video: Array, rate: float) -> Any:
    """The summary of films [N, T, C, H, W] side by side, as one GIF."""
    if video.ndim != 5 or not video.shape[1]:
        raise ShapeError(f"a film is [N, T, C, H, W], not {list(video.shape)}")
    frames = [as_pixels(video[:, t], "NCHW") for t in range(video.shape[1])]
    height, width, channels = frames[0].shape
    images = [pil().fromarray(f[..., 0] if channels == 1 else f) for f in frames]
    made = io.BytesIO()
    images[0].save(
        made, "GIF", save_all=True, append_images=images[1:], duration=1000 / rate, loop=0
    )
    return summary.Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=made.getvalue()
    )


def layout_part(summary: Any, layout: Mapping[str, Mapping[str, Any]]) -> Any:
    """The summary that says which tags stand in one chart: categories, charts, and for each
    "Multiline" or "Margin" and its tags."""
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    categories = []
    for title, charts in layout.items():
        found = []
        for name, (kind, tags) in charts.items():
            if kind not in ("Multiline", "Margin"):
                raise ValueError(f"chart {name!r}: Multiline or Margin, not {kind!r}")
            if kind == "Margin" and len(tags) != 3:
                raise ValueError(
                    f"chart {name!r}: a margin has three tags (value, lower, upper), "
                    f"not {len(tags)}"
                )
            found.append(_chart(layout_pb2, name, kind, tags))
        categories.append(layout_pb2.Category(title=title, chart=found))
    whole = layout_pb2.Layout(category=categories).SerializeToString()
    about = summary.SummaryMetadata(
        plugin_data=summary.SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME)
    )
    tensor = TensorProto(dtype="DT_STRING", string_val=[whole], tensor_shape=TensorShapeProto())
    return summary.Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)


def _chart(pb: Any, title: str, kind: str, tags: Sequence[str]) -> Any:
    if kind == "Multiline":
        return pb.Chart(title=title, multiline=pb.MultilineChartContent(tag=tags))
    value, lower, upper = tags
    series = pb.MarginChartContent.Series(value=value, lower=lower, upper=upper)
    return pb.Chart(title=title, margin=pb.MarginChartContent(series=[series]))
