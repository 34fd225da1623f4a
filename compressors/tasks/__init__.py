"""Bundled tasks: one file = one task, named as `gearshift compress NAME` names it, defining `TASK`."""
