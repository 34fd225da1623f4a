"""Long drills: what a server that people trust must stand. Each has a short version in the tests."""
