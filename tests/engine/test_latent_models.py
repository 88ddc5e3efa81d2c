"""Latent models: their data are codes, and what comes in and goes out are images."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import trilemma
from support.linear_codes import ROWS, LinearCodes
from trilemma import Autoencoder
from trilemma.cli.app import main
from trilemma.errors import ModelError, PluginUnavailable, TrilemmaError, UsageError
from trilemma.models.building import build
from trilemma.models.card import read_card, save_model
from trilemma.testing import GaussianDenoiser

AUTOENCODER = {
    "model": {"name": "linear", "kind": "autoencoder"},
    "autoencoder": {"spec": "test-linear"},
    "data": {"shape": [1, 2, 2]},
}
MEAN, VARIANCE = 0.3, 0.49
LATENT = {
    "model": {"name": "codes"},
    "process": {"spec": "vp-continuous"},
    "denoiser": {
        "spec": "test-gaussian",
        "parameterization": "v",
        "options": {"mean": MEAN, "variance": VARIANCE},
    },
    "data": {"shape": [1, 2, 2]},
    "latent": {"autoencoder": "autoencoder"},
}
# μ, s and b of the autoencoder.
CODE_MEAN, CODE_DEVIATION = torch.tensor([0.5, -0.25]), torch.tensor([2.0, 0.5])
OFFSET = torch.tensor([0.1, 0.2, 0.3, 0.4])
FINE = {"sampler": "dpmpp-2m", "steps": 500, "dtype": "float64"}


def image_of(normalised: torch.Tensor) -> torch.Tensor:
    """The images of normalised codes [B, 2, 1, 1]."""
    return ((normalised.float().flatten(1) * CODE_DEVIATION + CODE_MEAN) @ ROWS + OFFSET).view(-1, 1, 2, 2)


@pytest.fixture
def autoencoder(tmp_path, register):
    register("autoencoder", "test-linear", LinearCodes)
    register("denoiser", "test-gaussian", GaussianDenoiser)
    made = build(AUTOENCODER, seed=0)
    with torch.no_grad():
        made.code_mean.copy_(CODE_MEAN)
        made.code_deviation.copy_(CODE_DEVIATION)
        made.offset.copy_(OFFSET)
    save_model(tmp_path / "ae", AUTOENCODER, made.state_dict())
    return tmp_path / "ae"


@pytest.fixture
def model(tmp_path, autoencoder):
    save_model(tmp_path / "latent", LATENT, {}, {"autoencoder": autoencoder})
    return tmp_path / "latent"


@pytest.fixture
def codes():
    """The same model of codes, seen as it is."""
    return GaussianDenoiser(trilemma.process("vp-continuous"), MEAN, VARIANCE, "v", (2, 1, 1))


def test_it_is_a_denoiser_of_codes_that_knows_its_images(model):
    loaded = trilemma.load(model)
    assert loaded.shape == (2, 1, 1)
    assert loaded.image_shape == (1, 2, 2)
    assert isinstance(loaded.view.autoencoder, Autoencoder)
    assert loaded.state_dict() == {}
    assert not next(iter(loaded.view.autoencoder.parameters())).requires_grad


def test_its_samples_have_the_exact_law_of_the_images(model, codes):
    """Each prior state z is carried by the flow to m + s (z − α m)/√(α² s² + σ²), and that is decoded."""
    drawn = trilemma.sample(model, 50, **FINE)
    assert drawn.samples.shape == (50, 1, 2, 2)
    states = trilemma.sample(codes, 50, trajectory=True, **FINE).trajectory[0]
    alpha, sigma = (entry.item() for entry in codes.process.alpha_sigma(torch.ones(1, dtype=torch.float64)))
    flowed = MEAN + VARIANCE**0.5 * (states - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2) ** 0.5
    torch.testing.assert_close(drawn.samples, image_of(flowed), atol=2e-4, rtol=0, check_dtype=False)


def test_any_chunking_gives_the_same_images(model):
    whole = trilemma.sample(model, 40, seed=3, steps=5).samples
    parts = list(trilemma.sample_chunks(model, 40, seed=3, steps=5, batch_size=7))
    torch.testing.assert_close(torch.cat([part for _, part in parts]), whole, atol=1e-6, rtol=0)
    exact = trilemma.sample(model, 40, seed=3, steps=5, deterministic=True).samples
    alone = trilemma.sample(model, indices=[17], seed=3, steps=5, deterministic=True).samples
    assert torch.equal(alone[0], exact[17])


def test_the_provenance_says_the_autoencoder(model, autoencoder):
    record = trilemma.sample(model, 2, steps=2).provenance["model"]
    assert record["name"] == "codes"
    stated = read_card(autoencoder)["weights"]["sha256"]
    assert record["autoencoder"] == {"name": "linear", "sha256": stated}


def test_states_are_codes(model):
    seen = []
    drawn = trilemma.sample(
        model, 3, steps=4, trajectory=True, callback=lambda row, rows, t, state: seen.append(state.clone())
    )
    assert drawn.trajectory.shape == (5, 3, 2, 1, 1)
    assert torch.equal(seen[-1], drawn.trajectory[-1])
    torch.testing.assert_close(image_of(drawn.trajectory[-1]), drawn.samples, atol=1e-6, rtol=0)


def test_a_stepped_program_ends_at_the_images(model):
    network = trilemma.load(model)
    stepper = trilemma.stepper(network, 3, steps=4)
    while not stepper.done:
        stepper.step(network(stepper.states, torch.full((3,), stepper.time)))
    torch.testing.assert_close(stepper.samples, trilemma.sample(model, 3, steps=4).samples)


def test_images_to_start_from_are_encoded(model):
    images = image_of(torch.tensor([[0.4, -0.2], [1.0, 0.1]]))
    drawn = trilemma.sample(model, start=images, strength=0.01, steps=200)
    assert drawn.samples.shape == images.shape
    torch.testing.assert_close(drawn.samples, images, atol=0.15, rtol=0)
    with pytest.raises(UsageError, match=r"start is \(2, 2, 1, 1\)"):
        trilemma.sample(model, start=torch.zeros(2, 2, 1, 1))


def test_images_are_inverted_through_their_codes(model):
    images = image_of(torch.tensor([[0.4, -0.2], [1.0, 0.1]]))
    inverted = trilemma.invert(model, images, sampler="ddim", steps=10)
    assert inverted.samples.shape == (2, 2, 1, 1)
    again = trilemma.sample(model, latent=inverted.samples, sampler="ddim", steps=10).samples
    torch.testing.assert_close(again, images, atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match="x is"):
        trilemma.invert(model, torch.zeros(2, 2, 1, 1))


def test_kept_pixels_are_kept_in_the_images(model, one_line):
    known, mask = image_of(torch.tensor([[0.4, -0.2]])), torch.ones(1, 1, 2, 2)
    drawn = trilemma.sample(model, 3, known=known, mask=mask, steps=4, trajectory=True)
    assert torch.equal(drawn.samples, known.expand(3, -1, -1, -1))
    torch.testing.assert_close(image_of(drawn.trajectory[-1]), known.expand(3, -1, -1, -1))
    mask[..., 0] = 0
    with pytest.raises(UsageError, match="keeps no whole patch of 2×2 pixels") as caught:
        trilemma.sample(model, known=known, mask=mask)
    one_line(caught.value)


def test_the_autoencoder_stays_in_float32(model):
    loaded = trilemma.load(model, dtype=torch.bfloat16)
    assert loaded.view.autoencoder.code_mean.dtype == torch.float32
    drawn = trilemma.sample(loaded, 4, steps=4, dtype="bfloat16")
    assert drawn.samples.dtype == torch.bfloat16


def test_an_image_that_is_not_finite_is_named(tmp_path, autoencoder):
    broken = build(AUTOENCODER, seed=0)
    with torch.no_grad():
        broken.offset.fill_(torch.inf)
    save_model(tmp_path / "broken", AUTOENCODER, broken.state_dict())
    save_model(tmp_path / "latent", LATENT, {}, {"autoencoder": tmp_path / "broken"})
    with pytest.raises(TrilemmaError, match="not finite in sample 0"):
        trilemma.sample(tmp_path / "latent", 2, steps=2)


def test_a_folder_of_its_images_is_gone_on_with(model, tmp_path, capsys):
    command = ["sample", str(model), "-n", "6", "--steps", "3", "--batch-size", "4", "--json", "--out"]
    command.append(str(tmp_path / "out"))
    assert main(command) == 0
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert len(pictures) == 6
    assert json.loads(capsys.readouterr().out)["model"]["autoencoder"]["name"] == "linear"
    for index in (1, 4):
        (tmp_path / "out" / f"{index:08d}.png").unlink()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["drawn"] == 2
    assert pictures == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}


def test_an_autoencoder_beside_the_model_is_found(tmp_path, autoencoder):
    card = {**LATENT, "latent": {"autoencoder": "../ae"}}
    save_model(tmp_path / "latent", card, {})
    assert trilemma.load(tmp_path / "latent").view.autoencoder.card["model"]["name"] == "linear"
    assert not (tmp_path / "latent" / "autoencoder").exists()


def test_another_autoencoder_than_it_was_trained_with_is_refused(tmp_path, model, one_line):
    other = build(AUTOENCODER, seed=0)
    save_model(model / "autoencoder", AUTOENCODER, other.state_dict())
    with pytest.raises(ModelError, match="is another model than") as caught:
        trilemma.load(model)
    one_line(caught.value)


def test_a_missing_autoencoder_and_a_model_of_another_kind_are_refused(tmp_path, model):
    shutil.rmtree(model / "autoencoder")
    with pytest.raises(PluginUnavailable, match="unknown model 'autoencoder'"):
        trilemma.load(model)
    shutil.copytree(trilemma.models.places.model_path("mnist"), model / "autoencoder")
    with pytest.raises(ModelError, match=r"latent\.autoencoder names a denoiser"):
        trilemma.load(model)


def test_a_latent_model_is_written_only_where_its_autoencoder_is(tmp_path, register):
    register("denoiser", "test-gaussian", GaussianDenoiser)
    with pytest.raises(PluginUnavailable, match="unknown model 'autoencoder'"):
        save_model(tmp_path / "latent", LATENT, {})
    assert not (tmp_path / "latent").exists()
    with pytest.raises(UsageError, match="give that autoencoder"):
        build(LATENT, seed=0)
