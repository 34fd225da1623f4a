"""`gearshift export`: a variant's files in one format, to run without Gearshift."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console

from compressors import artifact, verify
from compressors.draft import draft_card
from compressors.errors import BuildError, StoreError
from compressors.sample import SAMPLE_FILE
from gateway import engines
from gateway.engines import NUMPY_TYPES, EngineError, Tensor
from router.card import VariantCard

Format = Literal["onnx", "openvino", "pt2"]

ABOUT_FILE = "export.json"
README_FILE = "README.md"


@dataclass(frozen=True)
class _Kind:
    """What one `--to` means: whose files, which, and what they are."""

    engine: str
    files: tuple[str, ...]
    what: str
    carries_code: bool = False


_KINDS: dict[str, _Kind] = {
    "onnx": _Kind("onnxruntime", ("model.onnx",), "an ONNX model, data only"),
    "openvino": _Kind("openvino", ("model.xml", "model.bin"), "an OpenVINO IR, data only"),
    "pt2": _Kind("torch", ("model.pt2",), "", carries_code=True),
}
_PT2 = {
    "torch-aotinductor": "an AOTInductor package, a library compiled for this kind of CPU: it "
    "carries code (`torch._inductor.aoti_load_package`)",
    "torch-export": "an exported program, which is read by unpickling: it can carry code "
    "(`torch.export.load`)",
}


def export(
    variant: Annotated[
        Path, typer.Argument(metavar="MODELS/M/V", help="The folder of one variant of a store.")
    ],
    to: Annotated[Format, typer.Option("--to", help="The format to export.")],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The folder to write to.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of the same names that are there.")
    ] = False,
    trusted: Annotated[
        bool,
        typer.Option(
            "--trusted", help="The store is your own: load its files even if they can carry code."
        ),
    ] = False,
) -> None:
    """Copy a variant's files in one format out of the store, to run elsewhere without Gearshift.

    The digests of the store are checked first. What is written is then loaded by its engine and
    must compute what the store's program computes. Beside it, export.json and README.md say what
    goes in and out, the precision, the accuracy and how it was measured.

    Exit code: 0 when it was exported; 1 when the store is damaged or the check failed; 2 when the
    variant holds no such format or PATH is taken.
    """
    errors = Console(file=sys.stderr)
    try:
        written = export_variant(variant, to, out, force=force, trusted=trusted)
    except (_Refused, BuildError, EngineError) as error:
        errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, _Refused) else 1) from error
    for path in written:
        typer.echo(str(path))


class _Refused(BuildError):
    """What was asked for makes no sense here."""


def export_variant(
    folder: Path, to: Format, out: Path, *, force: bool = False, trusted: bool = False
) -> list[Path]:
    """Write the variant's files of format `to` into `out`, checked; returns what was written.

    Raises:
        StoreError: the variant is damaged, or `out` cannot be written.
        EngineError: a program cannot be loaded or run; UntrustedArtifact among them.
        ExportMismatch: the exported file computes otherwise than the store's program.
        BuildError: the variant holds no such format, or `out` holds files of those names.
    """
    card, kind = artifact.read(folder), _KINDS[to]
    if missing := [name for name in kind.files if not (folder / name).is_file()]:
        held = [name for name, each in _KINDS.items() if (folder / each.files[0]).is_file()]
        raise _Refused(
            f"{folder} holds no {' and no '.join(missing)}; it holds "
            f"{', '.join(held) or 'weights for its own task alone'}. Build it with `gearshift "
            f"compress TASK --engine {','.join(dict.fromkeys((card.engine.name, kind.engine)))}`"
        )
    names = (*kind.files, ABOUT_FILE, README_FILE)
    taken = [name for name in names if (out / name).exists()]
    if taken and not force:
        raise _Refused(f"{out} already holds {', '.join(taken)}; --force replaces it")
    format_ = _format(card, kind)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as temporary:
            scratch = Path(temporary)
            for name in kind.files:
                shutil.copyfile(folder / name, scratch / name)
            checked = _check(folder, scratch, card, kind, format_, trusted=trusted)
            about = {**_about(card, kind, format_, scratch), "checked_with": checked}
            (scratch / ABOUT_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            (scratch / README_FILE).write_text(_readme(about), encoding="utf-8")
            for name in names:
                (scratch / name).replace(out / name)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
    return [out / name for name in names]


def _format(card: VariantCard, kind: _Kind) -> str:
    if card.engine.name == kind.engine:
        return card.engine.format
    measured = {trial.name: trial.format for trial in card.engines}
    return measured.get(kind.engine, engines.get(kind.engine).formats[0])


def _check(
    store: Path, copy: Path, card: VariantCard, kind: _Kind, format_: str, *, trusted: bool
) -> str:
    """The copy, in its engine, against the store's program in the engine that serves; on what."""
    sample = _sample(store, card)
    inputs = sample or _zeros(card)
    draft = draft_card(kind.engine, format_, card.precision, card.inputs, card.outputs)
    outputs = []
    for folder, each in ((store, card), (copy, draft)):
        engine = engines.get(each.engine.name)
        program = engine.load(folder, each, threads=1, trusted=trusted)
        try:
            outputs.append(program.infer(inputs))
        finally:
            program.close()
    served, exported = outputs
    verify.same_shapes(served, exported, "the exported program")
    if not sample:
        # A mean over the words of a mask of zeros is no number, in the store's program as well.
        there = {name: np.isfinite(array) for name, array in served.items()}
        served = {name: array[there[name]][None] for name, array in served.items()}
        exported = {name: array[there[name]][None] for name, array in exported.items()}
    verify.finite(exported, "the exported program")
    if not any(array.size for array in served.values()):
        return "nothing: there is no sample, and zeros give no finite output"
    compared = {name: array for name, array in served.items() if array.size}
    verify.export_matches(compared, exported, card.precision)
    return SAMPLE_FILE if sample else "zeros"


def _sample(store: Path, card: VariantCard) -> dict[str, Tensor] | None:
    """The model's sample, where the store has one that fits."""
    try:
        told = json.loads((store.parent / SAMPLE_FILE).read_bytes())["inputs"]
        given = {
            each["name"]: np.array(each["data"], NUMPY_TYPES[each["datatype"]]).reshape(
                each["shape"]
            )
            for each in told
        }
        if set(given) == {spec.name for spec in card.inputs}:
            return given
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _zeros(card: VariantCard) -> dict[str, Tensor]:
    return {
        spec.name: np.zeros(
            [1 if size == -1 else size for size in spec.shape], NUMPY_TYPES[spec.datatype]
        )
        for spec in card.inputs
    }


def _about(card: VariantCard, kind: _Kind, format_: str, folder: Path) -> dict[str, Any]:
    measured = {trial.name: trial.version for trial in card.engines}
    measured[card.engine.name] = card.engine.version
    return {
        "model": card.model,
        "variant": card.variant,
        "format": format_,
        "what": _PT2[format_] if kind.carries_code else kind.what,
        "carries_code": kind.carries_code,
        "engine": kind.engine,
        "engine_version": measured.get(kind.engine),
        "precision": card.precision,
        "weights": card.weights,
        "inputs": [spec.model_dump(mode="json") for spec in card.inputs],
        "outputs": [spec.model_dump(mode="json") for spec in card.outputs],
        "labels": card.task.labels,
        "metric": card.task.metric,
        "accuracy": card.accuracy.model_dump(mode="json"),
        "accuracy_measured_with": card.engine.name,
        "paired": card.paired.model_dump(mode="json"),
        "reference": card.reference,
        "files": {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in kind.files
        },
    }


def _readme(about: dict[str, Any]) -> str:
    def ports(kind: str) -> str:
        return "\n".join(
            f"- `{each['name']}`: {each['datatype']} {each['shape']}" for each in about[kind]
        )

    accuracy = about["accuracy"]
    return (
        f"# {about['model']}/{about['variant']}\n\n"
        f"{', '.join(f'`{name}`' for name in about['files'])}: {about['what']}.\n\n"
        f"Arithmetic: {about['precision']}. {about['metric']}: {accuracy['value']:.4f} "
        f"({accuracy['low']:.4f} to {accuracy['high']:.4f}, 95 %), measured with "
        f"{about['accuracy_measured_with']}.\n\n"
        f"Inputs (-1 is free):\n\n{ports('inputs')}\n\nOutputs:\n\n{ports('outputs')}\n"
    )
