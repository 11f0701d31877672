"""What event files hold, made from tensors: images, texts, graphs, hyper-parameters."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphflow.errors import ShapeError
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import Kind
from graphflow.tensor import Tensor

Array = np.ndarray[Any, Any]


def numbers_of(value: Any) -> Array:
    """A tensor, array or number as an array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return np.asarray(
            value.float().numpy() if value.dtype.name == "bfloat16" else value.numpy()
        )
    return np.asarray(value)


def number(value: Any) -> float:
    """A number, or the one element of a tensor or array."""
    array = numbers_of(value)
    if array.size != 1:
        raise ShapeError(f"a scalar is one number, not values of shape {list(array.shape)}")
    return float(array.reshape(()))


# ---- images --------------------------------------------------------------------------


def image_part(summary: Any, image: Array, order: str) -> Any:
    """The summary of an image, or of a batch side by side; ``order`` names the axes."""
    pixels = as_pixels(image, order)
    height, width, channels = pixels.shape
    return summary.Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=png(pixels)
    )


def as_pixels(image: Array, order: str) -> Array:
    """uint8 [height, width, 1, 3 or 4] of an image whose axes are named by ``order``."""
    axes = order.upper()
    if len(axes) != image.ndim or set(axes) - set("NCHW") or not {"H", "W"} <= set(axes):
        raise ShapeError(
            f"an image of shape {list(image.shape)} does not have the axes {order!r} "
            "(each of N, C, H and W once; N and C may be missing)"
        )
    for missing in "NC":
        if missing not in axes:
            axes, image = axes + missing, image[..., None]
    batch = image.transpose([axes.index(axis) for axis in "NHWC"])
    count, height, width, channels = batch.shape
    if channels not in (1, 3, 4):
        raise ShapeError(f"an image has 1, 3 or 4 channels, not {channels}")
    if batch.dtype != np.uint8:
        batch = (np.clip(np.nan_to_num(batch.astype(np.float64)), 0, 1) * 255).astype(np.uint8)
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:count] = batch
    tiles = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(rows * height, columns * width, channels)


def png(pixels: Array) -> bytes:
    """A PNG file of uint8 [height, width, 1, 3 or 4] (ISO/IEC 15948, filter 0)."""
    height, width, channels = pixels.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.tobytes() for line in np.ascontiguousarray(pixels))

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# ---- text and hyper-parameters ---------------------------------------------------------


def text_part(summary: Any, tag: str, text: str) -> Any:
    """The summary of a text, for TensorBoard's text plug-in."""
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

    metadata = summary.SummaryMetadata(
        plugin_data=summary.SummaryMetadata.PluginData(
            plugin_name="text", content=TextPluginData(version=0).SerializeToString()
        )
    )
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
    return summary.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def curve_part(
    summary: Any, tag: str, labels: Array, scores: Array, weights: Array, steps: int
) -> Any:
    """The summary of precision and recall at ``steps`` thresholds from 0 to 1."""
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData

    content = PrCurvePluginData(version=0, num_thresholds=steps).SerializeToString()
    metadata = summary.SummaryMetadata(
        plugin_data=summary.SummaryMetadata.PluginData(plugin_name="pr_curves", content=content)
    )
    table = precision_and_recall(labels, scores, weights, steps)
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in table.shape])
    tensor = TensorProto(dtype="DT_FLOAT", float_val=table.reshape(-1).tolist(), tensor_shape=shape)
    return summary.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def precision_and_recall(labels: Array, scores: Array, weights: Array, steps: int) -> Array:
    """[6, steps]: true and false positives, true and false negatives, precision and recall.

    What scores at least a threshold counts as positive.
    """
    place = np.floor(scores.astype(np.float64) * (steps - 1)).astype(np.int64)

    def from_each(positive: Array) -> Array:
        counts = np.bincount(place, weights * positive, steps)
        return np.cumsum(counts[::-1])[::-1]

    is_true = labels.astype(bool)
    right, wrong = from_each(is_true), from_each(~is_true)
    missed = right[0] - right
    tiny = 1e-7  # of no samples at all, precision and recall are 0
    precision = right / np.maximum(tiny, right + wrong)
    recall = right / np.maximum(tiny, right + missed)
    return np.stack([right, wrong, wrong[0] - wrong, missed, precision, recall])


def hyper_parameter_parts(
    summary: Any,
    given: Mapping[str, Any],
    metrics: Mapping[str, Any],
    domains: Mapping[str, list[Any]],
) -> list[Any]:
    """The summaries of an experiment, and of the start and end of its one session."""
    from google.protobuf.struct_pb2 import ListValue
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import (
        HParamsPluginData,
        SessionEndInfo,
        SessionStartInfo,
    )

    fields = {bool: ("BOOL", "bool_value"), str: ("STRING", "string_value")}
    now = time.time()
    experiment = api_pb2.Experiment(
        time_created_secs=now,
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics],
    )
    start = SessionStartInfo(start_time_secs=now)
    for name, value in given.items():
        plain = value if isinstance(value, (bool, str)) else number(value)
        kind, field = fields.get(type(plain), ("FLOAT64", "number_value"))
        setattr(start.hparams[name], field, plain)
        info = experiment.hparam_infos.add(name=name)
        info.type = getattr(api_pb2, f"DATA_TYPE_{kind}")
        if name in domains:
            domain = ListValue()
            domain.extend(domains[name])
            info.domain_discrete.CopyFrom(domain)
    end = SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=now)
    contents = [
        (metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        (metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
        (metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    ]
    return [
        summary.Summary.Value(
            tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
        )
        for tag, data in contents
    ]


# ---- graphs ----------------------------------------------------------------------------


def graph_part(model: Any, inputs: Any, verbose: bool) -> bytes:
    """A serialised ``GraphDef``: a node an operation, in the box of its module."""
    from tensorboard.compat.proto.attr_value_pb2 import AttrValue
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.node_def_pb2 import NodeDef
    from tensorboard.compat.proto.versions_pb2 import VersionDef

    from graphflow.api import trace

    graph = model
    if not isinstance(graph, Graph):
        given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        graph = trace(model, *given)
    names: dict[Node, str] = {}
    taken: dict[str, int] = {}
    nodes = []
    for node in graph.nodes:
        name = _unique(_path(graph, node), taken)
        names[node] = name
        attrs = {"type": AttrValue(s=str(node.type).encode())}
        plain = {key: value for key, value in node.attrs.items() if not isinstance(value, Graph)}
        attrs["attributes"] = AttrValue(s=str(plain)[:200].encode())
        operands = [names[operand] for operand in node.inputs]
        nodes.append(NodeDef(name=name, op=node.op.name, input=operands, attr=attrs))
    for number_, output in enumerate(graph.outputs):
        name = _unique(f"output_{number_}", taken)
        nodes.append(NodeDef(name=name, op="output", input=[names[output]]))
    if verbose:
        print(graph)
    made: bytes = GraphDef(node=nodes, versions=VersionDef(producer=22)).SerializeToString()
    return made


def _path(graph: Graph, node: Node) -> str:
    """Slashes open boxes: module path, then the operation or the name of a leaf."""
    if node.op.kind is Kind.LEAF and "name" in node.attrs:
        return str(node.attrs["name"]).replace(".", "/")
    place = graph.locations.get(node)
    module = place.module.replace(".", "/") + "/" if place is not None and place.module else ""
    return f"{module}{node.op.name}"


def _unique(name: str, taken: dict[str, int]) -> str:
    count = taken.get(name, 0)
    taken[name] = count + 1
    return name if not count else _unique(f"{name}_{count}", taken)
