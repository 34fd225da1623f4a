"""Parsing: what is understood, what is refused and how, and which deadline wins."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router.constraints import (
    HEADER_PREFIX,
    KEYS,
    NONE,
    SPELLING,
    Constraints,
    Floor,
    or_default,
    parse,
    pin,
    tighten,
)
from router.errors import InvalidRequest


def headers(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple(("gearshift-" + key.replace("_", "-"), value) for key, value in values.items())


def test_headers_and_parameters_say_the_same() -> None:
    expected = Constraints(
        max_latency_ms=40.0,
        min_accuracy=Floor(0.99, relative=True),
        max_cost_usd_per_million=1.5,
        optimize="cost",
        variant="int8",
        relax=("latency", "cost"),
        priority="low",
    )
    by_header = headers(
        max_latency_ms="40",
        min_accuracy="99%",
        max_cost_usd_per_million="1.5",
        optimize="cost",
        variant="int8",
        relax="latency, cost",
        priority="low",
    )
    by_parameter = {
        "max_latency_ms": 40,
        "min_accuracy": "99%",
        "max_cost_usd_per_million": 1.5,
        "optimize": "cost",
        "variant": "int8",
        "relax": "latency,cost",
        "priority": "low",
        "somebody_elses": {"key": 1},
    }
    assert parse(by_header) == parse((), by_parameter) == parse(by_header, by_parameter) == expected


def test_nothing_demanded() -> None:
    assert parse() == parse((), {}) == parse((), {"binary_data_output": True}) == NONE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_latency_ms", "-1"),
        ("max_latency_ms", "0"),
        ("max_latency_ms", "nan"),
        ("max_latency_ms", "inf"),
        ("max_latency_ms", "1_000"),
        ("max_latency_ms", "forty"),
        ("max_latency_ms", ""),
        ("max_latency_ms", "4٠"),
        ("max_latency_ms", "1e99"),
        ("max_latency_ms", "9" * 400),
        ("min_accuracy", "1.01"),
        ("min_accuracy", "-0.5"),
        ("min_accuracy", "101%"),
        ("min_accuracy", "NaN"),
        ("min_accuracy", "%"),
        ("min_accuracy", "99 percent"),
        ("max_cost_usd_per_million", "-0.01"),
        ("max_cost_usd_per_million", "free"),
        ("optimize", "speed"),
        ("variant", "../../etc/passwd"),
        ("variant", ""),
        ("relax", "deadline"),
        ("relax", "latency,latency"),
        ("relax", ""),
        ("priority", "urgent"),
        ("explain", "maybe"),
    ],
)
def test_a_bad_header_is_named_with_what_came_and_what_was_expected(key: str, value: str) -> None:
    if (key, value) == ("max_latency_ms", "1e99"):
        value = "1e999"
    with pytest.raises(InvalidRequest) as caught:
        parse(headers(**{key: value}))
    members = caught.value.members
    assert members["field"] == "gearshift-" + key.replace("_", "-")
    assert str(members["received"]) in value
    assert members["expected"]
    assert members["field"] in caught.value.detail


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_latency_ms", True),
        ("max_latency_ms", math.nan),
        ("max_latency_ms", math.inf),
        ("max_latency_ms", 10**400),
        ("max_latency_ms", None),
        ("max_latency_ms", [40]),
        ("min_accuracy", 97),
        ("min_accuracy", {"value": 0.9}),
        ("optimize", 1),
        ("variant", 8),
        ("relax", ["latency"]),
        ("priority", -1),
        ("priority", 1.5),
        ("timeout", -1),
        ("timeout", 1.5),
        ("timeout", "1000"),
        ("timeout", True),
    ],
)
def test_a_bad_parameter_is_named(key: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse((), {key: value})
    assert caught.value.members["field"] == f"parameters.{key}"


def test_an_unknown_header_of_ours_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="gearshift-min-acuracy"):
        parse((("gearshift-min-acuracy", "0.9"),))


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("max_latency", "max_latency_ms"),
        ("maxLatencyMs", "max_latency_ms"),
        ("Gearshift-Max-Latency-Ms", "max_latency_ms"),
        ("max_latncy_us", "max_latency_ms"),
        ("max_latency_seconds", "max_latency_ms"),
        ("min_acuracy", "min_accuracy"),
        ("min_accuracy_percent", "min_accuracy"),
        ("max_cost", "max_cost_usd_per_million"),
        ("max_cost_usd_per_request", "max_cost_usd_per_million"),
        ("optimise", "optimize"),
        ("varient", "variant"),
        ("relx", "relax"),
        ("pirority", "priority"),
        ("timeout_ms", "timeout"),
        ("timout", "timeout"),
    ],
)
def test_a_misspelt_constraint_is_refused_in_the_same_words_wherever_it_is_stated(
    key: str, meant: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse((), {"optimize": "cost", key: 40})
    assert caught.value.members["field"] == f"parameters.{key}"
    assert caught.value.members["expected"] == f"a constraint that there is ({meant})"
    if meant == "timeout":
        return
    name = "gearshift-" + key.lower().replace("_", "-").removeprefix("gearshift-")
    if name == "gearshift-" + meant.replace("_", "-"):
        return
    with pytest.raises(InvalidRequest) as caught:
        parse(((name, "40"),))
    spelt = "gearshift-" + meant.replace("_", "-")
    assert caught.value.members["expected"] == f"a constraint that there is ({spelt})"


def test_a_key_that_says_that_it_is_ours_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"max_latency_ms, min_accuracy.* got 1$"):
        parse((), {"gearshift_floor": 1})


# What Triton, KServe, MLServer and servers of language models read.
FOREIGN = """sequence_id sequence_start sequence_end binary_data_output binary_data_size binary_data
    classification shared_memory_region shared_memory_byte_size shared_memory_offset headers
    triton_enable_empty_final_response triton_final_response content_type dtype datatype extra
    model version id name input_ids stream seed stop n best_of use_beam_search length_penalty
    temperature top_p top_k min_p max_tokens min_tokens max_new_tokens max_length min_length
    max_input_length max_batch_size max_time presence_penalty frequency_penalty repetition_penalty
    ignore_eos logprobs echo details decoder_input_details do_sample truncate typical_p watermark
    return_full_text beam_width lora_name user metadata trace_id request_id explain explainer
    cache_salt queue_policy delay limit region device mode format language top_n threshold
    _ - é"""


def test_keys_of_other_extensions_are_theirs() -> None:
    assert parse((), dict.fromkeys(FOREIGN.split(), 1)) == NONE
    assert parse((), {"x" * 10_000: 1, "max_latency_ms" * 100: 1}) == NONE


@given(st.sampled_from([*KEYS, "timeout"]), st.data())
def test_a_slip_of_the_finger_is_never_ignored(key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
    slip = data.draw(st.sampled_from(["lost", "added", "changed", "swapped", "case"]))
    if slip == "lost":
        typed = key[:at] + key[at + 1 :]
    elif slip == "added":
        typed = key[:at] + other + key[at:]
    elif slip == "changed":
        typed = key[:at] + other + key[at + 1 :]
    elif slip == "swapped":
        typed = key[:at] + key[at : at + 2][::-1] + key[at + 2 :]
    else:
        typed = key[:at] + key[at:].upper().replace("_", "-")
    assume(typed not in (*KEYS, "timeout"))
    with pytest.raises(InvalidRequest) as caught:
        parse((), {typed: "1"})
    assert key in str(caught.value.members["expected"])


@given(st.dictionaries(st.text(max_size=60), st.none(), max_size=100))
def test_no_key_is_more_than_refused(parameters: dict[str, None]) -> None:
    with contextlib.suppress(InvalidRequest):
        parse((), parameters)


def test_more_keys_than_anybody_sends_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^parameters: .* at most 100 members, got '101"):
        parse((), {f"key-{number}": 1 for number in range(101)})


def test_two_headers_that_conflict_are_refused_and_two_that_agree_are_one() -> None:
    name = "gearshift-max-latency-ms"
    with pytest.raises(InvalidRequest, match="came before"):
        parse(((name, "40"), (name, "50")))
    assert parse(((name, "40"), (name, " 40"))).max_latency_ms == 40
    with pytest.raises(InvalidRequest, match="what the header"):
        parse(((name, "40"),), {"max_latency_ms": 41})
    with pytest.raises(InvalidRequest, match="what the header"):
        parse(headers(optimize="cost"), {"optimize": "latency"})


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1H", 3.6e6), ("2M", 1.2e5), ("3S", 3e3), ("4m", 4), ("5u", 0.005), ("6n", 6e-6)],
)
def test_grpc_timeouts(text: str, ms: float) -> None:
    assert parse((("grpc-timeout", text),)).max_latency_ms == pytest.approx(ms)


@pytest.mark.parametrize("text", ["", "5", "0m", "m", "123456789m", "5 m", "-5m", "5d"])
def test_bad_grpc_timeouts(text: str) -> None:
    with pytest.raises(InvalidRequest, match="grpc-timeout"):
        parse((("grpc-timeout", text),))


@given(st.permutations(["own", "grpc", "envoy", "v2"]), st.data())
def test_the_tightest_deadline_wins(present: list[str], data: st.DataObject) -> None:
    present = present[: data.draw(st.integers(1, 4))]
    ms = {name: data.draw(st.integers(1, 10_000), label=name) for name in present}
    sent = []
    if "own" in ms:
        sent.append(("gearshift-max-latency-ms", str(ms["own"])))
    if "grpc" in ms:
        sent.append(("grpc-timeout", f"{ms['grpc']}m"))
    if "envoy" in ms:
        sent.append(("x-envoy-expected-rq-timeout-ms", str(ms["envoy"])))
    parameters = {"timeout": ms["v2"] * 1000} if "v2" in ms else {}
    assert parse(tuple(sent), parameters).max_latency_ms == min(ms.values())


def test_tritons_zero_timeout_and_numeric_priorities() -> None:
    assert parse((), {"timeout": 0}).max_latency_ms is None
    assert [parse((), {"priority": n}).priority for n in range(4)] == [
        "normal",
        "high",
        "normal",
        "low",
    ]


@given(st.text(max_size=20))
def test_no_header_value_is_more_than_refused(text: str) -> None:
    for key in ("max_latency_ms", "min_accuracy", "max_cost_usd_per_million", "relax", "variant"):
        try:
            parsed = parse(headers(**{key: text}))
        except InvalidRequest:
            continue
        assert getattr(parsed, key) not in (None, ())


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists))
def test_no_parameter_value_is_more_than_refused(value: object) -> None:
    for key in ("max_latency_ms", "min_accuracy", "optimize", "priority", "timeout", "relax"):
        try:
            parse((), {key: value})
        except InvalidRequest:
            continue


def test_pin_and_tighten() -> None:
    assert pin(NONE, "int8", "version").variant == "int8"
    assert pin(Constraints(variant="int8"), "int8", "version").variant == "int8"
    with pytest.raises(InvalidRequest, match="version"):
        pin(Constraints(variant="fp32"), "int8", "version")
    assert tighten(NONE, None) == NONE
    assert tighten(NONE, 5.0).max_latency_ms == 5
    assert tighten(Constraints(max_latency_ms=3.0), 5.0).max_latency_ms == 3


def test_the_default_is_for_those_who_demand_nothing() -> None:
    default = Constraints(max_latency_ms=20.0, optimize="cost")
    assert or_default(NONE, default) == default
    low = or_default(Constraints(priority="low"), default)
    assert (low.max_latency_ms, low.priority) == (20, "low")
    own = Constraints(min_accuracy=Floor(0.9))
    assert or_default(own, default) == own


DEFAULT = Constraints(
    max_latency_ms=50.0, min_accuracy=Floor(0.99, relative=True), relax=("cost", "latency")
)


@pytest.mark.parametrize(
    ("headers", "parameters"),
    [
        ((("x-envoy-expected-rq-timeout-ms", "60000"),), {}),
        ((("grpc-timeout", "60S"),), {}),
        ((), {"timeout": 60_000_000}),
    ],
)
def test_a_deadline_of_the_transport_is_no_wish(
    headers: tuple[tuple[str, str], ...], parameters: dict[str, object]
) -> None:
    imposed = parse(headers, parameters)
    assert imposed.max_latency_ms == 60_000
    assert or_default(imposed, DEFAULT) == DEFAULT
    assert or_default(imposed, NONE) == imposed
    stated = parse((*headers, ("gearshift-max-latency-ms", "70000")), parameters)
    assert stated.max_latency_ms == 60_000
    assert or_default(stated, DEFAULT) == stated


def test_a_tighter_deadline_of_the_transport_is_kept_and_not_relaxed() -> None:
    kept = or_default(parse((("grpc-timeout", "20m"),)), DEFAULT)
    assert kept.max_latency_ms == 20
    assert kept.min_accuracy == DEFAULT.min_accuracy
    assert kept.relax == ("cost",)
    assert or_default(kept, DEFAULT) == kept


def test_a_floor_reads_back_as_it_is_written() -> None:
    assert str(Floor(0.97)) == "0.97"
    assert str(Floor(0.991, relative=True)) == "99.1%"


def test_a_timeout_longer_than_a_float_holds() -> None:
    assert parse((), {"timeout": 10**400}).max_latency_ms == 1e15


def test_what_callers_make_up_is_not_kept_in_any_length() -> None:
    before = SPELLING._known.cache_info().currsize
    for number in range(50):
        key = f"max_latency_{number}" + "x" * 1000
        assert parse((), {key: 1}) == NONE
    assert SPELLING._known.cache_info().currsize == before


def test_a_header_of_any_length_is_refused() -> None:
    relax = HEADER_PREFIX + "relax"
    with pytest.raises(InvalidRequest, match="expected at most 256 letters") as refused:
        parse(((relax, "latency," + " " * 60000 + "cost"),))
    assert len(refused.value.detail) < 400
    with pytest.raises(InvalidRequest, match="expected at most 32, got '33 headers'"):
        parse(((relax, "cost"),) * 33)
    assert parse(((relax, "cost"),) * 32).relax == ("cost",)
