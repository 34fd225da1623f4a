"""Chance without randomness: a number that is as good as drawn, from a request's own number."""

from __future__ import annotations

_WORD = (1 << 64) - 1


def chance(ticket: int) -> float:
    """From 0 to below 1, uniform over tickets and unrelated from one to the next.

    The mixing function of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom
    number generators", section 4).
    """
    word = (ticket + 1) * 0x9E3779B97F4A7C15 & _WORD
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return ((word ^ word >> 31) >> 11) / (1 << 53)
