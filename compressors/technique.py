"""The contract of a technique: one way to change a network.

A file in `techniques/` is one technique; the file's name is its public name, as recipes write it.
It defines `TECHNIQUE`:

    class _Halve(Technique):
        class Config(Settings):
            ratio: float = Field(0.5, gt=0, lt=1, description="...")

        summary = "halves it"
        needs = frozenset({"training"})

        def apply(self, network: Network, context: Context) -> Network: ...

    TECHNIQUE = _Halve()

A technique that cannot act on the network it is given raises `NotApplicable`: changing nothing
and reporting success is the one thing it must never do.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict
from torch import nn

from compressors.errors import BuildError, TechniqueBroken, UnknownTechnique
from compressors.task import Samples, Task
from router.card import Precision, StoredWeights

Need = Literal["training", "calibration", "student"]


class Settings(BaseModel):
    """A technique's settings: strict, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def refuse(self, *unused: str, because: str) -> None:
        """For validators: settings of these names have no effect here, and somebody who sets one
        expects that it has. A card's record holds every setting and means none by it.

        Raises:
            ValueError: one was set.
        """
        if self.model_fields_set == set(type(self).model_fields):
            return
        if there := [name for name in unused if name in self.model_fields_set]:
            raise ValueError(f"{because}, and {', '.join(there)} would have no effect")


@dataclass(frozen=True)
class Numerics:
    """The precision to execute in. Changing arithmetic is an engine's work, so a technique asks
    for it here and the lowering does it, or refuses by `NotSupported`.

    Attributes:
        precision: of the arithmetic.
        weights: how weights are stored, where that is narrower than the arithmetic.
        ranges: where int8's value ranges come from: "calibration" (seen on `calibration`'s
            samples), "runtime" (each run's own values), or "trained" (the module itself holds
            fake-quantise operations).
        calibration: the samples to observe; None when nothing is to be observed.
        floats: dotted names of modules that stay in float whatever `precision` says.
        options: what only some engines know; one that does not know a key refuses it.
    """

    precision: Precision = "fp32"
    weights: StoredWeights | None = None
    ranges: Literal["calibration", "runtime", "trained"] = "calibration"
    calibration: Samples | None = None
    floats: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """What a recipe passes from step to step."""

    module: nn.Module
    numerics: Numerics = Numerics()


@dataclass(frozen=True)
class Context:
    """What a technique may use besides the network.

    Attributes:
        task: the task; its `test` split is out of bounds here.
        reference: the trained reference network, in eval mode; not to be changed.
        seed: of every random choice.
        progress: call it with (fraction done from 0 to 1, what is being done).
        cache: shared between the steps of one build; for what is costly and reusable, such as the
            reference's outputs on the training split.
    """

    task: Task
    reference: nn.Module
    seed: int
    progress: Callable[[float, str], None]
    cache: dict[str, Any]


class Technique(ABC):
    """See the module's docstring."""

    Config: ClassVar[type[Settings]]
    summary: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    numerics: ClassVar[str | None] = None
    """What it asks for through `Numerics`, in a word, when that is what it does: "bf16", "int8".
    A recipe has at most one such step, the last: nothing can change a network that is already
    quantised."""

    @abstractmethod
    def apply(self, network: Network, context: Context, config: Any) -> Network:
        """A changed network; the one that came in may be changed in place and must not be reused.

        Raises:
            NotApplicable: there is nothing here that the technique can act on.
        """


def names() -> list[str]:
    """The techniques there are, as recipes write them."""
    import compressors.techniques as folder

    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(folder.__path__))


def get(name: str) -> Technique:
    """The technique called `name`.

    Raises:
        UnknownTechnique: there is none.
        TechniqueBroken: its file cannot be imported; the message names the file.
    """
    if name not in names():
        raise UnknownTechnique(f"unknown technique {name!r}; there are {', '.join(names())}")
    file = name.replace("-", "_")
    try:
        module = importlib.import_module(f"compressors.techniques.{file}")
    except BuildError:
        raise
    except Exception as error:
        raise TechniqueBroken(
            f"compressors/techniques/{file}.py cannot be imported: {error!r}"
        ) from error
    return cast(Technique, module.TECHNIQUE)
