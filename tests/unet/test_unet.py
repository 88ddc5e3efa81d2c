"""The U-Net: shapes, conditioning, sizes, and what a fresh network must be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.errors import UsageError
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.unet.blocks import TimeEmbedding
from trilemma_plugins.unet.unet import UNet

PROCESS = DiscreteVP()


def parameters(**options):
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(PROCESS, **options).parameters())


def randomised(net):
    """A network in which no layer is zero, so that every path counts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return net.eval().requires_grad_(False)


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([8, 12, 14, 28]),
    colours=st.integers(1, 3),
    widths=st.lists(st.sampled_from([8, 16, 24]), min_size=1, max_size=3),
    blocks=st.integers(1, 2),
    time=st.sampled_from(["adagn", "add"]),
    classes=st.sampled_from([0, 5]),
    patch=st.sampled_from([1, 2]),
    batch=st.integers(1, 3),
)
def test_output_has_the_shape_of_the_data(size, colours, widths, blocks, time, classes, patch, batch):
    net = UNet(
        PROCESS,
        shape=(colours, size, size),
        channels=widths,
        blocks=blocks,
        time=time,
        classes=classes,
        patch=patch,
        groups=4,
        head=8,
        attention=(size // patch,),
    )
    z = torch.zeros(batch, colours, size, size)
    cond = net.prepare(None).take(torch.arange(batch))
    assert net(z, torch.full((batch,), 0.5), **cond).shape == z.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype):
    net = UNet(PROCESS, shape=(1, 8, 8), channels=(8,), groups=4).to(dtype)
    assert net(torch.zeros(2, 1, 8, 8, dtype=dtype), torch.ones(2)).dtype == dtype


def test_a_fresh_network_predicts_zero():
    net = UNet(PROCESS, shape=(1, 8, 8), channels=(8, 16), groups=4)
    assert net(torch.randn(2, 1, 8, 8), torch.rand(2)).abs().max() == 0


@pytest.mark.parametrize("time", ["adagn", "add"])
def test_time_class_and_null_class_all_matter(time):
    net = randomised(UNet(PROCESS, shape=(1, 8, 8), channels=(8,), groups=4, classes=3, time=time))
    z = torch.randn(1, 1, 8, 8)

    def answer(t, label):
        return net(z, torch.tensor([t]), **{"class": torch.tensor([label])})

    outputs = [answer(0.1, 0), answer(0.9, 0), answer(0.1, 2), answer(0.1, net.conditions["class"].null)]
    for i, first in enumerate(outputs):
        for second in outputs[i + 1 :]:
            assert (first - second).abs().max() > 1e-4


def test_attention_in_training_is_attention_in_sampling():
    net = randomised(UNet(PROCESS, shape=(1, 8, 8), channels=(16,), groups=4, attention=(8,), head=8))
    z, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    with torch.enable_grad():
        trained = net(z, t)
    with torch.no_grad():
        sampled = net(z, t)
    torch.testing.assert_close(trained, sampled, atol=1e-5, rtol=1e-5)


def test_samples_of_a_batch_do_not_mix():
    net = randomised(UNet(PROCESS, shape=(1, 8, 8), channels=(16,), groups=4, attention=(8,), head=8))
    z, t = torch.randn(3, 1, 8, 8), torch.rand(3)
    torch.testing.assert_close(net(z, t)[1:2], net(z[1:2], t[1:2]), atol=1e-5, rtol=1e-5)


def test_sizes_from_a_third_of_a_million_to_sixty_million():
    small = parameters(channels=(32, 48), blocks=1, patch=2)
    large = parameters(
        shape=(3, 64, 64), channels=(128, 256, 384, 512), blocks=2, attention=(16, 8), classes=1000, head=64
    )
    assert small < 0.5e6
    assert large > 60e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (30,)}, "groups=8"),
        ({"patch": 3}, "patch=3"),
        ({"attention": (9,)}, "attention=9"),
        ({"attention": (28,), "channels": (40,)}, "head=32"),
        ({"time": "film"}, "adagn"),
        ({"parameterization": "velocity"}, "x0, eps, v, score"),
    ],
)
def test_bad_sizes_are_one_line_errors(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        UNet(PROCESS, **options)
    assert "\n" not in str(caught.value)


def test_a_network_in_bfloat16_sees_the_same_times():
    embedding = TimeEmbedding(32, 64)
    t = torch.linspace(0.001, 1, 1000)
    seen = []
    for dtype in (torch.float32, torch.bfloat16):
        embedding.to(dtype).mlp = torch.nn.ModuleList([torch.nn.Linear(1, 1, dtype=dtype)])
        embedding.mlp.forward = lambda features: features
        seen.append(embedding(t).double())
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=2**-8)
