"""Techniques that misbehave, each in its own way: what the checks of a build are there for."""
