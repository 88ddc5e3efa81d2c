"""Captions of a handwritten digit, in several phrasings."""

from __future__ import annotations

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LEANING = ("leaning left", "upright", "leaning right")

SEEN = (
    "a {boldness} {number}, {slant}",
    "a {number}, {boldness} and {slant}",
    "{boldness} handwritten {number}, {slant}",
    "the digit {number}, {slant}, in {boldness} strokes",
    "{slant}: a {boldness} {number}",
    "the number {number} written with a {boldness} pen, {slant}",
    "handwriting of a {number}; {boldness}, {slant}",
    "a picture of a {boldness} {number} {slant}",
)
# No image of the training split is described so.
UNSEEN = (
    "the {number} is {boldness} and {slant}",
    "in {boldness} lines, a {number} {slant}",
    "somebody wrote a {boldness} {number}, it is {slant}",
)


def caption(phrasing: str, number: int, boldness: str, slant: int) -> str:
    """Returns a caption in a phrasing, as "a bold seven, leaning left".

    Args:
        phrasing: one of SEEN or UNSEEN.
        number: the digit.
        boldness: thin, medium or bold.
        slant: 0 leaning left, 1 upright, 2 leaning right.
    """
    text = phrasing.format(number=NUMBERS[number], boldness=boldness, slant=LEANING[slant])
    for vowel in ("eight", "upright"):
        text = text.replace(f"a {vowel}", f"an {vowel}")
    return text
