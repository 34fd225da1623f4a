"""The search: which recipes fill the frontier of a task, found within a budget of time.

space.py      what there is to choose from
frontier.py   when one recipe beats another
record.py     what was found, on disk
choose.py     what to do next: a pure function of the record
run.py        does it: trains, lowers, measures, and builds what was found at the end
"""
