"""A sequence that also enters the embedding, by the mean of its tokens."""

from __future__ import annotations

import pytest
import torch

from support.told_unet import CONDITIONS, LENGTH, randomised, state, told, unet
from trilemma.errors import UsageError
from trilemma_plugins.unet.transformer import TransformerBlock

SEQUENCE = CONDITIONS["sequence"]


def deaf_to_its_context(net):
    """The network without what its transformer blocks say."""
    for layer in net.modules():
        if isinstance(layer, TransformerBlock):
            layer.outlet.weight.zero_()
            layer.outlet.bias.zero_()
    return net


@pytest.mark.parametrize("pooled", [False, True])
def test_it_is_heard_without_attention(pooled):
    net = deaf_to_its_context(randomised(unet(SEQUENCE, pooled=pooled)))
    z, t = state(1)
    first, second, absent = (
        net(z, t, **told(net, 1, text=text)) for text in ("a thin one", "a bold one", None)
    )
    heard = min(float((first - second).abs().max()), float((first - absent).abs().max()))
    assert (heard > 1e-4) == pooled


def test_the_mean_is_that_of_the_tokens_and_of_the_whole_null():
    net = randomised(unet(SEQUENCE, pooled=True))
    cond = told(net, 2, text=["a thin one", None])
    context = net.text_context(cond["text"], cond["text_mask"])
    mean = net.text_context.pooled(context, cond["text_mask"])
    torch.testing.assert_close(mean, torch.stack([context[0, :3].mean(0), context[1].mean(0)]))
    short = net.text_context.pooled(context[:1], cond["text_mask"][:1, :3])
    assert context.shape[1] == LENGTH
    assert torch.equal(short, mean[:1])


def test_there_must_be_a_sequence(one_line):
    with pytest.raises(UsageError, match="without a sequence") as caught:
        unet(CONDITIONS["class"], pooled=True)
    one_line(caught.value)
