"""Cascades: each stage continues the images of the one before, and the law is that of the conditionals."""

from __future__ import annotations

import json

import pytest
import torch

import trilemma
from support.conditional_gaussian import ConditionalGaussian
from support.linear_codes import LinearCodes
from trilemma import Cascade, Stage
from trilemma.cli.app import main
from trilemma.engine.cascade import stage_seed
from trilemma.engine.noise import InjectedNoise
from trilemma.errors import ModelError, UsageError
from trilemma.models.building import build
from trilemma.models.card import read_card, save_model
from trilemma.output import provenance
from trilemma.testing import GaussianDenoiser

PROCESS = trilemma.process("vp-continuous")
# x₁ ~ N(0.3, 0.49), x₂ | x₁ ~ N(0.8 x₁ − 0.1, 0.09), x₃ | x₂ ~ N(1.1 x₂ + 0.2, 0.04)
FIRST, SECOND, THIRD = (0.3, 0.49), (0.8, -0.1, 0.09), (1.1, 0.2, 0.04)
FINE = {"sampler": "dpmpp-2m", "steps": 500}


def low() -> GaussianDenoiser:
    return GaussianDenoiser(PROCESS, *FIRST, "v", (1, 2, 2))


def high(numbers: tuple[float, float, float] = SECOND, side: int = 4, **options) -> ConditionalGaussian:
    return ConditionalGaussian(PROCESS, "v", (1, side, side), *numbers, **options)


@pytest.fixture
def cascade() -> Cascade:
    """Three stages, on 2×2, 4×4 and 8×8 pixels."""
    return Cascade(
        [
            Stage(low(), steps=4),
            Stage(high(), steps=5, clip=False),
            Stage(high(THIRD, 8), steps=6, clip=False),
        ]
    )


@pytest.fixture
def folder(tmp_path, register):
    register("denoiser", "test-gaussian", GaussianDenoiser)
    register("denoiser", "test-conditional", ConditionalGaussian)
    shared = {"process": {"spec": "vp-continuous"}}
    save_model(
        tmp_path / "low",
        {
            **shared,
            "model": {"name": "low"},
            "denoiser": {"spec": "test-gaussian", "parameterization": "v", "options": {"mean": 0.3}},
            "data": {"shape": [1, 2, 2]},
        },
        {},
    )
    save_model(
        tmp_path / "high",
        {
            **shared,
            "model": {"name": "high"},
            "denoiser": {"spec": "test-conditional", "parameterization": "v", "options": {"shift": 0.5}},
            "data": {"shape": [1, 4, 4]},
            "sampling": {"steps": 7},
        },
        {},
    )
    card = {
        "model": {"name": "both", "kind": "cascade"},
        "stage": [{"model": "../low", "sampler": "ddim", "steps": 3}, {"model": "../high", "image": "low"}],
    }
    save_model(tmp_path / "both", card, {})
    return tmp_path / "both"


def flowed(model: trilemma.Denoiser, count: int, seed: int) -> torch.Tensor:
    """u of x = mean + deviation · u, by which the exact flow carries the prior states of a model's samples."""
    states = trilemma.sample(
        GaussianDenoiser(PROCESS, 0.0, 1.0, "v", model.shape),
        count,
        seed=seed,
        steps=1,
        trajectory=True,
        dtype="float64",
    )
    return states.trajectory[0]


def carried(states: torch.Tensor, mean: torch.Tensor | float, variance: float) -> torch.Tensor:
    """The exact flow of z at t = 1 to mean + s (z − α mean)/√(α² s² + σ²)."""
    alpha, sigma = (entry.item() for entry in PROCESS.alpha_sigma(torch.ones(1, dtype=torch.float64)))
    return mean + variance**0.5 * (states - alpha * mean) / (alpha**2 * variance + sigma**2) ** 0.5


def twice(images: torch.Tensor) -> torch.Tensor:
    return images.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_two_stages_have_the_exact_joint_covariance():
    """x₁ ~ N(m, s²) and x₂ | x₁ ~ N(g x₁ + o, v): Var x₂ = g² s² + v, Cov = g s²."""
    made = Cascade([Stage(low(), **FINE), Stage(high(), **FINE, clip=False)])
    count = 400
    drawn = trilemma.sample(made, count, seed=5, all_stages=True, dtype="float64", batch_size=count)
    (first,) = drawn.stages
    u, w = flowed(low(), count, 5), flowed(high(), count, stage_seed(5, 1))
    exact = carried(u, *FIRST)
    torch.testing.assert_close(first, exact, atol=1e-4, rtol=0)
    gain, offset, variance = SECOND
    torch.testing.assert_close(
        drawn.samples, carried(w, gain * twice(exact) + offset, variance), atol=1e-3, rtol=0
    )

    # By the counted moments: 1,600 pairs of which each first number meets four second ones.
    x, y = twice(first).flatten(), drawn.samples.flatten()
    found = torch.cov(torch.stack([x, y]))
    s2 = FIRST[1]
    expected = torch.tensor([[s2, gain * s2], [gain * s2, gain**2 * s2 + variance]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=5 * 2**0.5 * s2 / (4 * count) ** 0.5, rtol=0)


def test_a_sample_is_the_same_alone_in_a_batch_and_in_any_chunking(cascade):
    whole = trilemma.sample(cascade, 20, seed=3, all_stages=True)
    for batch in (1, 7, 20):
        parts = trilemma.sample(cascade, 20, seed=3, all_stages=True, batch_size=batch)
        for ours, theirs in zip((whole.samples, *whole.stages), (parts.samples, *parts.stages), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    alone = trilemma.sample(cascade, indices=[17], seed=3, all_stages=True)
    torch.testing.assert_close(alone.samples[0], whole.samples[17], atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.stages[1][0], whole.stages[1][17], atol=1e-6, rtol=0)
    scattered = trilemma.sample(cascade, indices=[17, 2, 17], seed=3)
    torch.testing.assert_close(scattered.samples, whole.samples[[17, 2, 17]], atol=1e-6, rtol=0)


def test_in_batches_of_fixed_places_it_is_the_same_bits(cascade):
    whole = trilemma.sample(cascade, 70, seed=3, deterministic=True, all_stages=True)
    alone = trilemma.sample(cascade, indices=[66, 17], seed=3, deterministic=True, all_stages=True)
    assert torch.equal(alone.samples, whole.samples[[66, 17]])
    for ours, theirs in zip(alone.stages, whole.stages, strict=True):
        assert torch.equal(ours, theirs[[66, 17]])


def test_a_stage_can_be_drawn_again_by_itself(cascade):
    """By the seed in its record and the images of the stage before."""
    drawn = trilemma.sample(cascade, 6, seed=11, all_stages=True)
    records = drawn.provenance["stages"]
    first = trilemma.sample(cascade.stages[0].model, 6, seed=records[0]["seed"], steps=4)
    torch.testing.assert_close(first.samples, drawn.stages[0])
    assert records[0]["seed"] == 11
    images = first.samples
    for stage, record, expected in zip(
        cascade.stages[1:], records[1:], (*drawn.stages[1:], drawn.samples), strict=True
    ):
        images = trilemma.sample(
            stage.model,
            6,
            seed=record["seed"],
            steps=record["steps"],
            sampler=record["sampler"],
            cond={"low": images},
        ).samples
        torch.testing.assert_close(images, expected)


def test_no_two_stages_share_their_noise(cascade):
    seeds = [record["seed"] for record in trilemma.sample(cascade, 1).provenance["stages"]]
    assert len(set(seeds)) == 3
    assert seeds == [stage_seed(0, number) for number in range(3)]


def test_chunks_hand_out_the_stages_of_their_batch(cascade):
    whole = trilemma.sample(cascade, 5, all_stages=True)
    chunks = trilemma.sample_chunks(cascade, 5, batch_size=2, all_stages=True)
    for indices, samples in chunks:
        torch.testing.assert_close(samples, whole.samples[indices])
        assert [tuple(images.shape[1:]) for images in chunks.stages] == [(1, 2, 2), (1, 4, 4)]
        torch.testing.assert_close(chunks.stages[0], whole.stages[0][indices])
    assert trilemma.sample(cascade, 2).stages == ()


def test_the_record_says_what_every_stage_did(cascade):
    record = trilemma.sample(
        cascade, 2, cond={"class": 1}, stages={2: {"sampler": "ddim", "steps": 9}}
    ).provenance
    assert [stage["steps"] for stage in record["stages"]] == [4, 9, 6]
    assert record["stages"][1]["sampler"].startswith("ddim")
    assert [stage["model"]["name"] for stage in record["stages"]] == [
        "GaussianDenoiser",
        *["ConditionalGaussian"] * 2,
    ]
    assert record["stages"][1]["cond"] == {"class": 1, "low": "images of stage 1"}
    assert record["stages"][0]["cond"] == {}
    assert record["cond"] == {"class": 1}
    assert record["model"]["name"] == "cascade"
    assert record["sampler"] is record["steps"] is None
    assert [cost["nfe"] for cost in record["costs"]] == [4, 9, 6]
    assert record["nfe"] == 19
    json.dumps(record)


def test_options_of_a_stage_are_its_own(cascade):
    plain = trilemma.sample(cascade, 3, all_stages=True)
    changed = trilemma.sample(cascade, 3, all_stages=True, stages={2: {"steps": 30}})
    assert torch.equal(plain.stages[0], changed.stages[0])
    assert not torch.equal(plain.stages[1], changed.stages[1])
    told = Cascade([Stage(low()), Stage(high(shift=2.0), cond={"class": 2})])
    by_card, by_request, by_stage = (
        trilemma.sample(told, 200, **options).samples.mean()
        for options in (
            {},
            {"cond": {"class": 1}},
            {"cond": {"class": 1}, "stages": {2: {"cond": {"class": 0}}}},
        )
    )
    assert by_card - by_request == pytest.approx(2.0, abs=0.05)
    assert by_request - by_stage == pytest.approx(2.0, abs=0.05)


def test_images_are_clamped_on_their_way_where_the_stage_says_so():
    bright = GaussianDenoiser(PROCESS, 1.5, 0.01, "v", (1, 2, 2))
    clamped, free = (
        trilemma.sample(Cascade([Stage(bright), Stage(high((1.0, 0.0, 1e-4)), clip=clip)]), 50).samples.mean()
        for clip in (True, False)
    )
    assert clamped == pytest.approx(1.0, abs=0.03)
    assert free == pytest.approx(1.5, abs=0.03)


def test_guidance_evaluates_the_image_once_a_batch(cascade, monkeypatch):
    """The stage before is drawn once, though two branches are told its images."""
    drawn = []
    original = GaussianDenoiser.forward
    monkeypatch.setattr(
        GaussianDenoiser,
        "forward",
        lambda self, z, t, **cond: (drawn.append(len(z)), original(self, z, t, **cond))[1],
    )
    stage = Stage(high(shift=1.0, null=True), guidance="cfg:scale=2,drop=class", steps=3)
    trilemma.sample(Cascade([Stage(low(), steps=4), stage]), 5, cond={"class": 2}, all_stages=True)
    assert drawn == [5] * 4


def test_a_latent_stage_hands_on_its_images(tmp_path, register):
    register("autoencoder", "test-linear", LinearCodes)
    register("denoiser", "test-gaussian", GaussianDenoiser)
    card = {"model": {"name": "ae", "kind": "autoencoder"}, "autoencoder": {"spec": "test-linear"}}
    card["data"] = {"shape": [1, 2, 2]}
    save_model(tmp_path / "ae", card, build(card, seed=0).state_dict())
    latent = {
        "model": {"name": "codes"},
        "process": {"spec": "vp-continuous"},
        "denoiser": {"spec": "test-gaussian", "parameterization": "v"},
        "data": {"shape": [1, 2, 2]},
        "latent": {"autoencoder": "autoencoder"},
    }
    save_model(tmp_path / "latent", latent, {}, {"autoencoder": tmp_path / "ae"})
    made = Cascade([Stage(trilemma.load(tmp_path / "latent")), Stage(high((1.0, 0.0, 1e-6)))])
    drawn = trilemma.sample(made, 3, all_stages=True)
    assert drawn.stages[0].shape == (3, 1, 2, 2)
    torch.testing.assert_close(drawn.samples, twice(drawn.stages[0].clamp(-1, 1)), atol=0.02, rtol=0)
    assert drawn.provenance["stages"][0]["model"]["autoencoder"]["name"] == "ae"


def test_a_cascade_is_loaded_from_its_card(folder):
    loaded = trilemma.load(folder)
    assert isinstance(loaded, Cascade)
    assert loaded.name == "both"
    assert loaded.image_shape == (1, 4, 4)
    assert set(loaded.conditions) == {"class"}
    drawn = trilemma.sample(folder, 4)
    assert [stage["steps"] for stage in drawn.provenance["stages"]] == [3, 7]
    assert drawn.provenance["model"]["name"] == "both"
    table = read_card(folder)["stage"][0]
    assert table["sha256"] == read_card(folder / "../low")["weights"]["sha256"]


def test_the_card_of_a_cascade_that_cannot_be_is_refused(folder, one_line):
    text = (folder / "model.toml").read_text()
    for old, new, words in [
        (
            'image = "low"',
            'image = "class"',
            "stage 2: image='class' is no image condition of its model; name one of low",
        ),
        ('image = "low"', 'imgae = "low"', "did you mean 'stage.image'"),
        ("steps = 3", "steps = 0", "stage.steps = 0 is not a number of steps"),
        ("steps = 3", 'image = "low"', "stage 1 of a cascade has no stage before it"),
        ('model = "../low"', 'model = "../lwo"', "is no model directory"),
    ]:
        assert old in text
        (folder / "model.toml").write_text(text.replace(old, new))
        with pytest.raises(ModelError) as caught:
            trilemma.load(folder)
        assert words in one_line(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 5}, "steps= is for one model, and this is a cascade; give stages="),
        ({"sampler": "ddim"}, "sampler= is for one model"),
        ({"latent": torch.zeros(1, 1, 8, 8)}, "give one of its models alone"),
        ({"stages": {4: {"steps": 2}}}, "there is no stage 4; the cascade has 3"),
        ({"stages": {0: {"steps": 2}}}, "stages=0 is no number of a stage"),
        ({"stages": {1: {"stepps": 2}}}, "stage 1 has no option 'stepps'"),
        ({"stages": {2: {"sampler": "dimm"}}}, "stage 2: unknown sampler 'dimm'"),
        (
            {"cond": {"low": torch.zeros(1, 4, 4)}},
            "unknown condition 'low'; the stages of this cascade take: class",
        ),
    ],
)
def test_options_that_a_cascade_does_not_take_are_refused(cascade, options, words, one_line):
    with pytest.raises(trilemma.TrilemmaError) as caught:
        trilemma.sample(cascade, 2, **options)
    assert words in one_line(caught.value)


def test_options_of_a_cascade_are_no_options_of_a_model(one_line):
    for options in ({"stages": {1: {"steps": 2}}}, {"all_stages": True}):
        with pytest.raises(UsageError, match="is for a cascade") as caught:
            trilemma.sample(low(), 2, **options)
        one_line(caught.value)


def test_a_cascade_of_models_that_do_not_fit_is_refused():
    with pytest.raises(UsageError, match="two stages or more"):
        Cascade([Stage(low())])
    with pytest.raises(UsageError, match="give the model such a condition"):
        Cascade([Stage(low()), Stage(low())])
    with pytest.raises(UsageError, match="takes images of 1 channels and stage 1 makes 2"):
        Cascade([Stage(GaussianDenoiser(PROCESS, shape=(2, 2, 2))), Stage(high())])


def test_the_command_line_writes_every_stage_and_goes_on_where_it_was_stopped(folder, tmp_path, capsys):
    command = [
        "sample",
        str(folder),
        "-n",
        "6",
        "--out",
        str(tmp_path / "out"),
        "--stages",
        "--batch-size",
        "4",
    ]
    command += ["--stage", "2:steps=4,sampler=ddim(eta=0)", "--cond", "class=[0,1,2]", "--json"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert [stage["steps"] for stage in record["stages"]] == [3, 4]
    pictures = {path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}
    assert len(pictures) == 12
    assert provenance(tmp_path / "out" / "00000004.png")["cond"] == {"class": 1}
    assert provenance(tmp_path / "out" / "stage-1" / "00000004.png")["model"]["name"] == "low"

    (tmp_path / "out" / "00000004.png").unlink()
    (tmp_path / "out" / "stage-1" / "00000001.png").unlink()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["drawn"] == 2
    assert pictures == {
        path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / "out").rglob("*.png")
    }
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["drawn"] == 0
    command[command.index("2:steps=4,sampler=ddim(eta=0)")] = "2:steps=5"
    assert main(command) == 1
    assert "stages is" in capsys.readouterr().err


def test_a_picture_and_an_array_have_a_neighbour_for_each_stage(folder, tmp_path, capsys):
    for name, first in (("x.png", "x.stage-1.png"), ("x.npz", "x.stage-1.npz")):
        assert main(["sample", str(folder), "-n", "4", "--out", str(tmp_path / name), "--stages", "-q"]) == 0
        assert provenance(tmp_path / name)["model"]["name"] == "both"
        assert provenance(tmp_path / first)["model"]["name"] == "low"
    assert main(["sample", str(folder), "--out", str(tmp_path / "x.gif"), "--stages"]) == 2
    assert "the way of the last stage alone" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["steps=3", "2", "two:steps=3", "2:steps"])
def test_a_stage_that_is_misspelt_is_refused(folder, text, capsys):
    assert main(["sample", str(folder), "--stage", text]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "write" in error


def test_a_model_that_draws_nothing_is_refused(capsys):
    assert main(["sample", "mnist-features", "--start", "nowhere.png"]) == 2
    assert "DigitNetwork is not a denoiser" in capsys.readouterr().err


def test_a_kind_of_noise_is_for_all_stages_and_a_source_for_none(cascade):
    stages = {1: {"sampler": "ddim:eta=1"}, 2: {"sampler": "ddim:eta=1"}}
    drawn = trilemma.sample(cascade, 3, noise="brownian", stages=stages)
    assert drawn.provenance["noise"] == "BrownianNoise"
    alone = trilemma.sample(cascade, indices=[2], noise="brownian", stages=stages).samples
    torch.testing.assert_close(alone, drawn.samples[2:])
    assert not torch.allclose(drawn.samples, trilemma.sample(cascade, 3, stages=stages).samples)
    with pytest.raises(UsageError, match="noise= is for one model"):
        trilemma.sample(cascade, noise=InjectedNoise())
