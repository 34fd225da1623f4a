"""Whether what a page shows as output is what a command wrote, but for what differs by machine.

These differ by machine and moment, and count as equal whatever they are: numbers that no letter
stands before (so `int8` and `fp32` stay what they are) and how many of them follow each other,
digests and other long hexadecimal names,
how wide a table is drawn. The status of an answer and of a program that ended is no such number: it
is compared as it stands. A line `...` in a page stands for any lines, and `...` within one
for anything on that line.
"""

from __future__ import annotations

import re

_RULES = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"(?<![\w.])[0-9a-f]{8,}(?![\w])"), "#"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"), "#"),
    (re.compile(r"(?<![A-Za-z_\d.])[-−+]?\d+(?:,\d{3}\b)*(?:\.\d+)*(?:[eE][-+]?\d+)?"), "#"),
    (re.compile(r"#(?:, ?#)+"), "#"),
    (re.compile(r",\.\.\."), "..."),
    (re.compile(r"[─━═╌┄-]{3,}"), "---"),
    (re.compile(r"[ \t]+"), " "),
)
_ANY_LINES = "..."
_HTTP = r"HTTP/\d(?:\.\d)? |\"status\": ?|'status': ?"
_STATUS = re.compile(rf"({_HTTP}|\bexit(?:ed)?(?: status| code)?:? )(\d+)\b", re.IGNORECASE)
_REFUSED = re.compile(rf"(?:{_HTTP})[45]\d\d\b")


def masked(text: str) -> list[str]:
    """The lines of `text` that are not empty, without what may differ."""
    lines = []
    for line in text.splitlines():
        line = _STATUS.sub(lambda found: f"status_{found[2]}", line)
        for rule, instead in _RULES:
            line = rule.sub(instead, line)
        if line.strip():
            lines.append(line.strip())
    return lines


def refused(shown: str) -> bool:
    """Whether a page shows that the server refuses: an answer of 400 or more."""
    return _REFUSED.search(shown) is not None


def agrees(shown: str, wrote: str) -> bool:
    """Whether a page that shows `shown` may stand for a command that wrote `wrote`."""
    pattern = ""
    for line in masked(shown):
        if line == _ANY_LINES:
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += re.escape(line).replace(re.escape(_ANY_LINES), r"[^\n]*") + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in masked(wrote))) is not None
