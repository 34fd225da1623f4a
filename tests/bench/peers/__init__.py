"""The same network behind other serving software and behind Gearshift: `make bench-peers`.

A file of `servers/` says how one of them is installed, started and asked; the file of the same name
in `apps/` is the code that its user would write, and runs in an environment of its own, where
`contract.py` and `network.py` are imported too.
"""
