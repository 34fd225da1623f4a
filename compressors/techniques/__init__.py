"""Techniques: one file = one technique. How to add one: `compressors/technique.py`."""
