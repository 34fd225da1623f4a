"""Variants come, serve, change and go: the store, the fleet, and what an operator wants."""
