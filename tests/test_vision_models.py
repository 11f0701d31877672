"""Networks for images: parameters as torchvision's, weights from files, one step; hub."""

import hashlib
import pathlib
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import hub
from graphflow.vision import models
from graphflow.vision.models.weights import built


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Initial values that cost nothing where only names and shapes matter."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_"):
        monkeypatch.setattr(gf.nn.init, name, lambda tensor, *a, **k: tensor)


# Numbers of parameters, from torchvision's documentation of its models.
COUNTS = {
    "alexnet": 61_100_840, "resnet18": 11_689_512, "resnet34": 21_797_672,
    "resnet50": 25_557_032, "resnet101": 44_549_160, "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904, "inception_v3": 27_161_264,
}  # fmt: skip
VGG_COUNTS = {
    "vgg11": 132_863_336, "vgg11_bn": 132_868_840, "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736, "vgg16": 138_357_544, "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240, "vgg19_bn": 143_678_248,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_sizes_are_the_published_ones(name: str) -> None:
    model = models.get_model(name)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


def test_vggs_have_the_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Their linear layers, the same in all and a quarter of a gigabyte, are made without memory.
    linear = lambda rows, columns: gf.nn.Identity()  # noqa: E731
    monkeypatch.setattr(gf.nn, "Linear", linear)
    monkeypatch.setattr("graphflow.vision.models.vgg.VGG._reset", lambda model: None)
    sizes = 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    for name, count in VGG_COUNTS.items():
        model = models.get_model(name)
        assert sum(p.numel() for p in model.parameters()) + sizes == count
    assert tuple(model.features[49].weight.shape) == (512, 512, 3, 3)
    assert [type(m).__name__ for m in model.classifier[:3]] == ["Identity", "ReLU", "Dropout"]


# Some of the names and shapes in torchvision's checkpoints.
SHAPES = {
    "alexnet": {"features.10.weight": (256, 256, 3, 3), "classifier.6.bias": (1000,)},
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7), "layer1.1.bn2.running_mean": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer4.1.conv2.weight": (512, 512, 3, 3),
        "layer3.0.downsample.1.num_batches_tracked": (), "fc.weight": (1000, 512),
    },
    "resnet50": {
        "layer1.0.conv3.weight": (256, 64, 1, 1), "layer3.5.bn3.bias": (1024,),
        "fc.weight": (1000, 2048),
    },
    "resnext50_32x4d": {"layer1.0.conv2.weight": (128, 4, 3, 3)},
    "inception_v3": {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_6a.branch3x3dbl_3.bn.weight": (96,),
        "Mixed_6c.branch7x7_2.conv.weight": (160, 160, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "AuxLogits.conv1.conv.weight": (768, 128, 5, 5),
        "AuxLogits.fc.weight": (1000, 768), "fc.weight": (1000, 2048),
    },
}  # fmt: skip
ENTRIES = {
    "alexnet": 16, "resnet18": 122, "resnet50": 320, "resnext50_32x4d": 320, "inception_v3": 580,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    state = models.get_model(name).state_dict()
    assert len(state) == ENTRIES[name]
    assert {key: tuple(state[key].shape) for key in SHAPES[name]} == SHAPES[name]


def small(**options: Any) -> Any:
    """A residual network of one block a stage."""
    from graphflow.vision.models.resnet import BasicBlock

    model = models.ResNet(BasicBlock, (1, 1, 1, 1), num_classes=4, **options)
    rng = np.random.default_rng(1)
    for parameter in model.parameters():
        values = rng.standard_normal(tuple(parameter.shape)).astype(np.float32)
        with gf.no_grad():
            parameter.copy_(gf.from_numpy(values * 0.1))
    return model


def images(count: int, size: int) -> gf.Tensor:
    rng = np.random.default_rng(2)
    return gf.from_numpy(rng.random((count, 3, size, size)).astype(np.float32))


def test_a_residual_network_by_its_definition() -> None:
    model = small().eval()
    x = images(2, 32)
    out = model.maxpool(gf.relu(model.bn1(model.conv1(x))))
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        block = stage[0]
        inner = block.bn2(block.conv2(gf.relu(block.bn1(block.conv1(out)))))
        out = gf.relu(inner + (out if block.downsample is None else block.downsample(out)))
    expected = model.fc(out.mean((2, 3)))
    np.testing.assert_allclose(model(x).detach(), expected.detach(), rtol=1e-4, atol=1e-5)
    assert tuple(model.features(x).shape) == (2, 512)


def test_dilation_keeps_the_size() -> None:
    from graphflow.vision.models.resnet import Bottleneck

    dilated = {"replace_stride_with_dilation": (False, True, True)}
    model = models.ResNet(Bottleneck, (1, 1, 1, 1), 4, **dilated).eval()
    assert tuple(model.layer4(model.layer3(gf.zeros(1, 512, 6, 6))).shape) == (1, 2048, 6, 6)
    plain = models.ResNet(Bottleneck, (1, 1, 1, 1), 4).eval()
    assert tuple(plain.layer4(plain.layer3(gf.zeros(1, 512, 6, 6))).shape) == (1, 2048, 2, 2)
    with pytest.raises(ValueError, match="3 entries"):
        models.ResNet(Bottleneck, (1, 1, 1, 1), 4, replace_stride_with_dilation=[True])


def test_a_view_after_an_activation_in_place_compiles_and_differentiates() -> None:
    weight = gf.from_numpy(np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4))

    def loss(w: gf.Tensor) -> gf.Tensor:
        x = w * 2
        view = x.reshape(2, 16)
        x.relu_()
        pooled = gf.nn.functional.max_pool2d(x, 2)
        return (pooled * pooled).sum() + view.sum()

    def gradient(w: gf.Tensor) -> gf.Tensor:
        leaf = (w * 1).detach().requires_grad_()
        (made,) = gf.autograd.grad(loss(leaf), leaf)
        return made

    np.testing.assert_allclose(gf.compile(gradient)(weight), gradient(weight), rtol=1e-6)


# ---- weights --------------------------------------------------------------------------------


def test_weights_from_files_and_addresses(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_chosen", tmp_path / "hub")
    state = {"weight": gf.ones(3, 2) * 0.5, "bias": gf.ones(3) * 0.5}
    gf.save(state, tmp_path / "a.pt")
    gf.save({"state_dict": state, "epoch": 1}, tmp_path / "a.safetensors")
    digest = hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
    named = tmp_path / f"small-{digest[:8]}.pth"
    named.write_bytes((tmp_path / "a.pt").read_bytes())
    behind = f"{(tmp_path / 'a.pt').as_uri()}#sha256={digest}"
    files = (tmp_path / "a.pt", str(tmp_path / "a.safetensors"), named.as_uri(), behind, state)
    for given in files:
        for pretrained, weights in ((None, given), (given, None)):
            model = built(lambda: gf.nn.Linear(2, 3), "small", pretrained, weights, progress=False)
            assert model.weight.detach().numpy().min() == 0.5
    (tmp_path / "hub" / "checkpoints" / named.name).write_bytes(b"damaged")
    built(lambda: gf.nn.Linear(2, 3), "small", None, named.as_uri(), progress=False)  # fetched anew


def test_a_network_takes_weights(tmp_path: pathlib.Path) -> None:
    state = models.resnet18(num_classes=3).state_dict()
    state["fc.bias"] = gf.tensor([1.0, 2.0, 3.0])
    gf.save(state, tmp_path / "a.pth")
    model = models.resnet18(str(tmp_path / "a.pth"), num_classes=3)
    assert model.fc.bias.detach().tolist() == [1, 2, 3]


@pytest.mark.parametrize("weights", [True, "DEFAULT", "IMAGENET1K_V1", "missing.pth"])
def test_what_to_pass_is_said(weights: Any) -> None:
    for options in ({"weights": weights}, {"pretrained": weights}):
        with pytest.raises(gf.GraphFlowError, match=r"alexnet: .*Pass weights=.*checksum"):
            models.alexnet(**options)


def test_torchvisions_lists_of_weights_are_empty() -> None:
    from graphflow.vision.models import AlexNet_Weights, ResNet18_Weights, VGG11_BN_Weights

    assert not [*ResNet18_Weights, *VGG11_BN_Weights, *AlexNet_Weights]
    with pytest.raises(AttributeError, match=r"ResNet18_Weights\.DEFAULT: no weights .* a file"):
        models.resnet18(weights=ResNet18_Weights.DEFAULT)
    with pytest.raises(AttributeError, match="has no attribute 'ResNet19_Weights'"):
        models.ResNet19_Weights  # noqa: B018


def test_weights_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    gf.save({"fc.weight": gf.ones(2, 2)}, tmp_path / "a.pt")
    with pytest.raises(gf.GraphFlowError, match=r"fc\.weight"):
        models.resnet18(weights=tmp_path / "a.pt")
    gf.save([1], tmp_path / "b.pt")
    with pytest.raises(gf.GraphFlowError, match="not a state dict but a list"):
        models.resnet18(weights=tmp_path / "b.pt")
    address = (tmp_path / "a.pt").as_uri()
    with pytest.raises(gf.GraphFlowError, match="no checksum"):
        models.resnet18(weights=address)
    with pytest.raises(gf.GraphFlowError, match="wrong checksum"):
        models.resnet18(weights=f"{address}#sha256=00000000", progress=False)
    with pytest.raises(ValueError, match="mean the same"):
        models.resnet18(True, weights="a")
    with pytest.raises(ValueError, match="known: alexnet"):
        models.get_model("resnet19")
    assert "resnet18" in models.list_models() and models.resnet18(pretrained=False).fc is not None


# ---- hub ------------------------------------------------------------------------------------


def test_hub_loads_from_a_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "helper_of_hub.py").write_text("VALUE = 7\n")
    (tmp_path / "hubconf.py").write_text(
        "dependencies = ['numpy']\n"
        "from helper_of_hub import VALUE\n"
        "def model(a, b=2):\n    'Makes it.'\n    return a, b, VALUE\n"
        "def _hidden(): pass\n"
    )
    assert gf.hub.load(tmp_path, "model", 1, source="local", b=3, trust_repo=True) == (1, 3, 7)
    assert gf.hub.list(tmp_path) == ["model"] and gf.hub.help(tmp_path, "model") == "Makes it."
    with pytest.raises(gf.GraphFlowError, match="no function 'other'"):
        gf.hub.load(tmp_path, "other", source="local")
    with pytest.raises(gf.GraphFlowError, match="source='local'"):
        gf.hub.load("pytorch/vision", "resnet18")
    with pytest.raises(gf.GraphFlowError, match=r"hubconf\.py"):
        gf.hub.load(tmp_path / "nowhere", "model", source="local")
    (tmp_path / "hubconf.py").write_text("dependencies = ['numpy', 'no_such_package']\n")
    with pytest.raises(gf.GraphFlowError, match="no_such_package"):
        gf.hub.list(tmp_path)


def test_hub_fetches_once(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    gf.save({"a": gf.ones(2)}, tmp_path / "a.pt")
    address = (tmp_path / "a.pt").as_uri()
    got = gf.hub.load_state_dict_from_url(address, tmp_path / "kept", file_name="b.pt")
    assert got["a"].tolist() == [1, 1] and "fetching" in capsys.readouterr().err
    (tmp_path / "a.pt").unlink()
    again = gf.hub.load_state_dict_from_url(address, tmp_path / "kept", file_name="b.pt")
    assert again["a"].tolist() == [1, 1] and not capsys.readouterr().err
    with pytest.raises(gf.GraphFlowError, match="could not download"):
        gf.hub.load_state_dict_from_url(address, tmp_path / "other", progress=False)
    with pytest.raises(gf.GraphFlowError, match="unknown kind of address"):
        gf.hub.download_url_to_file("ftp://x/y", tmp_path / "c")
