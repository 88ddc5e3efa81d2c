"""The members of a zip, by names that cannot mean two things, inflated no further than they declare."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from trilemma.errors import DataError
from trilemma.files.regular import open_regular

# Compressed bytes read at once; they bound how much one call can inflate to, by any method.
_PIECE = 1 << 12
# Flag of a member whose name is in UTF-8.
_UTF8 = 0x800
_DRIVE = re.compile(r"[A-Za-z]:")


class ZipMembers:
    """The files in a zip.

    Names have forward slashes and no empty or `.` parts. A name that is UTF-8 is read as UTF-8, even where the zip does
    not mark it so.

    Args:
        path: of the zip.

    Attributes:
        names: of the files, in the order of the zip.

    Raises:
        DataError: for a file that is no readable zip, two members of one name, or a name that leads out of the zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(open_regular(path))
        except Exception as error:
            # A damaged directory can make zipfile raise nearly anything.
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{path} is neither a folder nor a readable zip ({reason}); give the path of one"
            ) from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            name = self._normal(member)
            if member.is_dir() or not name:
                continue
            if name in self._members:
                raise DataError(f"{path} holds {name} twice; write the zip anew")
            self._members[name] = member
        self.names = list(self._members)

    def read(self, name: str, limit: int) -> bytes:
        """Returns the content of a file.

        Raises:
            ValueError: for one of more than `limit` bytes.
            Exception: whatever zipfile raises for one that is damaged.
        """
        member = self._members[name]
        if member.file_size > limit:
            raise ValueError(f"it has {member.file_size:,} bytes, at most {limit:,} are read")
        pieces = []
        with self._zip.open(member) as file:
            while piece := file.read(_PIECE):
                pieces.append(piece)
        return b"".join(pieces)

    def _normal(self, member: zipfile.ZipInfo) -> str:
        given = _name(member).replace("\\", "/")
        parts = [part for part in given.split("/") if part not in ("", ".")]
        if given.startswith("/") or ".." in parts or _DRIVE.match(given):
            raise DataError(
                f"{self.path} holds {given!r}, which leads out of it; write the zip anew, with names inside it"
            )
        return "/".join(parts)


def _name(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & _UTF8:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename
