"""Event files as TensorBoard's own reader finds them; tables and lines of metrics."""

import csv
import io
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

import graphflow as gf
from graphflow import nn
from graphflow.utils.event_parts import as_pixels, png
from graphflow.utils.loggers import CSVLogger, JSONLogger

pytest.importorskip("tensorboard")
from graphflow.utils.tensorboard import SummaryWriter

pytestmark = pytest.mark.filterwarnings("ignore")  # of tensorboard's imports


def events(folder):
    """What TensorBoard's accumulator reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), {"images": 0, "histograms": 0, "scalars": 0})
    return found.Reload()


def test_scalars(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step, value in enumerate([1, np.float32(0.5), gf.tensor(0.25), gf.ones(1, 1)]):
            writer.add_scalar("train/loss", value, step, walltime=100.0 + step)
        writer.add_scalars("both", {"a": 1.0, "b": gf.tensor(2.0)}, 7)
        with pytest.raises(gf.ShapeError, match=r"one number.*\[2\]"):
            writer.add_scalar("x", gf.ones(2))
    found = events(tmp_path).Scalars("train/loss")
    assert [(e.step, e.value, e.wall_time) for e in found] == [
        (0, 1.0, 100.0), (1, 0.5, 101.0), (2, 0.25, 102.0), (3, 1.0, 103.0),
    ]  # fmt: skip
    assert [e.value for e in events(tmp_path / "both_b").Scalars("both")] == [2.0]


def test_histograms(tmp_path):
    values = np.concatenate([np.linspace(-2, 3, 1000), [0.0, 0.0]])
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("w", gf.tensor(values), 3)
        writer.add_histogram("few", values, 0, bins=50, max_bins=5)
        writer.add_histogram("ints", gf.arange(10), 0, bins="auto")
        with pytest.raises(ValueError, match="no values"):
            writer.add_histogram("none", gf.empty(0))
    read = events(tmp_path)
    made = read.Histograms("w")[0].histogram_value
    assert (made.num, made.min, made.max) == (1002, -2, 3)
    assert made.sum == pytest.approx(values.sum()) and sum(made.bucket) == 1002
    assert made.sum_squares == pytest.approx((values**2).sum())
    limits = np.array(made.bucket_limit)
    below = [np.sum(values < limit) for limit in limits[1:-1]]
    np.testing.assert_allclose(np.cumsum(made.bucket)[1:-1], below, atol=1)
    few = read.Histograms("few")[0].histogram_value
    assert len(few.bucket) == 6 and sum(few.bucket) == 1002


def test_images(tmp_path):
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    color = np.random.default_rng(0).random((3, 5, 6)).astype(np.float32)
    with SummaryWriter(tmp_path) as writer:
        writer.add_image("gray", gray, dataformats="HW")
        writer.add_image("color", gf.tensor(color), 1)
        writer.add_images("batch", gf.zeros(3, 1, 2, 2) + gf.arange(3).reshape(3, 1, 1, 1) / 2)
        with pytest.raises(gf.ShapeError, match="'CHW'"):
            writer.add_image("bad", gray)
    read = events(tmp_path)

    def pixels(tag):
        return np.asarray(Image.open(io.BytesIO(read.Images(tag)[0].encoded_image_string)))

    np.testing.assert_array_equal(pixels("gray"), gray)
    np.testing.assert_array_equal(pixels("color"), (color.transpose(1, 2, 0) * 255).astype("u1"))
    sheet = [[0, 0, 127, 127]] * 2 + [[255, 255, 0, 0]] * 2
    np.testing.assert_array_equal(pixels("batch"), sheet)
    rgba = as_pixels(np.full((2, 2, 4), 0.5), "HWC")
    assert Image.open(io.BytesIO(png(rgba))).mode == "RGBA"


def test_texts_graphs_and_hyper_parameters(tmp_path):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with SummaryWriter(tmp_path, comment="unused") as writer:
        writer.add_text("note", "**bold**", 2)
        writer.add_graph(model, gf.randn(3, 4))
        writer.add_hparams(
            {"lr": 0.1, "name": "sgd", "flag": True}, {"accuracy": 0.9}, {"lr": [0.1, 0.2]}, "one"
        )
        assert writer.get_logdir() == str(tmp_path)
    read = events(tmp_path)
    assert read.Tensors("note/text_summary")[0].tensor_proto.string_val[0] == b"**bold**"
    nodes = {node.name: node for node in read.Graph().node}
    assert {node.op for node in nodes.values()} >= {"input", "state", "matmul", "relu", "output"}
    assert all(name in nodes for node in nodes.values() for name in node.input)
    assert any("0/weight" in name for name in nodes)
    assert [e.value for e in events(tmp_path / "one").Scalars("accuracy")] == [pytest.approx(0.9)]
    content = events(tmp_path / "one").SummaryMetadata("_hparams_/experiment").plugin_data.content
    assert b"lr" in content and b"accuracy" in content


def test_curves_of_precision_and_recall(tmp_path):
    random = np.random.default_rng(3)
    labels, scores = random.integers(0, 2, 50), random.random(50)
    weights = random.random(50)
    scores[:2] = 0.0, 1.0
    with SummaryWriter(tmp_path) as writer:
        writer.add_pr_curve("curve", gf.tensor(labels), gf.tensor(scores), 4, 11)
        writer.add_pr_curve("weighted", labels, scores, weights=weights)
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            writer.add_pr_curve("logits", labels, scores * 3)
    read = events(tmp_path)
    assert read.SummaryMetadata("curve").plugin_data.plugin_name == "pr_curves"
    for tag, steps, w in (("curve", 11, np.ones(50)), ("weighted", 127, weights)):
        (event,) = read.Tensors(tag)
        table = np.array(event.tensor_proto.float_val).reshape(6, steps)
        for k in (0, 1, steps // 2, steps - 1):
            chosen = np.floor(scores * (steps - 1)) >= k
            tp, fp = (w * chosen * labels).sum(), (w * chosen * (1 - labels)).sum()
            tn, fn = (w * ~chosen * (1 - labels)).sum(), (w * ~chosen * labels).sum()
            wanted = [tp, fp, tn, fn, tp / max(tp + fp, 1e-7), tp / (tp + fn)]
            np.testing.assert_allclose(table[:, k], wanted, rtol=1e-5, atol=1e-6)
    assert read.Tensors("curve")[0].step == 4


def test_points_for_the_projector(tmp_path):
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    points = gf.arange(10.0).reshape(5, 2)
    with SummaryWriter(tmp_path) as writer:
        writer.add_embedding(points, metadata=list("abcde"), label_img=gf.rand(5, 3, 4, 6))
        for _ in range(2):  # the second time instead of the first
            writer.add_embedding(
                points.numpy(), [[i, i * i] for i in range(5)], global_step=7, tag="a/b",
                metadata_header=["n", "square"],
            )  # fmt: skip
        with pytest.raises(gf.ShapeError, match="4 of metadata for 5 points"):
            writer.add_embedding(points, metadata=list("abcd"))
        with pytest.raises(gf.ShapeError, match="has 1 columns, the header 2"):
            writer.add_embedding(points, metadata=[[1]] * 5, metadata_header=["n", "m"])
    text = (tmp_path / "projector_config.pbtxt").read_text()
    first, second = text_format.Parse(text, ProjectorConfig()).embeddings
    assert (first.tensor_name, second.tensor_name) == ("default:00000", "a/b:00007")
    np.testing.assert_array_equal(np.loadtxt(tmp_path / first.tensor_path), points.numpy())
    assert (tmp_path / first.metadata_path).read_text().split() == list("abcde")
    assert Image.open(tmp_path / first.sprite.image_path).size == (18, 12)
    assert list(first.sprite.single_image_dim) == [6, 4]
    assert (tmp_path / second.metadata_path).read_text().splitlines()[:2] == ["n\tsquare", "0\t0"]


def test_sounds_films_and_layouts_of_charts(tmp_path):
    import wave

    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    sound = np.sin(np.linspace(0, 50, 800))
    with SummaryWriter(tmp_path) as writer:
        writer.add_audio("tone", gf.tensor(sound)[None], 2, sample_rate=8000)
        writer.add_video("film", gf.rand(2, 3, 3, 4, 4), 5, fps=10)
        writer.add_custom_scalars(
            {"all": {"lines": ["Multiline", ["loss/a", "b"]], "m": ["Margin", ["x", "y", "z"]]}}
        )
        with pytest.raises(ValueError, match="a margin has three tags"):
            writer.add_custom_scalars_marginchart(["x"])
        with pytest.raises(gf.ShapeError, match=r"a film is \[N, T, C, H, W\]"):
            writer.add_video("film", gf.rand(3, 4, 4))
        with pytest.raises(gf.ShapeError, match=r"a sound is \[1, L\]"):
            writer.add_audio("tone", gf.rand(2, 800))
    read = events(tmp_path)
    (tone,) = read.Audio("tone")
    with wave.open(io.BytesIO(tone.encoded_audio_string)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, 1, 800)
        levels = np.frombuffer(file.readframes(800), "<i2")
    np.testing.assert_allclose(levels / 32767, sound, atol=1e-4)
    (film,) = read.Images("film")
    with Image.open(io.BytesIO(film.encoded_image_string)) as moving:
        assert (moving.format, moving.n_frames, moving.size) == ("GIF", 3, (8, 4))
    (event,) = read.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
    lines, margin = category.chart
    assert list(lines.multiline.tag) == ["loss/a", "b"]
    assert [margin.margin.series[0].value, margin.margin.series[0].upper] == ["x", "z"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(gf.GraphFlowError, match="cannot write logs"):
        SummaryWriter(tmp_path / "runs")


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "runs").write_text("")
    for kind in (SummaryWriter, lambda p: CSVLogger(p / "a.csv"), lambda p: JSONLogger(p / "a")):
        with pytest.raises(gf.GraphFlowError, match=r"cannot write logs to .*runs"):
            kind(tmp_path / "runs")


def test_tables_and_lines(tmp_path: pathlib.Path):
    table, lines = CSVLogger(tmp_path / "a" / "m.csv"), JSONLogger(tmp_path / "m.jsonl")
    for step in range(3):
        for log in (table.log, lines.log):
            log({"loss": gf.tensor(1.0 / (step + 1))}, step)
    table.log({"accuracy": 0.5}, 2)
    again = CSVLogger(tmp_path / "a" / "m.csv")  # goes on where another process ended
    again.log({"loss": 0.0}, 3)
    with (tmp_path / "a" / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[2]["accuracy"] == "0.5" and rows[0]["accuracy"] == ""
    assert float(rows[1]["loss"]) == 0.5
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # killed while it wrote
    JSONLogger(tmp_path / "m.jsonl").log({"loss": 0.0}, 3)
    text = (tmp_path / "m.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in text] == [0, 1, 2, 3]
    assert lines.rows()[1] == {"step": 1, "loss": 0.5}
