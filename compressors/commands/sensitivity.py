"""`gearshift sensitivity`: which layers of a task's network hurt when they are changed."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from compressors import usertask
from compressors.artifact import Workspace
from compressors.commands import compress
from compressors.errors import BuildError, NotApplicable, NotSupported, RecipeError
from compressors.pictures import layers as picture
from compressors.progress import Reporter, reporter, within
from compressors.quantising import calibration, fake_quantise
from compressors.sensitivity import (
    Change,
    LayerSensitivity,
    Probe,
    layer_sensitivity,
    layers_of,
    most_sensitive,
    replaced,
)
from compressors.surgery import criteria, masks
from compressors.surgery.factors import truncated
from compressors.task import Samples
from compressors.usertask import Guarded

PICTURE_FILE, TABLE_FILE = "sensitivity.png", "sensitivity.csv"

_SPARSITY, _RANK = 0.5, 0.25
_CALIBRATION = 300
_PREPARING = 0.02  # of the progress: the share of seeing value ranges
_MOST_SHOWN = 10  # in the terminal; the files have them all


@dataclass(frozen=True)
class _Kind:
    """One `--change`: what it says, which layers it can change, and how."""

    title: str
    layers: tuple[type[nn.Module], ...]
    prepared: Callable[[nn.Module, Guarded, list[str], int], Change]


def _int8(network: nn.Module, task: Guarded, layers: list[str], seed: int) -> Change:
    samples = calibration.draw(task, _CALIBRATION, seed)
    ranges = fake_quantise.input_ranges(network, task, samples, layers)
    return fake_quantise.as_int8({network.get_submodule(n): seen for n, seen in ranges.items()})


def _by_weight(change: Callable[[Tensor], Tensor]) -> Callable[..., Change]:
    """The change that puts `change` in the place of each of a layer's weight matrices."""

    def of(layer: nn.Module) -> AbstractContextManager[None]:
        return replaced(
            layer,
            **{
                name: change(weight.detach())
                for name, weight in layer.named_parameters()
                if weight.ndim > 1 and "weight" in name
            },
        )

    return lambda _network, _task, _layers, _seed: of


def _pruned(weight: Tensor) -> Tensor:
    (mask,) = masks.sparsest({"": criteria.magnitude(weight)}, _SPARSITY, "layer").values()
    return weight * mask


def _thinner(weight: Tensor) -> Tensor:
    matrix = weight.flatten(1)
    left, right = truncated(matrix, max(1, round(_RANK * min(matrix.shape))))
    return (left @ right).reshape(weight.shape)


_WEIGHTED = (
    *calibration.QUANTISED,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.RNNBase,
)
CHANGES = {
    "int8": _Kind("int8: weights and inputs in 8 bits", calibration.QUANTISED, _int8),
    "prune": _Kind(
        f"prune: the smallest {_SPARSITY:.0%} of the weights at zero",
        _WEIGHTED,
        _by_weight(_pruned),
    ),
    "low-rank": _Kind(f"low-rank: {_RANK:.0%} of the full rank", _WEIGHTED, _by_weight(_thinner)),
}


def sensitivity(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="A bundled task (digits), a Python file (task.py, or task.py:Class), or "
            "package.module:Class.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="MODELS", help="Write to MODELS/<model>/.")],
    change: Annotated[
        str,
        typer.Option("--change", metavar="C1,C2", help=f"Some of {', '.join(CHANGES)}."),
    ] = ",".join(CHANGES),
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Validation samples, the first ones.")
    ] = 500,
    seed: Annotated[int, typer.Option("--seed", help="Of the samples that are drawn.")] = 0,
) -> None:
    """Show which layers of a network hurt when they are compressed.

    Changes each layer alone and puts it back: weights and inputs rounded to 8 bits, half of the
    weights at zero, a quarter of the rank. What that does to the metric and to the outputs, on
    validation samples and without any training after, is drawn layer by layer in
    MODELS/<model>/sensitivity.png and listed in sensitivity.csv. The drop of the metric is what
    counts; the error of the outputs tells layers apart whose drop is the same.

    Exit code: 0; 1 when the network has no layer to change, or the task is at fault; 2 for a task
    or an option that makes no sense.
    """
    errors = Console(file=sys.stderr)
    try:
        wanted = _changes(change)
        loaded = usertask.load(task)
    except BuildError as error:
        compress.fail(errors, str(error), 2)
    try:
        with reporter(errors) as live:
            found, base, count = measured(loaded, wanted, samples, seed, live)
        _publish(found, loaded, base, count, out / loaded.name)
    except BuildError as error:
        compress.fail(errors, str(error), 1)
    except KeyboardInterrupt:
        compress.interrupted(errors, "nothing was written")


def measured(
    task: Guarded, changes: tuple[str, ...], samples: int, seed: int, live: Reporter
) -> tuple[dict[str, list[LayerSensitivity]], float, int]:
    """What each change does to each layer alone, in the network's order; the metric without any,
    and on how many samples.

    Raises:
        NotApplicable: there is no layer that one of `changes` could change.
        TaskError: the task's code is at fault.
    """
    live.stage("reading the task")
    network = task.network()
    validation = task.samples("validation")
    some: Samples = validation.batch(slice(0, samples))
    with torch.no_grad():
        base = Probe(network, task, some).score
        found = {}
        for name in changes:
            kind = CHANGES[name]
            advance = live.stage(f"sensitivity to {name}")
            layers = layers_of(network, kind.layers)
            if not layers:
                kinds = ", ".join(each.__name__ for each in kind.layers)
                raise NotApplicable(f"{name}: the network has no layer of {kinds}")
            advance(0.0, "value ranges")
            apply = kind.prepared(network, task, layers, seed)
            found[name] = layer_sensitivity(
                network, task, some, apply, layers, within(advance, _PREPARING, 1.0)
            )
    return found, base, len(some)


def as_csv(found: Mapping[str, Sequence[LayerSensitivity]]) -> str:
    """One line a change and layer; drop and error as shares, not percent."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("change", "place", "layer", "drop", "error"))
    for change, each in found.items():
        for place, one in enumerate(each, 1):
            lines.writerow((change, place, one.layer, f"{one.drop:.6g}", f"{one.error:.6g}"))
    return text.getvalue()


def _changes(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if unknown := [name for name in names if name not in CHANGES]:
        raise RecipeError(f"--change: expected {', '.join(CHANGES)}, got {', '.join(unknown)}")
    if not names:
        raise RecipeError(f"--change: expected some of {', '.join(CHANGES)}, got {text!r}")
    return names


def _publish(
    found: Mapping[str, Sequence[LayerSensitivity]],
    task: Guarded,
    base: float,
    samples: int,
    folder: Path,
) -> None:
    """The worst layers on the terminal, all of them in the files."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    heading = f"{task.name}: {task.metric} {100 * base:.2f} % on {samples:,} validation samples"
    console.print(heading, style="bold", markup=False, highlight=False)
    for change, each in found.items():
        view = Table(title=CHANGES[change].title, title_justify="left")
        view.add_column("layer", overflow="fold")
        view.add_column("drop, points", justify="right", no_wrap=True)
        view.add_column("error of the outputs, %", justify="right", no_wrap=True)
        for one in most_sensitive(each)[:_MOST_SHOWN]:
            view.add_row(Text(one.layer), f"{100 * one.drop:+.2f}", f"{100 * one.error:.2f}")
        if len(each) > _MOST_SHOWN:
            view.caption = f"the {_MOST_SHOWN} that hurt most, of {len(each)}"
            view.caption_justify = "left"
        console.print(view)
    files = {TABLE_FILE: as_csv(found).encode()}
    try:
        titles = {name: CHANGES[name].title for name in found}
        files[PICTURE_FILE] = picture.draw(found, titles, heading, task.metric)
    except NotSupported as error:
        console.print(str(error), markup=False, soft_wrap=True)
    with Workspace(folder) as workspace:
        for name, content in files.items():
            path = workspace.publish_file(name, content)
            console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
