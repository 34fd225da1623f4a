"""Extras: from `pyproject.toml`, with what each is for."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.docs.pages import table

PROJECT = Path(__file__).parents[3] / "pyproject.toml"

PURPOSES = {
    "openvino": "runs variants by OpenVINO, on any x86 or ARM processor: what the demo serves with",
    "onnxruntime": "runs variants by ONNX Runtime",
    "torch": "runs variants by PyTorch's compiler; only for a store that you trust",
    "compress": "builds variants: `gearshift compress`, `search`, `sensitivity`, `export`",
    "text": "the bundled text task, and networks from a Hugging Face folder",
    "grpc": "the gRPC port",
    "processors": "takes text and pictures at the door, and makes tensors of them",
    "postgres": "keys and what they spent in PostgreSQL",
    "signing": "signs variants and checks signatures",
    "objectstore": "a store at a URL: HTTP, and whatever fsspec opens",
    "s3": "a store in S3",
    "gcs": "a store in Google Cloud Storage",
    "simulate": "pictures of `gearshift simulate`",
    "console": "the charts of the console; without it the console shows tables",
    "tracing": "spans, sent by OTLP",
    "test": "what the tests need, and the documentation",
    "docs": "builds these pages",
}


def text() -> str:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    unknown = set(extras) - set(PURPOSES)
    assert not unknown, f"say in {__name__} what {sorted(unknown)} are for"
    rows = [
        (f"`{name}`", PURPOSES[name], ", ".join(f"`{_named(one)}`" for one in extras[name]))
        for name in extras
        if name != "test"
    ]
    base = ", ".join(f"`{_named(one)}`" for one in project["dependencies"])
    return _INTRODUCTION + f"\nEvery installation brings {base}.\n\n" + table(_HEADINGS, rows)


def _named(demand: str) -> str:
    return demand.partition(";")[0].strip()


_HEADINGS = ("extra", "what it is for", "what it brings")
_INTRODUCTION = """# Extras

`pip install 'gearshift[openvino,grpc]'` serves; a feature whose packages are not there says which
extra to install. Nothing that only serves needs PyTorch. A server imports a feature's packages when
the feature is on, and not before.
"""
