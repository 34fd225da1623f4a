"""Finding what can be removed from a network or split, and doing it."""
