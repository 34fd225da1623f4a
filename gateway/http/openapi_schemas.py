"""The schemas of the OpenAPI document: what requests and answers hold, in JSON Schema."""

from __future__ import annotations

from typing import Any, get_args

from router import constraints
from router.card import Datatype
from router.constraints import Objective, Priority

Schema = dict[str, Any]

# What `router.constraints` takes for a number, of the sizes that make sense.
_NUMBER = r"^[0-9]{1,15}(\.[0-9]{1,15})?$"


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_NUMERIC: Schema = {"type": "number"}
_ANY: Schema = {"type": "object"}
_MAYBE_ANY: Schema = {"type": ["object", "null"]}
_DATATYPE: Schema = {"type": "string", "enum": list(get_args(Datatype))}
_TIMED = _object(("count", "ns"), count=_WHOLE, ns=_WHOLE)

_TENSOR = _object(
    ("name", "datatype", "shape"),
    name=_TEXT,
    datatype=_DATATYPE,
    shape=_list({"type": "integer", "minimum": 1}),
    parameters=_MAYBE_ANY,
    data={"type": "array", "description": "Elements, flat or nested; absent where binary."},
)
_PORT = _object(
    ("name", "datatype", "shape"),
    name=_TEXT,
    datatype=_DATATYPE,
    shape=_list({"type": "integer", "minimum": -1}),
    parameters=_ANY,
)
_WANTED = _object(("name",), name=_TEXT, parameters=_MAYBE_ANY)
_REQUEST: dict[str, Schema] = {
    "id": {"type": ["string", "null"]},
    "model_name": {"description": "Repeats the path; not read."},
    "model_version": {"description": "Repeats the path; not read."},
    "parameters": {
        "type": ["object", "null"],
        "description": f"Constraints ({', '.join(constraints.KEYS)}), timeout in microseconds, "
        "binary_data_output; other keys are not read.",
    },
    "inputs": {"type": "array", "items": _ref("RequestTensor"), "minItems": 1},
    "outputs": {"type": ["array", "null"], "items": _ref("RequestedOutput")},
}

SCHEMAS: dict[str, Schema] = {
    "Problem": {
        **_object(
            ("type", "title", "status", "detail", "error", "code"),
            type=_TEXT,
            title=_TEXT,
            status={"type": "integer"},
            detail=_TEXT,
            error=_TEXT,
            code=_TEXT,
            retryable={"type": "boolean"},
            retry_after_s=_NUMERIC,
            field=_TEXT,
            received=_TEXT,
            expected=_TEXT,
        ),
        "description": "RFC 9457; `error` repeats the detail, where v2 clients look for it.",
    },
    "RequestTensor": _TENSOR,
    "RequestedOutput": _WANTED,
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": _REQUEST,
        "additionalProperties": False,
    },
    "InferResponse": _object(
        ("model_name", "model_version", "outputs"),
        model_name=_TEXT,
        model_version={**_TEXT, "description": "The variant that answered."},
        id=_TEXT,
        parameters=_ANY,
        outputs=_list(_ref("ResponseTensor")),
    ),
    "ResponseTensor": _TENSOR,
    "DecideRequest": {
        "type": "object",
        "properties": {
            **_REQUEST,
            "inputs": {"description": "As for infer; the first one's shape says the rows."},
            "outputs": {},
            "id": {},
            "rows": {"type": "integer", "minimum": 1, "default": 1},
        },
        "additionalProperties": False,
    },
    "Decision": _object(
        ("model", "verdict", "objective", "refused", "why"),
        model=_TEXT,
        verdict={
            "type": "string",
            "enum": ["accepted", "unsatisfiable", "overloaded", "not-ready"],
        },
        objective={"type": "string", "enum": list(get_args(Objective))},
        refused=_list(_object(("variant", "constraint", "text"))),
        why=_TEXT,
        variant=_TEXT,
        reason=_TEXT,
        predicted_latency_ms=_NUMERIC,
        accuracy=_NUMERIC,
        cost_usd_per_million=_NUMERIC,
        allowed=_list(_TEXT),
        relaxed=_list(_TEXT),
        nearest=_ANY,
        nearest_together=_ANY,
    ),
    "ServerMetadata": _object(
        ("name", "version", "extensions"), name=_TEXT, version=_TEXT, extensions=_list(_TEXT)
    ),
    "ModelMetadata": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_ref("Port")),
        outputs=_list(_ref("Port")),
    ),
    "Port": _PORT,
    "ModelConfig": _object(
        ("name", "platform", "max_batch_size", "input", "output"),
        name=_TEXT,
        platform=_TEXT,
        max_batch_size=_WHOLE,
        input=_list(_ANY),
        output=_list(_ANY),
    ),
    "ModelReady": _object(
        ("name", "ready"), name=_TEXT, version=_TEXT, ready={"type": "boolean"}
    ),
    "Ready": _object(("ready",), ready={"type": "boolean"}),
    "Live": _object(("live",), live={"type": "boolean"}),
    "Statistics": _object(("model_stats",), model_stats=_list(_ref("VariantStatistics"))),
    "VariantStatistics": _object(
        (
            "name", "version", "last_inference", "inference_count", "execution_count",
            "inference_stats", "batch_stats",
        ),
        name=_TEXT,
        version=_TEXT,
        last_inference=_WHOLE,
        inference_count=_WHOLE,
        execution_count=_WHOLE,
        inference_stats={"type": "object", "additionalProperties": _TIMED},
        batch_stats=_list(_object(("batch_size", "compute_infer"), compute_infer=_TIMED)),
    ),
    "Index": _list(
        _object(
            ("name", "version", "state", "reason"),
            name=_TEXT,
            version=_TEXT,
            state=_TEXT,
            reason=_TEXT,
        )
    ),
}  # fmt: skip

_CONSTRAINTS: dict[str, tuple[Schema, str]] = {
    "Gearshift-Max-Latency-Ms": (
        {"type": "string", "pattern": r"^[1-9][0-9]{0,8}(\.[0-9]{1,9})?$"},
        "Deadline, from the request's last byte to the answer's first.",
    ),
    "Gearshift-Min-Accuracy": (
        {"type": "string", "pattern": r"^(0(\.[0-9]{1,9})?|1|([1-9]?[0-9]|100)%)$"},
        "Floor: 0.97 on the task's metric, or 99% of the reference variant.",
    ),
    "Gearshift-Max-Cost-Usd-Per-Million": (
        {"type": "string", "pattern": _NUMBER},
        "Ceiling on what this request is charged.",
    ),
    "Gearshift-Optimize": (
        {"type": "string", "enum": list(get_args(Objective))},
        "What to make best among what is allowed.",
    ),
    "Gearshift-Variant": (
        {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
        "The one variant, or alias, that may answer.",
    ),
    "Gearshift-Relax": (
        {"type": "string", "pattern": "^(latency|cost|accuracy)$|^latency,cost(,accuracy)?$"},
        "Constraints that may give way when nothing fits, separated by commas, the first first.",
    ),
    "Gearshift-Priority": (
        {"type": "string", "enum": list(get_args(Priority))},
        "Who is shed first.",
    ),
    "grpc-timeout": ({"type": "string", "pattern": "^[1-9][0-9]{0,7}[HMSmun]$"}, "A deadline."),
    "x-envoy-expected-rq-timeout-ms": (
        {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"},
        "A deadline in ms; the tightest of all counts.",
    ),
}
_EXPLAIN = (
    {"type": "string", "enum": ["true", "false"]},
    "Whether the answer holds the whole decision, as parameters.gearshift_decision.",
)


def _header(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": text}


CONSTRAINTS = [_header(name, *about) for name, about in _CONSTRAINTS.items()]
INFER_HEADERS = [
    *CONSTRAINTS,
    _header("Gearshift-Explain", *_EXPLAIN),
    _header(
        "Inference-Header-Content-Length",
        {"type": "string", "pattern": "^[0-9]{1,10}$"},
        "Bytes of the JSON part, where binary tensors follow it; 0 where the body is the one "
        "input's bytes.",
    ),
    _header(
        "X-Request-Id",
        {"type": "string", "pattern": "^[A-Za-z0-9._:/+=@~-]{1,128}$"},
        "What the request is called, in logs, traces and the answer.",
    ),
    _header(
        "traceparent",
        {"type": "string", "pattern": "^00-[1-9a-f]{32}-[1-9a-f]{16}-0[01]$"},
        "The caller's span (W3C Trace Context), which a trace is continued from.",
    ),
    _header(
        "tracestate",
        {"type": "string", "pattern": "^[a-z]{1,9}=[a-z0-9]{1,9}$"},
        "What the tracing systems before say beside it.",
    ),
]
SAID: dict[str, Schema] = {
    name: {"description": text, "required": required, "schema": {"type": kind}}
    for name, text, kind, required in (
        ("Gearshift-Variant", "The variant that answered.", "string", True),
        ("Gearshift-Reason", "Why it was chosen.", "string", True),
        ("Gearshift-Accuracy", "Its accuracy, by its card.", "number", True),
        ("Gearshift-Cost-Usd-Per-Million", "What is charged.", "number", True),
        ("Gearshift-Predicted-Latency-Ms", "What was foreseen at arrival.", "number", True),
        ("Gearshift-Relaxed", "Constraints that gave way, if any.", "string", False),
        ("Gearshift-Cache", "hit, where the response cache answered.", "string", False),
        ("Server-Timing", "parse, queue and infer, in ms (W3C).", "string", True),
        ("X-Request-Id", "What the request is called; on every answer.", "string", True),
        (
            "traceparent",
            "This server's span of the request, where its trace is recorded; on every answer.",
            "string",
            False,
        ),
    )
}
