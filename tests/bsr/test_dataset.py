"""The data set of degraded pictures: pairs for training, decided by the index alone."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import trilemma
from trilemma.errors import UsageError
from trilemma.testing import check_dataset
from trilemma_plugins.bsr.degradation import Degradation


@pytest.fixture
def photos(tmp_path):
    """Six pictures of two classes, with a split."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(6):
        levels = torch.randint(0, 256, (3, 16, 16, 3), generator=generator, dtype=torch.uint8)[0]
        Image.fromarray(levels.numpy()).save(tmp_path / f"{number}.png")
        split = "test" if number > 3 else "train"
        rows.append(
            {"file_name": f"{number}.png", "class": "ab"[number % 2], "level": number / 5, "split": split}
        )
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_an_example_is_a_picture_and_its_degraded_one(photos):
    data = trilemma.dataset(f'degraded:of="images:root={photos},flip=true",factor=4,copies=3,seed=2')
    plain = trilemma.dataset(f"images:root={photos},flip=true")
    assert len(data) == 24
    assert data.copies == 6
    whole, values = data.batch(torch.arange(24))
    assert whole.shape == (24, 3, 16, 16)
    low = values["low"]
    assert low.shape == (24, 3, 4, 4)
    for index in range(24):
        image = plain.read(torch.tensor([index % 8]))[0]
        assert torch.equal(data.read(torch.tensor([index]))[0], image)
        assert torch.equal(low[index], Degradation("bsr", 4, 2)(image, index))
    assert values["class"].tolist() == plain.labels.repeat(3).tolist()
    assert values["level"].shape == (24,)


def test_order_batches_and_building_again_change_nothing(photos):
    spec = f'degraded:of="images:root={photos}",copies=5'
    first, again = trilemma.dataset(spec), trilemma.dataset(spec)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    scattered = torch.cat([first.columns["low"].at(part) for part in order.split(3)])
    assert torch.equal(scattered, again.columns["low"].at(torch.arange(20))[order])
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != trilemma.dataset(f"{spec},seed=1").fingerprint()
    assert first.fingerprint() != trilemma.dataset(f"{spec},size=8").fingerprint()


def test_a_rule_of_resizing_degrades_nothing(photos):
    data = trilemma.dataset(f'degraded:of="images:root={photos}",factor=2,by=area,size=8')
    images, low = data.read(torch.arange(4)), data.columns["low"].at(torch.arange(4))
    plain = trilemma.dataset(f"images:root={photos}").images.float()
    halves = plain.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5))
    assert torch.equal(images, halves.round().to(torch.uint8))
    quarters = images.float().unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    assert torch.equal(low, quarters.round().to(torch.uint8))
    assert "low" not in trilemma.dataset(f'degraded:of="images:root={photos}",factor=1,size=4').columns


def test_splits_are_those_of_the_data_set(photos):
    spec = f'degraded:of="images:root={photos}"'
    assert len(trilemma.dataset(spec, split="test")) == 2
    assert len(trilemma.dataset(spec, split="train")) == 4


def test_its_spec_can_be_read_again(photos):
    spec = f'degraded:of="images:root={photos},size=8,flip=true",factor=2'
    made, canonical = trilemma.lookup.build("dataset", spec)
    assert trilemma.dataset(canonical).fingerprint() == made.fingerprint()


def test_it_passes_the_kit():
    failed = [record for record in check_dataset('degraded:of="digits",factor=2,copies=2') if record.failed]
    assert not failed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("of=digits,by=bsrr", "unknown by='bsrr'; choose from bsr, bsr-light"),
        ("of=digits,factor=3", "8×8 .* cannot be shrunk by 3"),
        ("of=digits,factor=2,by=area,copies=2", "copies=2 of the same picture by area; leave copies out"),
        ("of=digits,copies=0", "degraded: copies=0"),
        ("of=digits,size=0", "degraded: size=0"),
        ("of=digts", "unknown dataset 'digts'"),
    ],
)
def test_what_cannot_be_is_refused(options, words, one_line):
    with pytest.raises(trilemma.TrilemmaError, match=words) as caught:
        trilemma.dataset(f"degraded:{options}")
    one_line(caught.value)
    assert isinstance(caught.value, UsageError) or "digts" in options
