"""The page's files: our own, and the charts' library, which is an installed Python package's.

Read once. The library is uPlot, of which the package `youplot` holds upstream's very files: any
others are not served, for a script on this page may do what its reader may. Without the package
there are no charts, and the page shows tables.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LOG = logging.getLogger(__name__)

PAGE = "index.html"
CHARTS = "charts.js"
_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_LIBRARY = "youplot"
# Of uPlot 1.6.31, as its own package on npm has it: name here, path in the package, SHA-256.
_CHARTS = (
    (
        CHARTS,
        "vendor/uplot.iife.min.js",
        "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    ),
    (
        "charts.css",
        "vendor/uplot.min.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
)


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is sent.

    Attributes:
        zipped: the same in gzip; empty where that is no shorter.
        tag: its entity tag, which changes with it.
    """

    content: bytes
    zipped: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, suffix: str) -> File:
        """The file with that content; `suffix` says what it is."""
        zipped = gzip.compress(content, 9, mtime=0)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        return cls(content, zipped if len(zipped) < len(content) else b"", _TYPES[suffix], tag)


def everything() -> dict[str, File]:
    """Every file by its name; `index.html` is the page."""
    own = {
        path.name: File.of(path.read_bytes(), path.suffix)
        for path in sorted(_FOLDER.glob("*"))
        if path.suffix in _TYPES and path.is_file()
    }
    return {**dict(_charts()), **own}


def _charts() -> Iterator[tuple[str, File]]:
    # Found and not imported: of its code nothing runs here.
    package = importlib.util.find_spec(_LIBRARY)
    if package is None or package.origin is None:
        return
    for name, inside, digest in _CHARTS:
        path = Path(package.origin).parent / inside
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() == digest:
            yield name, File.of(content, path.suffix)
        else:
            _LOG.warning("the console has no charts: %s of %s is not uPlot's", inside, _LIBRARY)
