"""PromQL: the few shapes that every query of the dashboards has, and what each ratio means.

A ratio is empty, not NaN, where nothing was asked for, and 0, not empty, where everything failed.
"""

from __future__ import annotations

MODEL = 'model=~"$model"'
TENANT = 'tenant=~"$tenant"'
OK = 'outcome="ok"'

# What the panel's resolution asks for, and what the time range at the top of the page spans.
STEP = "$__rate_interval"
RANGE = "$__range"

# Outcomes that are the caller's own errors: no variant could have answered such a request.
CALLERS_OWN = "|".join(
    (
        "budget-spent", "caller-left", "forbidden", "invalid-request", "rate-limited",
        "too-large", "unauthorized", "unknown-model", "unknown-variant", "unsatisfiable",
    )
)  # fmt: skip


def selected(metric: str, *selectors: str) -> str:
    """The series of `metric` that all `selectors` let through."""
    return f"{metric}{{{', '.join(selectors)}}}" if selectors else metric


def summed(metric: str, *selectors: str, by: str = "", function: str = "sum") -> str:
    """A gauge over workers and instances, for each combination of the labels in `by`."""
    return f"{function}{_by(by)} ({selected(metric, *selectors)})"


def rate(metric: str, *selectors: str, by: str = "", over: str = STEP) -> str:
    """What a counter grows by in a second."""
    return f"sum{_by(by)} (rate({selected(metric, *selectors)}[{over}]))"


def grown(metric: str, *selectors: str, by: str = "", over: str = RANGE) -> str:
    """What a counter grew by in all."""
    return f"sum{_by(by)} (increase({selected(metric, *selectors)}[{over}]))"


def quantile(share: float, metric: str, *selectors: str, by: str = "", over: str = STEP) -> str:
    """A quantile of a histogram, which is named without its suffix."""
    labels = f"le, {by}" if by else "le"
    buckets = rate(f"{metric}_bucket", *selectors, by=labels, over=over)
    return f"histogram_quantile({share:g}, {buckets})"


def mean(metric: str, *selectors: str, by: str = "", over: str = STEP) -> str:
    """The mean of a histogram, which is named without its suffix."""
    of, number = (rate(f"{metric}_{part}", *selectors, by=by, over=over) for part in _MEAN)
    return f"{of} / ({number} > 0)"


def share(part: str, whole: str) -> str:
    """`part` of `whole`, which have the same labels."""
    return f"(({part}) or 0 * ({whole})) / (({whole}) > 0)"


def attainment(*selectors: str, by: str = "", over: str = STEP) -> str:
    """Deadlines kept, of those that were not given up by the caller's own leave."""
    name = "gearshift_deadlines_total"
    kept = rate(name, *selectors, 'outcome="kept"', by=by, over=over)
    return share(kept, rate(name, *selectors, 'outcome!="relaxed"', by=by, over=over))


def accuracy_over_all(by: str = "", over: str = STEP) -> str:
    """Accuracy of timely answers, over every request that could have been answered."""
    credit = rate("gearshift_accuracy_credit_total", MODEL, 'timely="true"', by=by, over=over)
    answered = rate(_ANSWERED, MODEL, by=by, over=over)
    failed = rate(
        "gearshift_requests_total", MODEL, f'outcome!~"ok|{CALLERS_OWN}"', by=by, over=over
    )
    return share(credit, f"{answered} + {failed} or {answered} or {failed}")


def accuracy_over_answered(by: str = "", over: str = STEP) -> str:
    """Accuracy of the answers, over the answered requests alone."""
    credit = rate("gearshift_accuracy_credit_total", MODEL, by=by, over=over)
    return share(credit, rate(_ANSWERED, MODEL, by=by, over=over))


def coverage(*selectors: str, by: str = "", over: str = STEP) -> str:
    """Answers that came within the latency that was predicted for them."""
    name = "gearshift_predictions_total"
    within = rate(name, *selectors, 'outcome="within"', by=by, over=over)
    return share(within, rate(name, *selectors, by=by, over=over))


def floors_kept(*selectors: str, by: str = "", over: str = STEP) -> str:
    """Answers at or above the accuracy floor that was asked for."""
    name = "gearshift_accuracy_floors_total"
    kept = rate(name, *selectors, 'outcome="kept"', by=by, over=over)
    return share(kept, rate(name, *selectors, by=by, over=over))


def utilisation(over: str = STEP) -> str:
    """The share of the lanes' time that they ran batches."""
    return share(rate("gearshift_lane_busy_seconds_total", over=over), summed("gearshift_lanes"))


_MEAN = ("sum", "count")
# One series for each model, as the credit has: a new one among the many of
# `gearshift_requests_total` hides its first increase, and accuracy would exceed 1.
_ANSWERED = "gearshift_overhead_seconds_count"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
