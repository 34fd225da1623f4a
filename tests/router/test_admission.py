"""Who is turned away first."""

from router.admission import admits


def test_low_is_shed_first_then_normal_then_high() -> None:
    admitted = {
        priority: sum(admits(queued, 100, priority) for queued in range(200))
        for priority in ("low", "normal", "high")
    }
    assert admitted == {"low": 50, "normal": 90, "high": 100}


def test_a_queue_of_one_admits_everyone_when_empty() -> None:
    assert all(admits(0, 1, priority) for priority in ("low", "normal", "high"))
