"""Measurements kept as JSON lines, so that a benchmark that is stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Measurements:
    """Records of a file by their keys.

    Args:
        file: of JSON lines; it need not exist yet. A last line that an interrupted run left unfinished is cut off.
        complete: refuse to measure what the file does not hold.
    """

    def __init__(self, file: Path, *, complete: bool = False) -> None:
        self.file, self.complete = file, complete
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            file.write_text(whole, encoding="utf-8")
        self._known = [json.loads(line) for line in whole.splitlines()]

    def of(
        self, key: Mapping[str, Any], title: str, measure: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Returns the record of a key: the one of the file, or else a measured one, which is appended to it.

        Args:
            key: all that decides the record, as JSON can write it.
            title: of what is measured, for people.
            measure: returns the record.

        Raises:
            SystemExit: where nothing may be measured and the file has no such record.
        """
        key = json.loads(json.dumps(key))
        for kept in self._known:
            if kept["key"] == key:
                found: Mapping[str, Any] = kept["record"]
                return found
        if self.complete:
            raise SystemExit(f"{self.file} has no measurement of {title}; measure it without --table")
        made = {"key": key, "record": dict(measure())}
        self._known.append(made)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            print(json.dumps(made, ensure_ascii=False), file=file, flush=True)
        return made["record"]
