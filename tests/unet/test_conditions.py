"""The conditions of the U-Net: heard, dropped to a learned null, and never moved by padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import trilemma
from support.told_unet import ALL, CONDITIONS, LENGTH, VALUES, WORDS, randomised, state, told, unet
from trilemma.errors import UsageError
from trilemma.interfaces.condition import (
    ImageCondition,
    ScalarCondition,
    TextCondition,
)
from trilemma.numerics.resizing import resized
from trilemma.testing.denoisers import denoiser_checks
from trilemma.testing.outcome import Skipped
from trilemma_plugins.unet.conditioning import SequenceContext, VectorEmbedding
from trilemma_plugins.unet.unet import UNet

kinds = pytest.mark.parametrize("kind", CONDITIONS)


@kinds
def test_each_kind_is_heard_after_a_few_steps(kind):
    condition = CONDITIONS[kind]
    net = unet(condition)
    cond = told(net, 3, **{condition.name: [*VALUES[kind], None]})
    z, t = state(3)
    wanted = torch.tensor([-1.0, 1.0, 0.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        # One state, so that the condition alone tells the answers apart.
        (net(z[:1].expand(3, -1, -1, -1), t[:1].expand(3), **cond) - wanted).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        found = net(z[:1].expand(3, -1, -1, -1), t[:1].expand(3), **cond).mean((1, 2, 3))
    torch.testing.assert_close(found, wanted[:, 0, 0, 0], rtol=0, atol=0.4)


@kinds
def test_dropped_in_training_is_absent_in_sampling(kind):
    condition = CONDITIONS[kind]
    net = randomised(unet(condition))
    z, t = state(2)
    given = told(net, 2, **{condition.name: list(VALUES[kind])})
    dropped = condition.drop(given, torch.tensor([False, True]))
    answers = net(z, t, **given), net(z, t, **dropped), net(z, t, **told(net, 2))
    assert torch.equal(answers[1][0], answers[0][0])
    assert torch.equal(answers[1][1], answers[2][1])
    assert (answers[0] - answers[2]).abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("kind", ["scalar", "image", "vector", "sequence"])
def test_the_null_is_a_parameter_that_only_an_absent_value_reads(kind):
    condition = CONDITIONS[kind]
    net = randomised(unet(condition))
    z, t = state(1)
    value = "six words make a whole sequence" if kind == "sequence" else VALUES[kind][1]
    given, absent = told(net, 1, **{condition.name: value}), told(net, 1)
    before = net(z, t, **given), net(z, t, **absent)
    (null,) = (parameter for name, parameter in net.named_parameters() if name.endswith(".null"))
    null.add_(torch.randn(null.shape, generator=torch.Generator().manual_seed(2)))
    assert torch.equal(net(z, t, **given), before[0])
    assert (net(z, t, **absent) - before[1]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["image", "vector", "sequence"])
def test_an_absent_value_is_answered_as_the_null_that_was_learned(kind):
    condition = CONDITIONS[kind]
    net = randomised(unet(condition))
    z, t = state(1)
    (null,) = (parameter for name, parameter in net.named_parameters() if name.endswith(".null"))
    present = {
        name: torch.ones(1, *([LENGTH] * ("mask" in name)), dtype=torch.bool)
        for name in condition.keywords[1:]
    }
    assert torch.equal(net(z, t, **{condition.name: null[None]}, **present), net(z, t, **told(net, 1)))


@pytest.mark.parametrize("kind", ["scalar", "image", "vector", "sequence"])
def test_values_that_are_not_given_are_never_read(kind):
    condition = CONDITIONS[kind]
    net = randomised(unet(condition))
    z, t = state(2)
    cond = told(net, 2)
    spoiled = {
        name: torch.full_like(entry, torch.nan) if entry.is_floating_point() else entry
        for name, entry in cond.items()
    }
    assert torch.equal(net(z, t, **spoiled), net(z, t, **cond))
    net.requires_grad_(True)(z, t, **spoiled).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("places", [3, LENGTH, 2 * LENGTH])
def test_padding_changes_no_bit(places, grad):
    net = randomised(unet(CONDITIONS["sequence"]))
    z, t = state(2)
    embeddings, mask = WORDS.encode(["a thin one", "a bold"])
    tokens = mask.shape[1]
    wide, wide_mask = torch.full((2, places, WORDS.width), 7.0), torch.zeros(2, places, dtype=torch.bool)
    wide[:, :tokens], wide_mask[:, :tokens] = embeddings, mask
    with torch.set_grad_enabled(grad):
        expected = net(z, t, **told(net, 2, text=["a thin one", "a bold"]))
        assert torch.equal(net(z, t, text=wide, text_mask=wide_mask), expected)


def test_texts_of_several_lengths_answer_as_they_do_alone():
    net = randomised(unet(CONDITIONS["sequence"]))
    z, t = state(4)
    texts = ["one", "a thin one", None, "six words make a whole sequence"]
    whole = net(z, t, **told(net, 4, text=texts))
    for i, text in enumerate(texts):
        alone = net(z[i : i + 1], t[i : i + 1], **told(net, 1, text=text))
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=1e-6)


def test_words_are_told_and_their_order_is_left_to_the_encoder():
    net = randomised(unet(CONDITIONS["sequence"])).double()
    z, t = (entry.double() for entry in state(1))
    first, turned, other = (
        net(z, t, **told(net, 1, text=text)) for text in ("a thin one", "one thin a", "a bold one")
    )
    torch.testing.assert_close(turned, first, rtol=0, atol=1e-12)
    assert (first - other).abs().max() > 1e-4


@pytest.mark.parametrize("time", ["adagn", "add"])
def test_the_kit_passes_with_all_conditions_at_once(time):
    net = randomised(unet(*ALL, time=time, patch=2, transformer=(4,)))
    checks = [
        entry for entry in denoiser_checks(net) if time == "add" or entry[0] != "compiles into one graph"
    ]
    assert len(checks) > 8
    for _, check in checks:
        try:
            check()
        except Skipped:
            continue


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_answer_nearly_alike(dtype):
    net = randomised(unet(*CONDITIONS.values()))
    z, t = state(2)
    cond = told(net, 2, **{c.name: list(VALUES[kind]) for kind, c in CONDITIONS.items()})
    expected = net(z, t, **cond)
    answer = net.to(dtype)(z.to(dtype), t, **cond)
    assert answer.dtype == dtype
    assert (answer.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_sizes_of_the_parts():
    width, channels = 32, 16
    plain = size(unet(transformer=()))
    part = {
        "class": 4 * width,
        "scalar": channels * width + width + width * width + width + channels,
        "image": 16 + channels * 9,
        "vector": 2 * 12 + 12 * width + width + 12,
    }
    for kind, extra in part.items():
        assert size(unet(CONDITIONS[kind], transformer=())) == plain + extra, kind
    block = 2 * channels + 2 * (channels * channels + channels)  # the GroupNorm, and the maps in and out
    block += 2 * 2 * channels + 4 * channels * channels + channels  # two LayerNorms, self-attention
    block += (
        channels * 8 * channels + 8 * channels + 4 * channels * channels + channels
    )  # the feed-forward part
    cross = 2 * channels + channels * channels + width * 2 * channels + channels * channels + channels
    blocks = 4  # one down, one in the middle, two up
    assert size(unet()) == plain + blocks * block
    context = LENGTH * 12 + 2 * 12 + 12 * width + width
    assert size(unet(CONDITIONS["sequence"])) == plain + blocks * (block + cross) + context


def size(net: UNet) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_perturbed_attention_is_that_of_pixels_to_pixels():
    net = randomised(unet(CONDITIONS["sequence"]))
    seen = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append((q.shape, k.shape))
        return v

    twin = net.with_attention(attend)
    z, t = state(2)
    cond = told(net, 2, text=["a thin one", "a bold one"])
    before = net(z, t, **cond)
    assert (twin(z, t, **cond) - before).abs().max() > 1e-5
    assert seen == [((2, 2, 64, 8), (2, 2, 64, 8))] * 4
    assert torch.equal(net(z, t, **cond), before)
    assert twin.text_context.null is net.text_context.null


def test_a_transformer_block_attends_in_training_as_in_sampling():
    net = randomised(unet(CONDITIONS["sequence"]))
    z, t = state(2)
    cond = told(net, 2, text=["a thin one", None])
    with torch.enable_grad():
        trained = net(z, t, **cond)
    with torch.no_grad():
        sampled = net(z, t, **cond)
    torch.testing.assert_close(trained, sampled, atol=1e-5, rtol=1e-5)


def test_a_new_transformer_block_changes_nothing():
    plain, blocks = unet(transformer=()), unet(CONDITIONS["sequence"])
    for part in ("time_embedding", "inlet", "down.0.0", "up.0.0", "up.1.0", "norm"):
        blocks.get_submodule(part).load_state_dict(plain.get_submodule(part).state_dict())
    for here, there in ((0, 0), (2, 1)):
        blocks.middle[here].load_state_dict(plain.middle[there].state_dict())
    with torch.no_grad():
        for net in (plain, blocks):
            net.outlet.weight.fill_(0.1)
    z, t = state(2)
    assert torch.equal(blocks(z, t, **told(blocks, 2, text="a thin one")), plain(z, t))


def test_the_shorthand_for_classes_keeps_its_names():
    short, long = unet(classes=3), unet(CONDITIONS["class"])
    assert short.conditions == long.conditions
    assert list(short.state_dict()) == list(long.state_dict())
    assert short.class_embedding.weight.shape == (4, 32)
    assert all(torch.equal(short.state_dict()[name], entry) for name, entry in long.state_dict().items())


@pytest.mark.parametrize("rule", ["nearest", "bilinear", "bicubic"])
def test_an_image_is_seen_at_the_size_of_the_data_by_its_rule(rule):
    small = randomised(unet(ImageCondition("low", (1, 4, 4), resize=rule)))
    whole = randomised(unet(ImageCondition("low", (1, 8, 8), resize="exact")))
    z, t = state(2)
    image = 2 * torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2)) - 1
    assert torch.equal(small(z, t, low=image), whole(z, t, low=resized(image, (8, 8), rule)))


@pytest.mark.parametrize("kind", ["vector", "sequence"])
def test_the_scale_of_an_encoder_does_not_matter(kind):
    condition = CONDITIONS[kind]
    net = randomised(unet(condition)).double()
    z, t = (entry.double() for entry in state(1))
    cond = told(net, 1, **{condition.name: "six words make a whole sequence"})
    louder = {**cond, condition.name: 10 * cond[condition.name]}
    torch.testing.assert_close(net(z, t, **louder), net(z, t, **cond), rtol=0, atol=1e-4)


def test_parts_cast_their_conditions_themselves():
    """Conditions come in float32, whatever the network's dtype."""
    context = SequenceContext(TextCondition("text", WORDS, length=3), 8).to(torch.bfloat16)
    assert context(torch.randn(1, 2, 12), torch.ones(1, 2, dtype=torch.bool)).dtype == torch.bfloat16
    vector = VectorEmbedding(TextCondition("text", WORDS, form="vector"), 8).to(torch.float64)
    assert vector(torch.randn(1, 12), torch.ones(1, dtype=torch.bool)).dtype == torch.float64


def test_samples_follow_text_under_guidance_and_do_not_depend_on_their_batch():
    net = randomised(unet(CONDITIONS["sequence"], CONDITIONS["class"]))
    options = {"sampler": "ddim", "steps": 3, "seed": 5, "guidance": "cfg:scale=3,drop=text"}
    cond = {"text": ["a thin one", "two bold ones"], "class": [0, 2]}
    both = trilemma.sample(net, 2, cond=cond, **options).samples
    other = trilemma.sample(net, 2, cond=cond | {"text": "else"}, **options).samples
    alone = trilemma.sample(net, 2, cond=cond, batch_size=1, **options).samples
    assert (both - other).abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-4)


def test_the_kit_passes_with_a_draw_of_its_own_and_the_time_to_go_to():
    net = randomised(unet(latent=5, takes_to=True))
    assert net.draws == {"latent": (5,)}
    for name, check in denoiser_checks(net):
        if name not in ("compiles into one graph", "conditions are taken, with and without null"):
            check()


def test_its_own_draw_and_the_time_to_go_to_are_heard():
    net = randomised(unet(latent=5, takes_to=True))
    z, t = state(1)
    latent, to = torch.zeros(1, 5), torch.full((1,), 0.1)
    answer = net(z, t, latent=latent, to=to)
    for other in ({"latent": latent + 1, "to": to}, {"latent": latent, "to": to / 2}):
        assert (net(z, t, **other) - answer).abs().max() > 1e-4


def test_samples_of_its_own_draws_do_not_depend_on_their_batch():
    net = randomised(unet(latent=5, takes_to=True))
    options = {"sampler": "ddim", "steps": 2, "seed": 5}
    both = trilemma.sample(net, 2, **options).samples
    alone = trilemma.sample(net, 2, batch_size=1, **options).samples
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("conditions", "options", "message"),
    [
        ([CONDITIONS["sequence"]], {"transformer": ()}, "no block attends to the sequence 'text'"),
        ([ScalarCondition("time")], {}, "the name 'time' of a condition is taken"),
        ([TextCondition("latent", WORDS)], {"latent": 3}, "the name 'latent' of a condition is taken"),
        ([ImageCondition("low", (1, 4, 4), resize="exact")], {}, "exactly 4×4 and the data 8×8"),
        ([], {"attention": (8,)}, "resolution 8 has a transformer block"),
        ([], {"transformer": (5,)}, "transformer=5 is no resolution"),
        ([], {"transformer": (8,), "head": 7}, "head=7 must divide"),
        ([CONDITIONS["class"]], {"classes": 3}, "'class'"),
        ([{"kind": "sound"}], {}, "kind='sound'"),
    ],
)
def test_what_does_not_fit_is_a_one_line_error(conditions, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        unet(*conditions, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
