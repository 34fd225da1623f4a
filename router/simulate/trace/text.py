"""Content: bytes to text. What is packed is known by its first bytes, whatever it is called."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
import zlib

from router.simulate.trace import bad


def text_of(name: str, data: bytes) -> str:
    """The text that `data` holds, unpacked."""
    data = _expanded(name, data)
    # A tar's header ends its fields with zero bytes; text has none.
    if b"\0" in data[:512]:
        data = _expanded(name, _member(name, data))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise bad(
            name,
            line,
            "content",
            f"byte 0x{data[error.start]:02x}",
            "text in UTF-8, plain or by gzip or bzip2",
        ) from error


def _expanded(name: str, data: bytes) -> bytes:
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"BZh"):
            return bz2.decompress(data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise bad(name, None, "archive", str(error), "whole gzip or bzip2 data") from error
    return data


def _member(name: str, data: bytes) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            # macOS puts a `._` file with attributes beside each one.
            files = [
                member
                for member in archive.getmembers()
                if member.isfile() and not member.name.rpartition("/")[2].startswith("._")
            ]
            content = archive.extractfile(files[0]) if len(files) == 1 else None
            if content is None:
                shown = ", ".join(member.name for member in files[:5]) or "none"
                raise bad(name, None, "archive", f"files {shown}", "exactly one file")
            return content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise bad(
            name, None, "archive", str(error), "text, or a tar of one text file; gzip or bzip2"
        ) from error
