"""Drills: what a server that people trust must stand; each has a short version in the tests."""
