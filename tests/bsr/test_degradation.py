"""The degradation as a whole: sizes, ranges, and its key alone."""

from __future__ import annotations

import concurrent.futures

import pytest
import torch

from trilemma.errors import UsageError
from trilemma_plugins.bsr import degradation
from trilemma_plugins.bsr.degradation import VARIANTS, Degradation


def picture(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_thousand_draws_have_the_exact_size_and_never_change_the_picture(factor):
    image = picture(3, 96, 64)
    kept, degrade = image.clone(), Degradation(factor=factor)
    found = torch.stack([degrade(image, key) for key in range(1000)])
    assert found.shape == (1000, 3, 96 // factor, 64 // factor)
    assert found.dtype == torch.uint8
    assert torch.equal(image, kept)
    # A strong blur of noise is one grey, whichever the key.
    assert len(found.flatten(1).unique(dim=0)) > 990


@pytest.mark.parametrize("kind", list(VARIANTS))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_variant_has_the_size(kind, channels):
    for factor in (1, 2, 3, 4):
        degrade = Degradation(kind, factor)
        for key in range(10):
            found = degrade(picture(channels, 24, 36), key)
            assert found.shape == (channels, 24 // factor, 36 // factor)


def test_every_operation_gets_and_gives_levels_from_0_to_1(monkeypatch):
    seen: set[str] = set()

    def watched(name):
        function = getattr(degradation, name)

        def call(image, *arguments):
            result = function(image, *arguments)
            for levels in (image, result):
                assert 0 <= float(levels.min()) <= float(levels.max()) <= 1
                assert levels.dtype == torch.float64
            seen.add(name)
            return result

        monkeypatch.setattr(degradation, name, call)

    names = {
        "blurred",
        "shrunk",
        "resized_to",
        "gaussian",
        "compressed",
        "photographed",
        "poisson",
        "speckle",
        "sharpened",
    }
    for name in names:
        watched(name)
    image = picture(3, 32, 32)
    for kind in VARIANTS:
        for key in range(30):
            Degradation(kind)(image, key)
    assert seen == names


def test_the_key_alone_decides_the_result():
    image, degrade = picture(3, 32, 32), Degradation(seed=5)
    forwards = [degrade(image, key) for key in range(20)]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    backwards = [degrade(image, key) for key in reversed(range(20))]
    assert torch.equal(torch.get_rng_state(), state)
    with concurrent.futures.ThreadPoolExecutor(4) as workers:
        parallel = list(workers.map(lambda key: degrade(image, key), range(20)))
    for key in range(20):
        assert torch.equal(forwards[key], backwards[19 - key])
        assert torch.equal(forwards[key], parallel[key])
    assert not torch.equal(Degradation(seed=6)(image, 0), forwards[0])


def test_the_number_of_threads_does_not_matter():
    image, degrade, threads = picture(3, 64, 64), Degradation("bsr-plus"), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = [degrade(image, key) for key in range(5)]
        torch.set_num_threads(3)
        assert all(torch.equal(degrade(image, key), found) for key, found in enumerate(one))
    finally:
        torch.set_num_threads(threads)


def test_bsr_light_is_lighter():
    """Against the plain mean over each four by four pixels."""
    smooth = torch.nn.functional.interpolate(picture(1, 3, 8, 8).float(), (64, 64), mode="bicubic").clamp(
        0, 255
    )
    plain = smooth.unflatten(3, (16, 4)).unflatten(2, (16, 4)).mean((3, 5))[0]
    image = smooth[0].round().to(torch.uint8)
    error = {
        kind: sum(float((Degradation(kind)(image, key) - plain).square().mean()) for key in range(40))
        for kind in VARIANTS
    }
    assert error["bsr-light"] < 0.75 * error["bsr"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Degradation("bsrr"), "unknown degradation 'bsrr'; choose from bsr, bsr-light, bsr-plus"),
        (lambda: Degradation(factor=0), "factor=0 is no integer in range"),
        (lambda: Degradation(seed=-1), "seed=-1 is not a seed"),
        (lambda: Degradation()(picture(3, 30, 32), 0), "30×32 \\(H×W\\) cannot be shrunk by 4; cut it"),
        (lambda: Degradation()(picture(3, 0, 32), 0), "cannot be shrunk by 4"),
        (lambda: Degradation()(picture(4, 32, 32), 0), "4 channels cannot be degraded; give one or three"),
    ],
)
def test_what_cannot_be_is_refused(make, words, one_line):
    with pytest.raises(UsageError, match=words) as caught:
        make()
    one_line(caught.value)
