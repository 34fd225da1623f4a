"""Bundled tasks: one file = one task, called as the file is, defining `TASK`."""
