"""What counts as the same output, and what does not."""

from __future__ import annotations

import pytest

from tests.docs.written import agrees


@pytest.mark.parametrize(
    ("shown", "wrote"),
    [
        ("took 1.5 ms", "took 27 ms"),
        ("[-0.5,2,1e-3]", "[0.0, 1.0]"),
        ("key 0123456789ab", "key fedcba987654"),
        ("| a |\n|---|", "| a  |\n|------|"),
        ("first\n...\nlast", "first\n2\n3\nlast"),
        ('{"a":1,...}', '{"a":1,"b":"c"}'),
        ("1,234 requests", "7 requests"),
    ],
)
def test_what_differs_by_machine_does_not_count(shown: str, wrote: str) -> None:
    assert agrees(shown, wrote)


@pytest.mark.parametrize(
    ("shown", "wrote"),
    [
        ("int8", "int4"),
        ("fp32 10", "bf16 10"),
        ("status: ready", "status: failed"),
        ("first\nlast", "first\nmore\nlast"),
        ("", "Traceback"),
        ('{"a":1}', '{"a":1,"b":"c"}'),
        ("HTTP/1.1 200 OK", "HTTP/1.1 500 OK"),
        ('{"status":422}', '{"status":503}'),
        ("{'status': 422}", "{'status': 503}"),
        ("exit status 1", "exit status 2"),
    ],
)
def test_what_is_said_counts(shown: str, wrote: str) -> None:
    assert not agrees(shown, wrote)
