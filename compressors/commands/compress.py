"""`gearshift compress`: build, measure and write the variants of a task."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from compressors import artifact, estimate, recipe, report, usertask
from compressors.artifact import Workspace
from compressors.build import Options, Outcome, build
from compressors.cache import default_folder
from compressors.errors import BuildError, NotSupported, RecipeError, StoreError
from compressors.pictures import figures, frontier, page
from compressors.pictures.figures import DEFAULT_PRICE_PER_LANE_HOUR
from compressors.progress import reporter
from compressors.sample import write_sample
from router.card import VariantCard

BUNDLED_RECIPES = Path(__file__).parents[1] / "recipes.toml"


def compress(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="A bundled task (digits), a Python file (task.py, or task.py:Class), or "
            "package.module:Class.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="MODELS", help="The store to write variants to.")
    ],
    recipes: Annotated[
        Path | None,
        typer.Option("--recipes", metavar="FILE", help="A TOML file of variants.", exists=False),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="V1,V2", help="Build these variants, and the reference, alone."
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="E1,E2",
            help="Lower to these engines, the default first, whatever the recipes say.",
        ),
    ] = None,
    price_per_lane_hour: Annotated[
        float,
        typer.Option(
            "--price-per-lane-hour", min=0.0, metavar="USD", help="For the costs that are shown."
        ),
    ] = DEFAULT_PRICE_PER_LANE_HOUR,
    seed: Annotated[int, typer.Option("--seed", help="Of every random choice.")] = 0,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Build anew what the store holds damaged or in another form."
        ),
    ] = False,
    resume: Annotated[  # noqa: ARG001 - it says what happens anyway
        bool,
        typer.Option(
            "--resume", help="Go on from what is there, as happens anyway: in MODELS and the cache."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be built and how long it may take; no more."
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Where trained networks are kept, so that none is trained twice. "
            "[default: ~/.cache/gearshift]",
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Keep no trained networks, and use none.")
    ] = False,
) -> None:
    """Compress a PyTorch model into measured variants.

    Runs each recipe on the task's network: changes it, lowers it to every engine installed, checks
    that the result computes what it should with the kernels it claims, times the engines in turn
    and keeps the best, measures accuracy, memory and size, and writes it to
    MODELS/<model>/<variant>/. Then prints a table and draws MODELS/<model>/frontier.png, and
    frontier.html, a page of all figures that needs no network.

    Run it again and it builds what is missing: a variant that is there, whole and made the same
    way is kept, and no network is trained twice. Ctrl-C, or worse, loses the training step or the
    measurement that is running and nothing else. Two builds may write to one store at once.

    Without --recipes, the variants are those of compressors/recipes.toml; copy that file to make
    your own. A variant that this machine cannot run, such as bf16 on a CPU without it, is skipped,
    and so is one of the bundled recipes that finds nothing in the network to act on.

    Exit code: 0 when all variants were built, kept or skipped; 1 when one failed; 2 for a task, a
    recipe or an option that makes no sense.
    """
    errors = Console(file=sys.stderr)  # this one, also while an exporter's own output is muted
    try:
        book = recipe.read(recipes or BUNDLED_RECIPES)
        options = Options(
            out,
            _names(only, book),
            engine_names(engine),
            seed,
            replace,
            bundled=recipes is None,
            cache=_cache(cache, no_cache),
        )
        loaded = usertask.load(task)
    except BuildError as error:
        fail(errors, str(error), 2)
    try:
        with reporter(errors) as live:
            if dry_run:
                forecasts = estimate.forecast(loaded, book, options, live)
            else:
                outcomes = build(loaded, book, options, live)
        if dry_run:
            _console().print(estimate.table(forecasts))
            return
        show(outcomes, out / loaded.name, price_per_lane_hour)
        write_sample(loaded, out / loaded.name)  # last: it tells that the build came to its end
    except BuildError as error:
        fail(errors, str(error), 1)
    except KeyboardInterrupt:
        interrupted(errors, f"finished variants are in {out / loaded.name}")
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def show(outcomes: list[Outcome], folder: Path, price: float) -> None:
    """The table of what was built, why the rest was not, and the page and the picture beside the
    variants, of these and of those that earlier runs left there."""
    cards = [outcome.card for outcome in outcomes if outcome.card is not None]
    console = _console()
    console.print(report.table(cards, price, console.width))
    for outcome in outcomes:
        if outcome.card is None:
            console.print(
                f"{outcome.variant} {outcome.state}: {outcome.reason}", markup=False, soft_wrap=True
            )
    drawn = [*cards, *_beside(cards, folder)]
    files = {page.FILE: page.render(drawn, price).encode()}
    try:
        files[frontier.FILE] = frontier.draw(drawn, price)
    except NotSupported as error:
        console.print(str(error), markup=False, soft_wrap=True)
    with Workspace(folder) as workspace:
        for name, content in files.items():
            path = workspace.publish_file(name, content)
            what = "page" if name == page.FILE else "picture"
            console.print(f"{what}: {path}", markup=False, soft_wrap=True)


def _beside(cards: list[VariantCard], folder: Path) -> Iterator[VariantCard]:
    """The other variants of the model that can be compared with `cards`: whole, of the same
    reference network and task, measured on the same machine."""
    first, names = figures.reference_of(cards), {card.variant for card in cards}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in names or not path.is_dir():
            continue
        try:
            card = artifact.read(path)
        except StoreError:  # damaged, or being replaced at this moment
            continue
        if _compared_with(card) == _compared_with(first):
            yield card


def _compared_with(card: VariantCard) -> tuple[object, ...]:
    machine = card.machine.cpu, card.machine.cores, card.machine.instruction_sets
    return card.reference, card.parent_digest, card.task, machine


def _console() -> Console:
    # A file or a pipe has no width of its own: as wide as the widest table.
    return Console(width=None if sys.stdout.isatty() else 400)


def _cache(folder: Path | None, off: bool) -> Path | None:
    if off and folder is not None:
        raise RecipeError(f"expected --cache or --no-cache, got both (--cache {folder})")
    return None if off else folder or default_folder()


def _names(only: str | None, book: recipe.RecipeBook) -> frozenset[str] | None:
    if only is None:
        return None
    names = frozenset(name.strip() for name in only.split(",") if name.strip())
    there = [variant.name for variant in book.variants]
    if unknown := sorted(names - set(there)):
        raise RecipeError(
            f"--only: {book.source} has no variant {', '.join(unknown)}; it has {', '.join(there)}"
        )
    return names


def engine_names(names: str | None) -> tuple[str, ...] | None:
    """What `--engine` asks for; None where it does not.

    Raises:
        RecipeError: there is no such engine.
    """
    if names is None:
        return None
    return recipe.checked_engines([name.strip() for name in names.split(",")], "--engine")


def fail(console: Console, message: str, code: int) -> NoReturn:
    """End the command with a sentence."""
    console.print(f"error: {message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def interrupted(console: Console, message: str) -> NoReturn:
    """End the command after Ctrl-C, at once.

    Engines' threads may be in the middle of a call. An interpreter that is taken down around them
    can end in an abort, where the caller was to read 130.
    """
    console.print(f"error: interrupted; {message}", markup=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


def main() -> None:
    """Run the command by itself: `python -m compressors.commands.compress TASK --out MODELS`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(compress)
    app()


if __name__ == "__main__":
    main()
