"""Envoy's file is read by Envoy's own messages, and its routes are walked as Envoy does."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings
from tests.deploy import operators
from tests.proxies import CONFIG

ENVOY = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
INFER = "/v2/models/echo/infer"
CALL = "/inference.GRPCInferenceService/ModelInfer"


def _envoy_messages() -> dict[str, Any]:
    """The messages that typed configurations may be, by their type's URL."""
    places = {
        "envoy.extensions.filters.network.http_connection_manager.v3": "HttpConnectionManager",
        "envoy.extensions.retry.host.previous_hosts.v3": "PreviousHostsPredicate",
        "envoy.extensions.filters.http.router.v3": "Router",
        "envoy.extensions.upstreams.http.v3": "HttpProtocolOptions",
    }
    return {
        f"type.googleapis.com/{place}.{name}": getattr(
            importlib.import_module(f"envoy_data_plane.{place}"), name
        )
        for place, name in places.items()
    }


def _checked(node: Any, messages: dict[str, Any]) -> Any:
    """`node` less its typed configurations, each of which was read by its own message."""
    if isinstance(node, list):
        return [_checked(one, messages) for one in node]
    if not isinstance(node, dict):
        return node
    inner = {name: _checked(value, messages) for name, value in node.items() if name != "@type"}
    if "@type" not in node:
        return inner
    messages[node["@type"]].from_dict(inner)
    return {"@type": "type.googleapis.com/google.protobuf.Empty"}


# Of the package's own messages.
@pytest.mark.filterwarnings("ignore:Using `@model_validator`:DeprecationWarning")
def test_envoy_knows_every_field() -> None:
    from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap

    document = yaml.safe_load(ENVOY.read_text(encoding="utf-8"))
    messages = _envoy_messages()
    bootstrap = Bootstrap.from_dict(_checked(document, messages))
    assert [one.name for one in bootstrap.static_resources.listeners] == ["rest", "grpc"]
    document["static_resources"]["clusters"][0]["no_such_field"] = 1
    with pytest.raises(KeyError, match="no_such_field"):
        Bootstrap.from_dict(_checked(document, messages))


def _managers(document: Any) -> Iterator[dict[str, Any]]:
    """What each listener does with HTTP: of REST, of gRPC."""
    for listener in document["static_resources"]["listeners"]:
        (chain,) = listener["filter_chains"]
        yield chain["filters"][0]["typed_config"]


def _route(manager: dict[str, Any], path: str) -> dict[str, Any]:
    """What becomes of a path: the first that matches, as Envoy has it."""
    (host,) = manager["route_config"]["virtual_hosts"]
    for one in host["routes"]:
        match = one["match"]
        if path == match.get("path") or path.startswith(match.get("prefix", "\0")):
            return one
    raise AssertionError(f"no route for {path}")


@pytest.fixture
def document() -> Any:
    return yaml.safe_load(ENVOY.read_text(encoding="utf-8"))


def _clusters(document: Any) -> dict[str, Any]:
    return {one["name"]: one for one in document["static_resources"]["clusters"]}


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_envoy_sends_again_only_what_was_not_taken(document: Any) -> None:
    rest, rpc = _managers(document)
    safe = {"connect-failure", "refused-stream", "reset-before-request"}
    policy = _route(rest, INFER)["route"]["retry_policy"]
    assert set(policy["retry_on"].split(",")) == {*safe, "retriable-status-codes"}
    assert policy["retriable_status_codes"] == [503]
    other = _route(rpc, CALL)["route"]["retry_policy"]
    assert set(other["retry_on"].split(",")) == {*(safe - {"reset-before-request"}), "unavailable"}
    for one in (policy, other):
        assert one["num_retries"] == 1
        (predicate,) = one["retry_host_predicate"]
        assert predicate["name"].endswith("previous_hosts"), "elsewhere"


def test_what_envoy_waits_is_longer_than_what_gateways_do(document: Any) -> None:
    rest, rpc = _managers(document)
    settings = Settings()
    nginx = dict(re.findall(r"^ *(\w+_timeout) (\d+)s;", CONFIG.read_text(encoding="utf-8"), re.M))
    route = _route(rest, INFER)["route"]
    assert _seconds(route["timeout"]) == _seconds(rest["stream_idle_timeout"])
    assert _seconds(route["timeout"]) == float(nginx["proxy_read_timeout"])
    assert _seconds(route["timeout"]) > settings.read_timeout_seconds
    assert _seconds(rest["request_timeout"]) == settings.read_timeout_seconds
    assert _seconds(_route(rpc, CALL)["route"]["timeout"]) == 0, "streams go on"
    assert _seconds(rpc["stream_idle_timeout"]) == float(nginx["grpc_read_timeout"])
    for cluster in _clusters(document).values():
        assert _seconds(cluster["connect_timeout"]) == float(nginx["proxy_connect_timeout"])
        ((options,)) = cluster["typed_extension_protocol_options"].values()
        idle_s = _seconds(options["common_http_protocol_options"]["idle_timeout"])
        assert idle_s < settings.idle_timeout_seconds


def test_envoy_leaves_alone_only_a_gateway_that_is_not_ready(document: Any) -> None:
    rest, rpc = _managers(document)
    clusters = _clusters(document)
    used = {_route(rest, INFER)["route"]["cluster"], _route(rpc, CALL)["route"]["cluster"]}
    assert used == clusters.keys()
    for cluster in clusters.values():
        # By its answers it would be: those of one model, which are no fault of the others.
        assert "outlier_detection" not in cluster
        (check,) = cluster["health_checks"]
        assert check["http_health_check"] == {"path": "/readyz"}
        assert check["unhealthy_threshold"] == check["healthy_threshold"] == 1
        # Both are asked at the port of REST.
        (locality,) = cluster["load_assignment"]["endpoints"]
        ends = [one["endpoint"] for one in locality["lb_endpoints"]]
        asked = [
            one.get("health_check_config", one["address"]["socket_address"])["port_value"]
            for one in ends
        ]
        assert asked == [8080, 8180]
        assert 2 * _seconds(check["interval"]) + _seconds(check["timeout"]) <= 3, "as the page says"


def test_nobody_administrates_through_envoy(document: Any) -> None:
    rest, rpc = _managers(document)
    assert len(operators.paths()) > 10
    held_back = [_route(rest, path) for path in operators.paths()]
    held_back += [_route(rpc, path) for path in operators.GRPC]
    assert {one["direct_response"]["status"] for one in held_back} == {403}
    assert _route(rest, "/metrics")["direct_response"]["status"] == 404
    for path in (INFER, "/", "/console/state", "/v2/repository/index", "/readyz"):
        assert "route" in _route(rest, path), path
    for manager in (rest, rpc):
        # One spelling for each path, and the gateway is told that it is from elsewhere.
        assert manager["normalize_path"] and manager["merge_slashes"]
        assert manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
        assert manager["use_remote_address"]
        assert not manager.get("skip_xff_append")


def test_it_names_the_default_ports() -> None:
    settings, text = Settings(), ENVOY.read_text(encoding="utf-8")
    assert str(settings.port) in text and str(settings.port + 1) in text
