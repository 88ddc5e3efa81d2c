"""Training of the feature network, on a handful of images."""

from __future__ import annotations

import io
import json

import torch

from trilemma_plugins.metrics.train_features import NormalisedDigitNetwork, batches, train


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)


def test_folding_the_normalisation_changes_nothing_but_rounding() -> None:
    network = NormalisedDigitNetwork(torch.Generator().manual_seed(0))
    pixels = images(64).float() / 127.5 - 1
    for _ in range(3):
        network.train()(pixels * 0.7 + 0.1)  # running statistics that are not the initial ones
    with torch.no_grad():
        expected = network.eval()(pixels)
        features, logits = network.folded()(pixels)
    assert features.shape == (64, 64)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_seed_decides_the_weights_and_the_global_generator_does_not() -> None:
    labels, logs = torch.arange(40) % 10, [io.StringIO() for _ in range(3)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(images(40), labels, epochs=1, batch=20, rate=1e-3, seed=0, log=logs[0])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = train(images(40), labels, epochs=1, batch=20, rate=1e-3, seed=0, log=logs[1])
    other = train(images(40), labels, epochs=1, batch=20, rate=1e-3, seed=1, log=logs[2])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert json.loads(logs[0].getvalue().splitlines()[-1])["step"] == 2


def test_an_epoch_holds_every_image_once_shifted_by_at_most_two_pixels() -> None:
    blank = torch.zeros(300, 1, 28, 28, dtype=torch.uint8)
    blank[:, :, 10, 20] = 255
    seen, places = [], set()
    for pixels, labels in batches(blank, torch.arange(300), 10, torch.Generator().manual_seed(0)):
        seen += labels.tolist()
        places |= {tuple(place) for place in (pixels == 1).nonzero()[:, 2:].tolist()}
        assert (pixels == 1).sum() == 10
    assert sorted(seen) == list(range(300))
    assert places == {(row, column) for row in range(8, 13) for column in range(18, 23)}
