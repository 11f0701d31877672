"""Language models: they learn real text, load published names, and generate token by token."""

import importlib
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

import graphflow as gf

MODELS = pathlib.Path(__file__).parent.parent / "models"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script as if its folder were the current one."""
    monkeypatch.syspath_prepend(str(MODELS))
    yield importlib.import_module
    for name in ("harness", "gpt", "generation", "text"):
        sys.modules.pop(name, None)


@pytest.fixture
def tiny(load: Any) -> Any:
    """A GPT of one layer, 48 positions and 97 characters."""
    gf.manual_seed(0)
    return load("gpt").GPT(load("gpt").Config(97, 48, 32, layers=1, heads=2, dropout=0.1))


def test_gpt_trains_in_one_compiled_step(load: Any, tiny: Any) -> None:
    gpt, text = load("gpt"), load("text")
    optimizer = gf.optim.AdamW(gpt.decayed(tiny), lr=3e-3)
    step = gf.compile(gpt.training_step(tiny, optimizer))
    train, held_out = text.corpus()
    assert len(train) > 5 * len(held_out) > 0
    losses = [float(step(*batch)) for batch in text.Crops(train, 48, 8, steps=60, seed=0)]
    assert np.mean(losses[:3]) > 4.2 and np.mean(losses[-5:]) < 3.6
    explained = step.explain()
    assert not explained.host_ops
    assert tiny.lm_head.weight is tiny.transformer.wte.weight


def test_cached_generation_is_what_the_whole_text_gives(load: Any, tiny: Any) -> None:
    for length in (1, 7, 33, 42):  # less than a piece of the prompt, more, up to the end
        prompt = gf.randint(0, 97, (1, length))
        written, expected = tiny.generate(prompt, 6, greedy=True), prompt
        tiny.eval()
        with gf.no_grad():
            for _ in range(6):
                likeliest = tiny(expected)[:, -1:].argmax(-1)
                expected = gf.cat([expected, likeliest], 1)
        tiny.train()
        assert written.tolist() == expected.tolist()
    programs = tiny.generations[1].programs
    assert len(programs) == 4, "two for pieces of the prompt, for four tokens, for one token"
    for program in programs.values():
        assert program.explain().recompiles == () and not program.explain().host_ops


def test_sampling_repeats_with_its_seed(load: Any, tiny: Any) -> None:
    prompt, options = gf.tensor([[5, 6], [7, 8]]), {"top_k": 20, "top_p": 0.9}
    drawn = []
    for seed in (1, 1, 2):
        gf.manual_seed(seed)
        drawn.append(tiny.generate(prompt, 12, temperature=0.8, **options).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0][:2] == [5, 6] and len(drawn[0][0]) == 14
    for step in tiny.generations[2].programs.values():
        schedule = step.programs[0].schedule
        written = set(schedule.committed)
        copies = [s for s in schedule.steps if s.writes & written and "copy" in s.kernel.name]
        assert all(s.bytes <= 32 for s in copies), "a number is, but not the cache"


def test_what_sampling_keeps(load: Any) -> None:
    generation = load("generation")
    shares = np.array([[0.1, 0.5, 0.15, 0.25], [0.96, 0.02, 0.01, 0.01]], np.float32)
    logits = gf.from_numpy(np.log(shares))
    kept = lambda x: np.isfinite(x.numpy()).tolist()  # noqa: E731
    assert kept(generation.keep_top_k(logits, 2)) == [
        [False, True, False, True], [True, True, False, False],
    ]  # fmt: skip
    assert kept(generation.keep_top_p(logits, 0.7)) == [
        [False, True, False, True], [True, False, False, False],
    ]  # fmt: skip
    assert kept(generation.keep_top_p(logits, 1e-6)) == [
        [False, True, False, False], [True, False, False, False],
    ]  # fmt: skip
    gf.manual_seed(0)
    many = gf.from_numpy(np.log(shares[:1])).expand(4000, 4)
    counts = np.bincount(generation.sample(many, 1.0).numpy()[:, 0], minlength=4) / 4000
    np.testing.assert_allclose(counts, shares[0], atol=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 60}, "do not fit"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_wrong_options(tiny: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.generate(gf.tensor([[1, 2]]), **({"max_new_tokens": 4} | options))


def test_published_names_load(load: Any, tiny: Any, tmp_path: pathlib.Path) -> None:
    gpt = load("gpt")
    rng = np.random.default_rng(0)
    published = {
        name.removeprefix("transformer."): gf.from_numpy(
            rng.standard_normal(tuple(value.shape)).astype(np.float32)
        )
        for name, value in tiny.state_dict().items()
        if name != "lm_head.weight"
    }
    assert published["h.0.attn.c_attn.weight"].shape == (32, 96)
    gf.save(published | {"h.0.attn.bias": gf.ones(1, 1, 48, 48)}, tmp_path / "model.safetensors")
    gpt.load_pretrained(tiny, tmp_path / "model.safetensors")
    for name, value in published.items():
        assert gf.equal(tiny.state_dict()[f"transformer.{name}"], value)
    assert gf.equal(tiny.lm_head.weight, published["wte.weight"])


def test_the_script(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gpt, harness = load("gpt"), load("harness")
    gpt.CHARACTERS = gpt.Config(97, 48, 32, layers=1, heads=2, dropout=0.1)
    gpt.STEPS, gpt.BATCH = 3, 4
    (run,) = harness.main(gpt.TASK, ["--epochs", "2"])
    assert len(run.losses) == 6 and run.result < 5
    out = capsys.readouterr().out
    assert "validation loss" in out and "written greedily:\ndef " in out
    (run,) = harness.main(gpt.TASK, ["--minutes", "1e-6"])
    assert len(run.losses) == 1
