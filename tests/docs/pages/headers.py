"""Headers and parameters: from the description that the server gives of itself."""

from __future__ import annotations

from gateway.http.openapi_schemas import INFER_HEADERS, SAID
from router.constraints import HEADERS, TIMEOUT_PARAMETER
from tests.docs.pages import table

VALUES = {
    "gearshift-max-latency-ms": "`40`, `2.5`",
    "gearshift-min-accuracy": "`0.97`, `99%`",
    "gearshift-max-cost-usd-per-million": "`0.5`",
    "gearshift-optimize": "`accuracy` (default), `cost`, `latency`",
    "gearshift-variant": "`int8`, `reference`",
    "gearshift-relax": "`latency,cost,accuracy`",
    "gearshift-priority": "`high`, `normal` (default), `low`",
    "gearshift-explain": "`true`, `false` (default)",
    "grpc-timeout": "`40m`",
    "x-envoy-expected-rq-timeout-ms": "`40`",
    "inference-header-content-length": "`212`",
    "x-request-id": "`order-17`",
    "traceparent": "`00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`",
    "tracestate": "`vendor=1`",
}


def text() -> str:
    asked = []
    for header in INFER_HEADERS:
        name = header["name"]
        key = HEADERS.get(name.lower())
        own = f"`{key}`" if key else ""
        if name == "x-envoy-expected-rq-timeout-ms":
            own = f"`{TIMEOUT_PARAMETER}`, in µs"
        asked.append((f"`{name}`", own, VALUES[name.lower()], header["description"]))
    missing = set(HEADERS) - {header["name"].lower() for header in INFER_HEADERS}
    assert not missing, missing
    said = [
        (f"`{name}`", "always" if about["required"] else "sometimes", about["description"])
        for name, about in SAID.items()
    ]
    return "\n".join(
        [
            _INTRODUCTION,
            table(("header", "`parameters` key", "values", "what it says"), asked),
            _SAID,
            table(("header", "there", "what it says"), said),
            _EXAMPLE,
        ]
    )


_INTRODUCTION = """# Headers and parameters

## Of a request

Each constraint is a header, a key of v2's `parameters`, and over gRPC metadata by the header's name
in lower case. Two that say different things are an error; an unknown `Gearshift-` header is one
too, and a key that is nearly one of these, since a misspelt floor would silently demand nothing. Of
several deadlines the tightest counts.
A request that states nothing gets the operator's defaults, the settings `default_…`.
[What each promises](../explanation/routing.md#what-each-header-promises).
"""
_SAID = """
## Of an answer

Over gRPC the same names stand in the trailing metadata. The answer's `model_version` is the
variant.
"""
_EXAMPLE = """
```sh
curl -s http://127.0.0.1:8080/v2/models/digits/decide --data @models/digits/sample.json \\
  -H 'Gearshift-Min-Accuracy: 97%' -H 'Gearshift-Optimize: latency'
```

`decide` takes what `infer` takes, decides without running, and answers the whole decision: the
variant, what it promises, and why each of the others was not chosen.
"""
