"""Decisions as plain functions over plain values.

Nothing here reads a clock, draws a random number, opens a file or imports anything beyond the
standard library and pydantic: what is true now comes in as a snapshot, what to do goes out as a
decision. The gateway and the compressors both import this package; it imports neither.
"""
