"""Constraints: what one request demands. Parsed from headers and parameters, validated, tightened.

Names come from one table, `KEYS`; a header is its key in another spelling. The parser refuses
what it does not understand: a floor that was misspelt and silently ignored is a broken promise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

from router.card import NAME_PATTERN
from router.errors import InvalidRequest
from router.misspelt import Spelling

Objective = Literal["accuracy", "cost", "latency"]
Priority = Literal["high", "normal", "low"]
Relaxable = Literal["latency", "cost", "accuracy"]

HEADER_PREFIX = "gearshift-"

# Keys of v2 `parameters`, each also a header: max_latency_ms <-> Gearshift-Max-Latency-Ms.
KEYS = (
    "max_latency_ms",
    "min_accuracy",
    "max_cost_usd_per_million",
    "optimize",
    "variant",
    "relax",
    "priority",
)
HEADERS = {HEADER_PREFIX + key.replace("_", "-"): key for key in KEYS}
EXPLAIN_HEADER = HEADER_PREFIX + "explain"

# Deadlines that other systems already send; the tightest of all that are present wins.
GRPC_TIMEOUT = "grpc-timeout"
ENVOY_TIMEOUT = "x-envoy-expected-rq-timeout-ms"
ALIASES = (GRPC_TIMEOUT, ENVOY_TIMEOUT)
# v2 `parameters.timeout`, microseconds, as Triton and its clients use it.
TIMEOUT_PARAMETER = "timeout"
# What is read, and what clients send with every request.
_COMMON = frozenset((*KEYS, TIMEOUT_PARAMETER, "binary_data_output"))

SPELLING = Spelling((*KEYS, TIMEOUT_PARAMETER))
HEADER_SPELLING = Spelling((*HEADERS, EXPLAIN_HEADER))

# Of headers that state constraints: each is stated once, in few words.
_MOST_HEADERS = 32
_LONGEST_VALUE = 256

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,2})?|\.[0-9]{1,30}", re.ASCII)
_NAME = re.compile(NAME_PATTERN)
# gRPC over HTTP/2, "Requests": TimeoutValue is at most 8 digits, then a unit.
_GRPC = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_GRPC_UNIT_MS = {"H": 3.6e6, "M": 6e4, "S": 1e3, "m": 1.0, "u": 1e-3, "n": 1e-6}


@dataclass(frozen=True, slots=True)
class Floor:
    """The least accuracy a request accepts.

    Attributes:
        value: on the task's metric, from 0 to 1; or, when `relative`, the share of the reference
            variant's accuracy, also from 0 to 1.
    """

    value: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{self.value * 100:.10g}%" if self.relative else f"{self.value:.10g}"


@dataclass(frozen=True, slots=True)
class Constraints:
    """What one request demands; None where it demands nothing.

    Attributes:
        max_latency_ms: deadline, from the request's last byte to the answer's first.
        min_accuracy: see `Floor`.
        max_cost_usd_per_million: ceiling on the charge, in USD per million such requests.
        optimize: what to make best among what is allowed; None for the operator's default.
        variant: the one variant, or alias, that may answer.
        relax: what may give way when nothing fits, the first named giving way first.
        priority: who is shed first.
        imposed: whether the deadline is a transport's or a client library's, which sets one for
            every request. It holds like any other, and is no wish: the operator's default still is
            for a request that states nothing besides.
    """

    max_latency_ms: float | None = None
    min_accuracy: Floor | None = None
    max_cost_usd_per_million: float | None = None
    optimize: Objective | None = None
    variant: str | None = None
    relax: tuple[Relaxable, ...] = ()
    priority: Priority = "normal"
    imposed: bool = False


NONE = Constraints()


def parse(
    headers: tuple[tuple[str, str], ...] = (), parameters: Mapping[str, object] | None = None
) -> Constraints:
    """The constraints of one request.

    Args:
        headers: (lower-case name, value) of every header whose name starts with `HEADER_PREFIX`
            or is one of `ALIASES`, in the order they came; others are not looked at.
        parameters: the request's v2 `parameters`; unknown keys are another extension's business,
            but for those that are nearly one of `KEYS`.

    Raises:
        InvalidRequest: an unknown Gearshift header, a misspelt key, a value out of its domain, or
            two sources of one constraint that disagree.
    """
    if not parameters:
        return _of_headers(headers)
    if not parameters.keys() <= _COMMON:
        SPELLING.check("parameters", parameters)
    by_header, their_deadlines = _by_header(headers)
    stated, deadlines = dict(by_header), list(their_deadlines)
    for key in KEYS:
        if key not in parameters:
            continue
        field = f"parameters.{key}"
        value = _PARSERS[key](field, parameters[key])
        if stated.setdefault(key, value) != value:
            header = HEADER_PREFIX + key.replace("_", "-")
            raise InvalidRequest(
                field, parameters[key], f"what the header {header} says, or only one of them"
            )
    deadlines.extend(_timeout(parameters.get(TIMEOUT_PARAMETER)))
    return _together(stated, deadlines)


def pin(constraints: Constraints, variant: str, field: str) -> Constraints:
    """`constraints` with only `variant` allowed, as a path that names a version demands.

    Raises:
        InvalidRequest: the request pins another one already.
    """
    if constraints.variant is not None and constraints.variant != variant:
        raise InvalidRequest(field, variant, f"{constraints.variant!r}, as the request pins")
    return replace(constraints, variant=variant)


def or_default(constraints: Constraints, default: Constraints) -> Constraints:
    """The operator's default for a request that demands nothing; its priority stays its own, and
    so does a deadline that was imposed on it."""
    demands_nothing = (
        (constraints.max_latency_ms is None or constraints.imposed)
        and constraints.min_accuracy is None
        and constraints.max_cost_usd_per_million is None
        and constraints.optimize is None
        and constraints.variant is None
    )
    if not demands_nothing or default == NONE:
        return constraints
    own = replace(default, priority=constraints.priority)
    imposed_ms = constraints.max_latency_ms
    if imposed_ms is not None and imposed_ms < (own.max_latency_ms or math.inf):
        # After that one nobody is there to read an answer, so it is not the operator's to relax.
        own = replace(own, relax=tuple(each for each in own.relax if each != "latency"))
    return tighten(own, imposed_ms)


def tighten(constraints: Constraints, max_latency_ms: float | None) -> Constraints:
    """`constraints` with the tighter of its own deadline and this one, which is imposed."""
    if max_latency_ms is None:
        return constraints
    own = constraints.max_latency_ms
    if own is None:
        return replace(constraints, max_latency_ms=max_latency_ms, imposed=True)
    return replace(constraints, max_latency_ms=min(own, max_latency_ms))


def _together(stated: Mapping[str, object], deadlines: Sequence[float]) -> Constraints:
    demanded = Constraints(**stated) if stated else NONE  # type: ignore[arg-type]
    return tighten(demanded, min(deadlines, default=None))


# Callers repeat themselves: the same few headers come with every request of one app.
# What is refused is not kept, so no more than a few MiB is.
@lru_cache(maxsize=1024)
def _of_headers(headers: tuple[tuple[str, str], ...]) -> Constraints:
    return _together(*_by_header(headers))


@lru_cache(maxsize=1024)
def _by_header(
    headers: tuple[tuple[str, str], ...],
) -> tuple[Mapping[str, object], Sequence[float]]:
    """What headers state, by key, and the deadlines that other systems' headers add."""
    seen: dict[str, str] = {}
    stated: dict[str, object] = {}
    deadlines: list[float] = []
    if len(headers) > _MOST_HEADERS:
        raise InvalidRequest(headers[-1][0], f"{len(headers)} headers", f"at most {_MOST_HEADERS}")
    for name, text in headers:
        if len(text) > _LONGEST_VALUE:
            expected = f"at most {_LONGEST_VALUE} letters"
            raise InvalidRequest(name, text, expected)
        value = text.strip()
        if seen.setdefault(name, value) != value:
            raise InvalidRequest(name, value, f"one value; {seen[name]!r} came before it")
        if name == GRPC_TIMEOUT:
            deadlines.append(_grpc_timeout(value))
        elif name == ENVOY_TIMEOUT:
            deadlines.append(_milliseconds(name, value))
        elif name == EXPLAIN_HEADER:
            explain(value)
        elif name in HEADERS:
            stated[HEADERS[name]] = _PARSERS[HEADERS[name]](name, value)
        else:
            raise HEADER_SPELLING.unknown(name, name, value)
    return stated, deadlines


def explain(text: str) -> bool:
    """The value of `Gearshift-Explain`.

    Raises:
        InvalidRequest: neither true nor false.
    """
    lowered = text.strip().lower()
    if lowered not in ("true", "false"):
        raise InvalidRequest(EXPLAIN_HEADER, text, "true or false")
    return lowered == "true"


def floor(field: str, raw: object) -> Floor:
    """`0.97`, or `"99%"` of the reference variant.

    Raises:
        InvalidRequest: anything else.
    """
    expected = "a number from 0 to 1, or a percentage from 0% to 100% of the reference variant"
    text = raw.strip() if isinstance(raw, str) else raw
    relative = isinstance(text, str) and text.endswith("%")
    number = _number(text[:-1] if isinstance(text, str) and relative else text)
    if number is None or not 0 <= number <= (100 if relative else 1):
        raise InvalidRequest(field, raw, expected)
    return Floor(number / 100, relative=True) if relative else Floor(number)


def _number(raw: object) -> float | None:
    if isinstance(raw, bool):
        return None
    if isinstance(raw, str):
        if not _NUMBER.fullmatch(raw.strip()):
            return None
        raw = float(raw)
    if isinstance(raw, int):
        # A JSON integer may be longer than a float can hold.
        raw = float(raw) if abs(raw) < 10**15 else math.inf
    return raw if isinstance(raw, float) and math.isfinite(raw) else None


def _milliseconds(field: str, raw: object) -> float:
    number = _number(raw)
    if number is None or number <= 0:
        raise InvalidRequest(field, raw, "a positive number of milliseconds")
    return number


def _cost(field: str, raw: object) -> float:
    number = _number(raw)
    if number is None or number < 0:
        raise InvalidRequest(field, raw, "a number of USD per million requests, 0 or more")
    return number


def _choice(field: str, raw: object, choices: tuple[str, ...]) -> str:
    lowered = raw.strip().lower() if isinstance(raw, str) else None
    if lowered not in choices:
        raise InvalidRequest(field, raw, "one of " + ", ".join(choices))
    return lowered


def _optimize(field: str, raw: object) -> str:
    return _choice(field, raw, get_args(Objective))


def _priority(field: str, raw: object) -> str:
    # Triton's clients send whole numbers: 1 is the highest and 0 the server's default.
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return {0: "normal", 1: "high", 2: "normal"}.get(raw, "low")
    return _choice(field, raw, get_args(Priority))


def _variant(field: str, raw: object) -> str:
    if not isinstance(raw, str) or not _NAME.fullmatch(raw.strip()):
        raise InvalidRequest(field, raw, f"a variant's name or alias, matching {NAME_PATTERN}")
    return raw.strip()


def _relax(field: str, raw: object) -> tuple[str, ...]:
    expected = "a comma-separated list of " + ", ".join(get_args(Relaxable))
    if not isinstance(raw, str):
        raise InvalidRequest(field, raw, expected)
    names = tuple(part.strip().lower() for part in raw.split(","))
    if any(name not in get_args(Relaxable) for name in names):
        raise InvalidRequest(field, raw, expected)
    if len(set(names)) != len(names):
        raise InvalidRequest(field, raw, expected + ", each once")
    return names


def _grpc_timeout(text: str) -> float:
    match = _GRPC.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise InvalidRequest(GRPC_TIMEOUT, text, "1 to 8 digits and one of H, M, S, m, u, n")
    return int(match[1]) * _GRPC_UNIT_MS[match[2]]


def _timeout(raw: object) -> tuple[float, ...]:
    field = f"parameters.{TIMEOUT_PARAMETER}"
    if raw is None:
        return ()
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        raise InvalidRequest(field, raw, "a whole number of microseconds")
    # 0 is how Triton's clients say "no timeout"; and some integers are longer than a float holds.
    return (min(raw, 10**18) / 1000,) if raw else ()


_PARSERS = {
    "max_latency_ms": _milliseconds,
    "min_accuracy": floor,
    "max_cost_usd_per_million": _cost,
    "optimize": _optimize,
    "variant": _variant,
    "relax": _relax,
    "priority": _priority,
}
