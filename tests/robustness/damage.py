"""Seeded damage to files, of every sort that disks, editors and strangers do."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

NASTY = (
    *("0", "-1", "1", "true", "10" + "0" * 30, "9" * 5000, "1e999", "-inf", "nan", "0.5", "1979-05-27"),
    *(
        '""',
        '"x"',
        '"\\u0000"',
        '"a\\nb"',
        '"\\u202Eabc"',
        '"\\u001b[31m"',
        '"ü"',
        '"../x"',
        '"/dev/zero"',
        '"."',
    ),
    *(
        '"~nosuchuser/x"',
        '"ddin"',
        '"vp:T=0"',
        '"vp:T=9999999999"',
        '"vp:schedule=[1"',
        '"mnist"',
        '"' + "x" * 99 + '"',
    ),
    *(
        "[]",
        "[[]]",
        "[1]",
        "[1, 1, 1]",
        "[0, 8, 8]",
        "[1, 8, 99999999]",
        '["a"]',
        "[nan, 1.0]",
        "{}",
        "{ a = 1 }",
    ),
    *(
        "'''\na\nb'''",
        "[" * 5000 + "]" * 5000,
        '"' + "x" * 1_000_000 + '"',
        "[" + "1," * 9999 + "1]",
        "=",
        "",
    ),
)
FORMATS: tuple[Callable[[bytes], bytes], ...] = (
    lambda content: b"",
    lambda content: b"\0" * len(content),
    lambda content: b"\x89PNG\r\n\x1a\n" + content,
    lambda content: b"PK\x03\x04" + content,
    lambda content: gzip.compress(content),
    lambda content: b'{"format": 1}',
    lambda content: content.decode("latin-1").encode("utf-16"),
    lambda content: b"\xef\xbb\xbf" + content,
    lambda content: content.replace(b"\n", b"\r\n"),
    lambda content: content.replace(b"\n", b"\r"),
    lambda content: b"[" * 100_000,
    lambda content: b'{"a":' * 100_000,
    lambda content: b"\xff\xfe\xfd" + content,
    lambda content: content + content,
    lambda content: content[::-1],
)


def damaged(content: bytes, dice: random.Random, *, text: bool) -> tuple[bytes | None, str]:
    """Content with one fault, and the fault's name; None stands for a folder in place of the file."""
    kinds = ["flip", "truncate", "delete", "duplicate", "insert", "format", "folder"]
    kinds += ["value"] * 6 + ["line", "rename", "swap", "add"] if text else ["header", "zeros"]
    kind = dice.choice(kinds)
    return _FAULTS[kind](content, dice), kind


def _flip(content: bytes, dice: random.Random) -> bytes:
    blob = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 3, 20))):
        if blob:
            blob[dice.randrange(len(blob))] ^= 1 << dice.randrange(8)
    return bytes(blob)


def _span(content: bytes, dice: random.Random) -> tuple[int, int]:
    start = dice.randrange(len(content) + 1)
    return start, min(len(content), start + dice.choice((1, 4, 16, 100, 1000)))


def _truncate(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def _delete(content: bytes, dice: random.Random) -> bytes:
    start, end = _span(content, dice)
    return content[:start] + content[end:]


def _duplicate(content: bytes, dice: random.Random) -> bytes:
    start, end = _span(content, dice)
    return content[:end] + content[start:end] + content[end:]


def _insert(content: bytes, dice: random.Random) -> bytes:
    start, _ = _span(content, dice)
    junk = dice.choice(
        (b"\0", b"\x1b[2J", b"\xff", b"\r", b"\xed\xb3\xbf", b"\xe2\x80\xae", b"\n", dice.randbytes(9))
    )
    return content[:start] + junk + content[start:]


def _format(content: bytes, dice: random.Random) -> bytes:
    return dice.choice(FORMATS)(content)


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "surrogateescape").split("\n")


def _joined(lines: list[str]) -> bytes:
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _value(content: bytes, dice: random.Random) -> bytes:
    lines = _lines(content)
    places = [place for place, line in enumerate(lines) if "=" in line or ":" in line]
    if not places:
        return _flip(content, dice)
    place = dice.choice(places)
    mark = "=" if "=" in lines[place] else ":"
    key, _, old = lines[place].partition(mark)
    comma = "," if old.rstrip().endswith(",") else ""
    lines[place] = f"{key}{mark} {dice.choice(NASTY)}{comma}"
    return _joined(lines)


def _line(content: bytes, dice: random.Random) -> bytes:
    lines = _lines(content)
    del lines[dice.randrange(len(lines))]
    return _joined(lines)


def _rename(content: bytes, dice: random.Random) -> bytes:
    lines = _lines(content)
    place = dice.randrange(len(lines))
    lines[place] = dice.choice(("x", "_", "ü", "a.b.", "'")) + lines[place]
    return _joined(lines)


def _swap(content: bytes, dice: random.Random) -> bytes:
    lines = _lines(content)
    a, b = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return _joined(lines)


def _add(content: bytes, dice: random.Random) -> bytes:
    key = dice.choice(
        ("extra", "format", "model", "data.shape", "denoiser.options.width", "samples.every", "a" * 9999)
    )
    value = dice.choice(NASTY)
    return dice.choice((f"{key} = {value}\n".encode() + content, content + f"\n{key} = {value}\n".encode()))


def _header(content: bytes, dice: random.Random) -> bytes:
    """Another number where a binary file keeps its sizes."""
    place = dice.randrange(0, max(1, min(len(content) - 8, 128)))
    number = dice.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 10**6))
    packed = struct.pack(dice.choice((">I", "<I", "<Q")), number)
    return content[:place] + packed + content[place + len(packed) :]


def _zeros(content: bytes, dice: random.Random) -> bytes:
    start, end = _span(content, dice)
    return content[:start] + bytes(end - start) + content[end:]


_FAULTS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "flip": _flip,
    "truncate": _truncate,
    "delete": _delete,
    "duplicate": _duplicate,
    "insert": _insert,
    "format": _format,
    "folder": lambda content, dice: None,
    "value": _value,
    "line": _line,
    "rename": _rename,
    "swap": _swap,
    "add": _add,
    "header": _header,
    "zeros": _zeros,
}


def damaged_tensors(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """A safetensors file with a fault in what its header says, or in its numbers."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    body = content[8 + length :]
    name = dice.choice([key for key in header if key != "__metadata__"])
    kind = dice.choice(
        ("dtype", "shape", "offsets", "missing", "extra", "nan", "entry", "length", "swap", "rename")
    )
    entry = header[name]
    if kind == "dtype":
        entry["dtype"] = dice.choice(("F16", "F64", "I64", "BOOL", "F8_E4M3", "X", 3, None))
    elif kind == "shape":
        entry["shape"] = dice.choice(
            ([], [1], [2**40], [-1], [1.5], ["a"], [2**63, 2], [0], list(entry["shape"])[::-1])
        )
    elif kind == "offsets":
        entry["data_offsets"] = dice.choice(([0, 0], [0, 2**50], [4, 0], [-4, 0], [0], "x", [0.5, 1]))
    elif kind == "missing":
        del header[name]
    elif kind == "extra":
        header["extra" * dice.choice((1, 999))] = dict(entry)
    elif kind == "nan":
        start, end = entry["data_offsets"]
        value = dice.choice((float("nan"), float("inf"), 3e38))
        body = body[:start] + struct.pack("<f", value) * ((end - start) // 4) + body[end:]
    elif kind == "entry":
        header[name] = dice.choice((None, [], "x", 7, {}, {"dtype": "F32"}))
    elif kind == "swap":
        other = dice.choice([key for key in header if key != "__metadata__"])
        header[name], header[other] = header[other], header[name]
    elif kind == "rename":
        header[dice.choice(("", "\0", "a/b/c", "\u202e", "x" * 99_999))] = header.pop(name)
    text = json.dumps(header).encode()
    size = dice.choice((0, 1, 2**63, 2**64 - 1, len(text) - 1)) if kind == "length" else len(text)
    return struct.pack("<Q", size) + text + body, f"tensors: {kind}"


def damaged_zip(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """A zip with a member that is not what it should be."""
    kind = dice.choice(("names", "member", "nested", "bomb", "twice", "empty"))
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        members = [(entry.filename, old.read(entry)) for entry in old.infolist()]
        place = dice.randrange(len(members))
        name, pixels = members[place]
        if kind == "names":
            evil = (
                "../x.png",
                "/x.png",
                "a\\b.png",
                "\x1b[31m/x.png",
                "ü" * 99 + "/x.png",
                "x.png",
                "a//x.png",
                "CON/x.png",
            )
            members[place] = (dice.choice(evil), pixels)
        elif kind == "member":
            members[place] = (name, damaged(pixels, dice, text=False)[0] or b"")
        elif kind == "nested":
            members[place] = (name, content)
        elif kind == "bomb":
            members[place] = (name, bytes(50_000_000))
        elif kind == "empty":
            members = []
        with warnings.catch_warnings(action="ignore"):
            for member, data in members * (2 if kind == "twice" else 1):
                new.writestr(member, data)
    return made.getvalue(), f"zip: {kind}"


def write(path: Path, content: bytes | None) -> None:
    """Puts the content, or a folder, in place of a file."""
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
