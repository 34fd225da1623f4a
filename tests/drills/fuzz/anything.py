"""Whatever JSON and text hypothesis thinks of, to the functions behind the door."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from router import constraints
from tests.drills import mutations
from tests.drills.fuzz.behind import decoded
from tests.drills.fuzz.cases import Runs, Tally
from tests.drills.mutations import DATATYPES


def hypothesis_cases(count: int, seed: int) -> Tally:
    """Any JSON at all as a request, and text that hypothesis thinks of as headers."""
    # A function waits for nothing: what others do with the processor is not its time.
    runs = Runs(time.thread_time)
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
        | st.sampled_from([*mutations.NAMES, *DATATYPES])
    )  # fmt: skip
    names = st.sampled_from(mutations.NAMES) | st.text(max_size=5)
    anything = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
        max_leaves=12,
    )
    tensor = st.fixed_dictionaries(
        {"name": st.just("given") | anything, "datatype": st.sampled_from(DATATYPES) | anything},
        optional={
            "shape": st.lists(st.integers(-1, 4), max_size=3) | anything,
            "data": anything,
            "parameters": st.dictionaries(names, anything, max_size=3),
        },
    )
    document = anything | st.fixed_dictionaries(
        {"inputs": st.lists(tensor, max_size=2)},
        optional={"parameters": anything, "outputs": anything, "id": anything},
    )
    headers = st.lists(
        st.tuples(st.sampled_from([*constraints.HEADERS, *constraints.ALIASES]), st.text()),
        max_size=3,
    )

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(document, headers, st.sampled_from(DATATYPES))
    def cases(document: object, headers: list[tuple[str, str]], datatype: str) -> None:
        def case() -> str:
            constraints.parse(tuple(headers))
            return decoded(mutations.text_of(document), None, datatype)

        runs.first(f"{document!r} {headers!r} {datatype}", case)

    cases()
    return runs.told()
