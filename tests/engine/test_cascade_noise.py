"""Noise on the images that a stage of a cascade is told: the law in closed form, stopped below or noised again."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.functional import avg_pool2d

import trilemma
from support.blocks import Blocks, spread
from trilemma import Cascade, Stage
from trilemma.cli.app import main
from trilemma.errors import ModelError, TrilemmaError, UsageError
from trilemma.models.card import save_model
from trilemma.numerics.noise_levels import level_of
from trilemma.testing import GaussianDenoiser

PROCESS = trilemma.process("vp-continuous")
BETWEEN, WITHIN = 0.25, 0.1
FINE = {"sampler": "dpmpp-2m", "steps": 60}
# Of the first stage's mean, and of the second's own, in a pattern of which the first sees nothing.
FAULT, OWN = 0.4, 0.3
PATTERN = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
LEVELS = (0.0, 0.2, 0.4, 0.55, 0.7, 0.85)
COUNT = 4000


def low(process: trilemma.Process = PROCESS, fault: float = 0.0) -> GaussianDenoiser:
    return GaussianDenoiser(process, fault, BETWEEN, "v", (1, 2, 2))


def high(**options) -> Blocks:
    return Blocks(PROCESS, "v", (1, 4, 4), between=BETWEEN, within=WITHIN, **options)


def drawn(
    made: Cascade, noise: float, truncated: bool = False, count: int = COUNT, **options
) -> torch.Tensor:
    return trilemma.sample(
        made,
        count,
        dtype="float64",
        batch_size=count,
        stages={2: {"noise": noise, "truncated": truncated}},
        **options,
    ).samples


def two(first: trilemma.Denoiser, second: Blocks) -> Cascade:
    return Cascade([Stage(first, **FINE), Stage(second, **FINE, clip=False)])


def weight(s: float) -> float:
    """Of the image that is told against what the second stage knows itself: a² V/(a² V + s²)."""
    signal = (1 - s**2) * BETWEEN
    return signal / (signal + s**2)


def distance(samples: torch.Tensor) -> float:
    """W₂² a block from N(0, BETWEEN) in its mean, all blocks being alike in their variance."""
    blocks = avg_pool2d(samples, 2).flatten(1)
    return float(blocks.mean(0).square().mean() + (blocks.std(0) - BETWEEN**0.5).square().mean())


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("s", [0.0, 0.3, 0.8])
def test_the_law_of_exact_stages_is_that_of_the_images(s, truncated):
    """Whichever the level, and whichever the way to it; z = D x is the mean of a block."""
    samples = drawn(two(low(), high()), s, truncated)
    covariance = torch.cov(samples.flatten(1).T)
    block = BETWEEN + WITHIN * (torch.eye(4) - 0.25)
    place = (
        torch.arange(16)
        .view(4, 4)
        .unflatten(0, (2, 2))
        .unflatten(2, (2, 2))
        .permute(0, 2, 1, 3)
        .reshape(4, 4)
    )
    expected = torch.zeros(16, 16, dtype=torch.float64)
    for pixels in place:
        expected[pixels[:, None], pixels] = block.double()
    deviation = (BETWEEN + WITHIN) * (2 / COUNT) ** 0.5
    torch.testing.assert_close(covariance, expected, atol=5 * deviation, rtol=0)
    assert float(samples.mean(0).abs().max()) < 5 * ((BETWEEN + WITHIN) / COUNT) ** 0.5


@pytest.mark.parametrize("truncated", [False, True])
def test_the_fault_of_a_stage_is_forgotten_by_the_weight_of_the_noise(truncated):
    """E z = w fault, for a first stage that stops as for one that finishes."""
    made = two(low(fault=FAULT), high())
    for s in (0.0, 0.3, 0.6):
        mean = float(drawn(made, s, truncated).mean())
        assert mean == pytest.approx(weight(s) * FAULT, abs=5 * (BETWEEN / COUNT / 4) ** 0.5)


def test_the_distance_has_its_minimum_between_no_noise_and_much():
    """Of w² fault² + (1 − w)² own²: both stages err, and the least is at w = own²/(fault² + own²)."""
    made = two(low(fault=FAULT), high(mean=OWN * PATTERN))
    found = [distance(drawn(made, s)) for s in LEVELS]
    expected = [weight(s) ** 2 * FAULT**2 + (1 - weight(s)) ** 2 * OWN**2 for s in LEVELS]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=0.012)
    best = found.index(min(found))
    assert LEVELS[best] == 0.55
    assert weight(0.55) == pytest.approx(OWN**2 / (OWN**2 + FAULT**2), abs=0.02)
    assert found[best] < 0.4 * found[0]
    assert found[best] < 0.8 * found[-1]


def test_a_stage_that_hears_no_level_gains_nothing_from_noise():
    heard = two(low(fault=FAULT), high(mean=OWN * PATTERN))
    deaf = two(low(fault=FAULT), high(mean=OWN * PATTERN, deaf=True))
    levels = LEVELS[:4]
    flat = [distance(drawn(deaf, s)) for s in levels]
    assert max(flat) < 1.15 * min(flat)
    assert distance(drawn(heard, levels[-1])) < 0.45 * min(flat)


def test_the_stage_before_may_have_another_process():
    """Its state is scaled to a² + s² = 1, and λ is what both know."""
    for spec in ("flow", "ve", "vp:schedule=cosine,T=1000"):
        process = trilemma.process(spec)
        samples = drawn(two(low(process), high()), 0.5, truncated=True)
        blocks = avg_pool2d(samples, 2).flatten()
        assert float(blocks.var()) == pytest.approx(BETWEEN, rel=0.06)


def test_a_stage_that_stops_pays_less_and_says_where():
    made = two(low(), high())
    whole, stopped = (
        trilemma.sample(made, 2, all_stages=True, stages={2: {"noise": 0.5, "truncated": truncated}})
        for truncated in (False, True)
    )
    nfe = [[cost["nfe"] for cost in result.provenance["costs"]] for result in (whole, stopped)]
    assert nfe[0] == [60, 60]
    assert nfe[1][0] < 60
    record = stopped.provenance["stages"][1]
    assert record["noise"] == pytest.approx(0.5)
    time = torch.tensor(record["stopped_at"], dtype=torch.float64)
    assert float(level_of(PROCESS.log_snr(time))) == pytest.approx(0.5)
    assert record["cond"]["low_level"] == pytest.approx(float(PROCESS.log_snr(time)))
    assert whole.provenance["stages"][1]["stopped_at"] is None
    assert "noise" not in whole.provenance["stages"][0]
    json.dumps(stopped.provenance)
    # The images of the stage that stopped are its states there.
    assert float(stopped.stages[0].sub(whole.stages[0]).abs().max()) > 0.05


def test_a_table_stops_at_one_of_its_times():
    process = trilemma.process("vp:schedule=cosine,T=1000")
    made = Cascade([Stage(low(process), **FINE), Stage(high(), truncated=True, noise=0.3)])
    record = trilemma.sample(made, 1).provenance["stages"][1]
    assert (record["stopped_at"] * 1000) == pytest.approx(round(record["stopped_at"] * 1000), abs=1e-9)
    assert 0.29 < record["noise"] <= 0.3


@pytest.mark.parametrize("truncated", [False, True])
def test_a_sample_is_the_same_alone_and_in_any_batch(truncated):
    made, options = two(low(), high()), {"stages": {2: {"noise": 0.4, "truncated": truncated}}, "seed": 3}
    whole = trilemma.sample(made, 9, **options).samples
    torch.testing.assert_close(
        trilemma.sample(made, 9, batch_size=4, **options).samples, whole, atol=1e-5, rtol=0
    )
    alone = trilemma.sample(made, indices=[7], **options).samples
    torch.testing.assert_close(alone[0], whole[7], atol=1e-5, rtol=0)
    assert not torch.allclose(trilemma.sample(made, 9, seed=3).samples, whole, atol=1e-2)


def test_the_noise_is_no_other_noise_of_the_stage(monkeypatch):
    """It is neither the state that the stage starts from nor that of images to start from."""
    told: list[torch.Tensor] = []
    original = Blocks.forward
    monkeypatch.setattr(
        Blocks,
        "forward",
        lambda self, z, t, **cond: (
            told.append((z.clone(), cond["low"].clone())),
            original(self, z, t, **cond),
        )[1],
    )
    made = Cascade([Stage(low(), steps=2), Stage(high(), steps=1, clip=False, noise=0.9)])
    trilemma.sample(made, 500, batch_size=500)
    state, image = told[0]
    for seen in (avg_pool2d(state, 2).flatten(1), state.flatten(1)[:, :4]):
        correlation = torch.corrcoef(torch.stack([seen.flatten(), image.flatten()]))[0, 1]
        assert abs(float(correlation)) < 5 / 2000**0.5


def test_without_a_level_a_cascade_is_as_before():
    """A stage whose model knows no level is told none, and no noise is put on its images."""
    made = two(low(), high(level="loudness"))
    assert made.stages[1].level is None
    with pytest.raises(UsageError, match="condition 'loudness' is missing"):
        trilemma.sample(made, 1)
    assert trilemma.sample(made, 1, cond={"loudness": 25.0}).samples.shape == (1, 1, 4, 4)
    named = Cascade([Stage(low()), Stage(high(level="loudness"), level="loudness", steps=2)])
    assert trilemma.sample(named, 1).provenance["stages"][1]["cond"]["loudness"] == 25.0
    assert "loudness" not in named.conditions


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: drawn(two(low(), high(level="other")), 0.2, count=1),
            "stage 2: its model is told no level of noise, which noise=0.2 needs",
        ),
        (
            lambda: drawn(two(low(), high()), 0.99, count=1),
            "stage 2: noise=0.99 is beyond what its model was trained with; give at most 0.904",
        ),
        (lambda: drawn(two(low(), high()), -0.1, count=1), "stage 2: noise=-0.1 is out of range"),
        (lambda: drawn(two(low(), high()), float("nan"), count=1), "stage 2: noise=nan is out of range"),
        (lambda: drawn(two(low(), high()), 0.2, 1, count=1), "truncated=1 is neither true nor false"),
        (
            lambda: trilemma.sample(two(low(), high()), stages={1: {"noise": 0.2}}),
            "stage 1: no images come from a stage before it",
        ),
        (lambda: trilemma.sample(two(low(), high()), stages={3: {"noise": 0.2}}), "there is no stage 3"),
        (
            lambda: trilemma.sample(two(low(), high()), cond={"low_level": 3.0}),
            "unknown condition 'low_level'",
        ),
        (lambda: Cascade([Stage(low()), Stage(high(), level="low")]), "level='low' is no scalar condition"),
        (
            lambda: Cascade([Stage(low()), Stage(high(), noise=0.95)]),
            "is beyond what its model was trained with",
        ),
        (
            lambda: Cascade(
                [Stage(GaussianDenoiser(PROCESS, shape=(1, 4, 4))), Stage(high(), noise=0.5, truncated=True)]
            ),
            "truncated needs a stage before it of one component, that draws images of the size of the condition",
        ),
        (lambda: trilemma.sample(low(), 1, stages={2: {"noise": 0.1}}), "is for a cascade"),
    ],
)
def test_what_cannot_be_is_refused(make, words, one_line):
    with pytest.raises(TrilemmaError) as caught:
        make()
    assert words in one_line(caught.value)


def test_the_card_and_the_command_line_say_it(tmp_path, register, capsys):
    register("denoiser", "test-gaussian", GaussianDenoiser)
    register("denoiser", "test-blocks", Blocks)
    for name, spec, side in (("low", "test-gaussian", 2), ("high", "test-blocks", 4)):
        card = {
            "model": {"name": name},
            "process": {"spec": "vp-continuous"},
            "denoiser": {"spec": spec, "parameterization": "v"},
            "data": {"shape": [1, side, side]},
        }
        save_model(tmp_path / name, card, {})
    stages = [
        {"model": "../low", "steps": 8},
        {"model": "../high", "noise": 0.5, "truncated": True, "steps": 3},
    ]
    save_model(tmp_path / "both", {"model": {"name": "both", "kind": "cascade"}, "stage": stages}, {})
    command = ["sample", str(tmp_path / "both"), "-n", "2", "--out", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["stages"][1]["noise"] == pytest.approx(0.5)
    assert (
        main(
            [
                *command[:-3],
                "--out",
                str(tmp_path / "other"),
                "--json",
                "--stage",
                "2:noise=0.1,truncated=false",
            ]
        )
        == 0
    )
    other = json.loads(capsys.readouterr().out)["stages"][1]
    assert (other["noise"], other["stopped_at"]) == (0.1, None)
    # Other noise is another set of samples.
    assert main([*command, "--stage", "2:noise=0.1"]) == 1
    assert "stages is" in capsys.readouterr().err

    text = (tmp_path / "both" / "model.toml").read_text()
    (tmp_path / "both" / "model.toml").write_text(text.replace("noise = 0.5", 'noise = "much"'))
    with pytest.raises(ModelError, match=r"stage.noise = 'much' is not a number"):
        trilemma.load(tmp_path / "both")


def test_blocks_are_exact():
    """The posterior mean of the test's own model, by drawing from it."""
    generator = torch.Generator().manual_seed(0)

    def normals(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    count, s = 200_000, 0.6
    means = BETWEEN**0.5 * normals(count, 1, 1, 1)
    inner = normals(count, 1, 2, 2)
    images = spread(means) + WITHIN**0.5 * (inner - spread(avg_pool2d(inner, 2)))
    told = (1 - s**2) ** 0.5 * means + s * normals(count, 1, 1, 1)
    t = torch.tensor([0.4], dtype=torch.float64)
    alpha, sigma = (float(entry) for entry in PROCESS.alpha_sigma(t))
    z = alpha * images + sigma * normals(count, 1, 2, 2)
    model = Blocks(PROCESS, "x0", (1, 2, 2), between=BETWEEN, within=WITHIN)
    log_snr = torch.full((count,), 2 * float(torch.tensor((1 - s**2) ** 0.5 / s).log()))
    error = images - model(z, t.expand(count), low=told, low_level=log_snr)
    # The error of a posterior mean has no part along what is known.
    for known in (z, spread(told)):
        assert float((error * known).mean().abs()) < 5 * float(error.std() * known.std()) / (4 * count) ** 0.5
