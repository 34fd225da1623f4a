"""The code that a user of each peer would write; it runs in that peer's own environment."""
