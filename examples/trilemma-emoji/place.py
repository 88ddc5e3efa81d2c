"""Puts the trained models into the package, with cards that say what they are measured by and their licence.

    python place.py RUNS

takes them from RUNS/emoji/model, RUNS/emoji-features/model and RUNS/emoji-words/model.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from trilemma.models.card import card_text, read_card

PLACE = Path(__file__).parent / "trilemma_emoji" / "models"
LICENCE = "CC-BY-4.0 AND Apache-2.0"
EVALUATION = {
    "dataset": "images:root=emoji.zip",
    "features": "emoji-features",
    "metrics": ["frechet", "text-agreement:network=emoji-words"],
}
LARGEST = 40_000_000


def place(runs: Path, place: Path = PLACE) -> int:
    """Copies the models, those that are there already are replaced, and returns how many bytes they take."""
    for name in ("emoji", "emoji-features", "emoji-words"):
        shutil.rmtree(place / name, ignore_errors=True)
        shutil.copytree(runs / name / "model", place / name)
    for folder in folders(place):
        card = read_card(folder)
        card["model"]["licence"] = LICENCE
        if "latent" in card:
            card["evaluation"] = {**card.get("evaluation", {}), **EVALUATION}
        (folder / "model.toml").write_text(card_text(card, card["weights"]["sha256"]), encoding="utf-8")
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    if size > LARGEST:
        raise SystemExit(f"the models take {size:,} bytes, more than {LARGEST:,}")
    return size


def folders(place: Path) -> Iterator[Path]:
    """Returns the folders of all models, one inside another too."""
    return (card.parent for card in sorted(place.rglob("model.toml")))


if __name__ == "__main__":
    print(f"{place(Path(sys.argv[1])):,} bytes")
