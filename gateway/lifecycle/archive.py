"""A tar archive from outside, unpacked: plain files by name, within limits, plain or gzip.

A few megabytes of gzip can hold a thousand times as much, in its members or in the headers between
them, and an archive says of itself how large a member is. So every byte that comes out of it is
counted, before it is kept in memory or on the disk.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from router.errors import InvalidRequest, TooLarge

MOST_BYTES = 8 << 30

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_MOST_FILES = 1000
# Weights hardly get smaller; pruned ones, zeros between them, by a factor of ten or so.
_MOST_RATIO = 100
_SMALL_BYTES = 64 << 20
# More than a reader takes at once, and than the headers of a member with a long name need.
_HEADER_BYTES = 128 << 10
_CHUNK_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


def unpack(archive: Path, folder: Path) -> None:
    """Write the files that `archive` holds into `folder`, which is empty.

    Raises:
        InvalidRequest: it is no such archive, or holds something else than files by name.
        TooLarge: they are over the limit.
        OSError: they cannot be written.
    """
    most = min(MOST_BYTES, max(_SMALL_BYTES, _MOST_RATIO * archive.stat().st_size))
    try:
        with archive.open("rb") as raw:
            zipped = raw.peek(2)[:2] == _GZIP
            source: BinaryIO = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
            _files(_Metered(source), folder, most)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        expected = "a tar archive, plain or gzip"
        raise InvalidRequest("body", type(error).__name__, expected) from error


class _Metered:
    """A file that is read from its beginning to its end, and not further than it may be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = _HEADER_BYTES

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            tarfile.ReadError: headers that do not end.
        """
        data = self._file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError("headers over the limit")
        return data


def _files(source: _Metered, folder: Path, most: int) -> None:
    total = count = 0
    with tarfile.open(fileobj=source, mode="r|") as tar:  # type: ignore[call-overload]
        for member in tar:
            if member.isdir() and member.name.strip("./") == "":
                continue
            name = member.name.removeprefix("./")
            plain = member.type in _PLAIN and not member.issparse() and member.size >= 0
            if not plain or not _FILE.fullmatch(name):
                raise InvalidRequest("body", member.name, "plain files without folders")
            total, count = total + member.size, count + 1
            if total > most or count > _MOST_FILES:
                raise TooLarge(
                    f"the archive holds more than {most} bytes, which is the limit for one of its "
                    f"size, or more than {_MOST_FILES} files"
                )
            if (folder / name).exists():
                raise InvalidRequest("body", name, "each file once")
            content = tar.extractfile(member)
            assert content is not None
            source.left = member.size + _HEADER_BYTES
            with (folder / name).open("xb") as target:
                shutil.copyfileobj(content, target, _CHUNK_BYTES)
            source.left = _HEADER_BYTES
