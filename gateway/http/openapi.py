"""The OpenAPI document: every public path, with what it takes and what it answers.

FastAPI knows the paths; what passes through them it does not, for bodies are decoded by hand. That
is told here, by path, and a test asks a real server for whatever the document promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI

from gateway.http.openapi_schemas import CONSTRAINTS, INFER_HEADERS, SAID, SCHEMAS, Schema

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

# What a path answers with 200, by the schema's name.
_ANSWERS = {
    "/healthz": "Live",
    "/readyz": "Ready",
    "/v2": "ServerMetadata",
    "/v2/health/live": "Live",
    "/v2/health/ready": "Ready",
    "/v2/models/stats": "Statistics",
    _MODEL: "ModelMetadata",
    _VERSION: "ModelMetadata",
    _MODEL + "/ready": "ModelReady",
    _VERSION + "/ready": "ModelReady",
    _MODEL + "/config": "ModelConfig",
    _VERSION + "/config": "ModelConfig",
    _MODEL + "/stats": "Statistics",
    _VERSION + "/stats": "Statistics",
    _MODEL + "/decide": "Decision",
    _MODEL + "/infer": "InferResponse",
    _VERSION + "/infer": "InferResponse",
    "/v2/repository/index": "Index",
}
# Those that say "not now" with the same body and 503.
_NOT_NOW = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", _MODEL + "/ready")

_STATUSES = {
    "400": "A malformed constraint, tensor, shape, datatype or body: the field, what came, and "
    "what was expected.",
    "401": "No key, or a wrong one.",
    "403": "The key may not do this.",
    "404": "Unknown model or variant.",
    "408": "The request did not arrive in time.",
    "413": "The body is over the limit.",
    "422": "Constraints that no variant can meet; the nearest values that would fit.",
    "429": "Shed by load, rate or budget; see Retry-After.",
    "500": "The engine failed.",
    "503": "No healthy variant, or not ready; see Retry-After where it is known.",
    "504": "The deadline passed.",
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def install(app: FastAPI) -> None:
    """Let `app` serve this document at `/openapi.json`."""
    known = app.openapi

    @cache
    def document() -> dict[str, Any]:
        return _told(known())

    app.openapi = document  # type: ignore[method-assign]


def _told(document: dict[str, Any]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = document["paths"]
    for path, parameters in ((_MODEL, ("model",)), (_VERSION, ("model", "version"))):
        paths[path + "/infer"] = {"post": _infer(parameters)}
    for path, operations in paths.items():
        for operation in operations.values():
            _answers(path, operation)
    decide = paths[_MODEL + "/decide"]["post"]
    decide["parameters"] = [*decide.get("parameters", ()), *CONSTRAINTS]
    decide["requestBody"] = _body("DecideRequest", required=False)
    document["components"] = {
        "schemas": SCHEMAS,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{"key": []}, {}]
    return document


def _infer(parameters: tuple[str, ...]) -> dict[str, Any]:
    body = _body("InferRequest", required=True)
    body["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    body["description"] = (
        "JSON, and behind it binary tensors; or one input's bytes alone. Content-Encoding gzip, "
        "deflate or zstd."
    )
    return {
        "tags": ["v2"],
        "summary": "Infer" + ("; the version pins the variant" if len(parameters) > 1 else ""),
        "operationId": "infer" + ("_version" if len(parameters) > 1 else ""),
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
              for name in parameters),
            *INFER_HEADERS,
        ],
        "requestBody": body,
        "responses": {},
    }  # fmt: skip


def _answers(path: str, operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    responses.pop("422", None)  # FastAPI's own, which nothing here answers
    name = _ANSWERS.get(path)
    headers: Mapping[str, Schema] = {}
    if path.endswith("/infer"):
        headers = SAID
        for status, text in _STATUSES.items():
            retry = {"headers": _RETRY} if status in ("429", "503") else {}
            responses[status] = {"description": text, "content": _PROBLEM, **retry}
    if name is not None:
        content: dict[str, Any] = {"application/json": {"schema": _ref(name)}}
        responses["200"] = {"description": "Done.", "content": content}
        if path.endswith("/infer"):
            content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
            responses["200"]["headers"] = dict(headers)
        if path in _NOT_NOW:
            mixed = {"application/json": {"schema": _ref(name)}, **_PROBLEM}
            responses["503"] = {"description": "Not now.", "content": mixed}
    elif path == "/metrics":
        page = {"schema": {"type": "string"}}
        kinds = {"text/plain": page, "application/openmetrics-text": page}
        responses["200"] = {"description": "Every metric.", "content": kinds}
    responses["4XX"] = {"description": "The request is at fault.", "content": _PROBLEM}
    responses["5XX"] = {"description": "The server is at fault.", "content": _PROBLEM}


def _body(name: str, *, required: bool) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": _ref(name)}}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
