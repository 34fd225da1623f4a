"""Fuzzing: `python -m tests.drills.fuzz`, or `make fuzz`.

Each kind of case goes to one door of the server: some to the functions behind it (`behind.py`,
`anything.py`), some to a real server (`over_http.py`, `over_grpc.py`). Nothing may come of any but
an answer or a clear refusal: no 5xx (but 504 where the case itself stated a deadline that then
passed), no crash, nothing that takes over a second each time. A case is its kind, its seed and its
number, so one that fails is run again by

    python -m tests.drills.fuzz --kinds KIND --seed SEED --case NUMBER
"""

from tests.drills.fuzz.drill import KINDS, fuzz

__all__ = ["KINDS", "fuzz"]
