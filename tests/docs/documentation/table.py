"""All that a test does otherwise than a page says, and why.

A command or a block is run as it stands but for these replacements. An entry that fits nothing any more fails a test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Replacement:
    """A pattern in commands or in Python, and what the test runs instead.

    Attributes:
        pattern, by: as of `re.sub`.
        reason: why it is not run as it stands.
        pages: a pattern of the pages it is for.
    """

    pattern: str
    by: str
    reason: str
    pages: str = ".*"

    def fits(self, page: str, text: str) -> bool:
        return bool(re.fullmatch(self.pages, page) and re.search(self.pattern, text))


@dataclass(frozen=True)
class NotRun:
    """A command that a test cannot run.

    Attributes:
        pattern: of the whole command.
        reason: why.
        pages: a pattern of the pages it is for.
    """

    pattern: str
    reason: str
    pages: str = ".*"

    def fits(self, page: str, text: str) -> bool:
        return bool(re.fullmatch(self.pages, page) and re.fullmatch(self.pattern, text))


REPLACEMENTS = (
    Replacement(r"-n \d+", "-n 4", "fewer samples"),
    Replacement(r"trilemma sample (\S+)(?!.* -n )", r"trilemma sample \1 -n 2", "fewer samples"),
    Replacement(r"--steps (?!2\b)\d+", "--steps 2", "fewer steps"),
    Replacement(
        r"(trilemma train \S+\.toml)",
        r"\1 --no-progress --set steps=2 --set batch_size=8 --set checkpoint_every=1 --set evaluation.n=0",
        "two steps of training",
    ),
    Replacement(
        r"(trilemma train photos) --minutes 10",
        r"\1 --no-progress --minutes 0.001 --set steps=2 --set batch_size=8",
        "two steps of training",
        "docs/own-images.md",
    ),
    Replacement(r" --set steps=2000", "", "two steps of training"),
    Replacement(r"step-000001000", "step-000000001", "two steps of training"),
    Replacement(
        r"--num_processes 4", "--cpu --num_processes 2", "as many processes as the smallest machine has cores"
    ),
    Replacement(
        r"trilemma bench (kernels|loop|samplers).*", r"trilemma bench \1 --help", "minutes of timing"
    ),
    Replacement(
        r"trilemma calibrate.*",
        "trilemma calibrate --help",
        "a minute of timing, which other tests would choose by",
    ),
    Replacement(
        r"python (benchmarks/\w+\.py).*", r"python \1 --help", "needs the file of a run of minutes or hours"
    ),
    Replacement(r'"steps=2000"', '"steps=2", "batch_size=8"', "two steps of training"),
    Replacement(r'(trilemma\.sample\(\s*(?:model|"[\w-]+"),) \d\d(?!\d)', r"\1 4", "fewer samples"),
    Replacement(r"(trilemma\.sample\(.*|trilemma\.invert\(.*)\bsteps=[25]0\b", r"\1steps=4", "fewer steps"),
)

NOT_RUN = (
    NotRun(
        r"trilemma train \S+/image-features\.toml.*",
        "needs two zips of photographs, which are not distributed",
    ),
    NotRun(r"make \w[\w-]*", "makes an environment, or runs the tests that this one is among"),
    NotRun(r"python -m venv \.venv", "makes an environment; a test has one"),
    NotRun(r"source \.venv/bin/activate", "enters that environment"),
    NotRun(
        r"(\w+=\d )?pip install (--no-deps |--no-build-isolation -e )?\"?(\.|dist/|\$\(echo dist/)\S*",
        "installs Trilemma itself, as benchmarks/install.py does",
        "docs/install.md",
    ),
)

# Pages that a test of their own follows.
ELSEWHERE = {
    "docs/publish.md": "tests/registry/test_guide.py",
    "examples/trilemma-emoji/README.md": "tests/emoji/test_distribution.py",
}
