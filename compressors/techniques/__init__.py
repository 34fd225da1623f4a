"""Techniques: one file = one technique. The contract and how to add one: `compressors/technique.py`."""
