"""Figures, to read."""

from __future__ import annotations


def rate(per_s: float) -> str:
    """Requests per s, to read."""
    return f"{per_s:,.0f}" if per_s >= 1000 else f"{per_s:.4g}"


def percent(share: float) -> str:
    """A share in percent, with so many digits that it is not rounded to all."""
    digits = 2 if share > 0.9999 or share < 0.99 else 3
    text = f"{100 * share:.{digits}f}"
    return f"{100 * share:.6g} %" if text.startswith("100") and share < 1 else f"{text} %"
