"""int8-mixed: 8-bit integers, except in the layers where they hurt (mixed precision by measured
sensitivity, as in HAWQ, Dong et al. 2019, arXiv 1905.03696, with the drop itself in place of its
estimate by the Hessian).

Each layer is quantised alone, its weights and inputs rounded in float arithmetic, and the drop of
the score on validation samples ranks it; the error of the outputs ranks layers that drop the same.
Then layers go back to float, the worst first, until what is left drops the score by at most
`max_drop`, or until there are `keep` of them. What stays is quantised after training as in `int8`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from pydantic import Field, model_validator
from torch import nn

from compressors.errors import NotApplicable
from compressors.quantising import calibration, fake_quantise
from compressors.sensitivity import Probe, layer_sensitivity, layers_of, most_sensitive
from compressors.task import Samples
from compressors.technique import Context, Network, Numerics, Settings, Technique

_RANKING = 0.6  # of the progress: the share of measuring layers one by one


class _Config(Settings):
    max_drop: float = Field(
        0.002, ge=0, le=1, description="of the score on validation samples, by rounding alone"
    )
    keep: int | None = Field(
        None, ge=0, le=1000, description="layers to keep in float, instead of by max_drop"
    )
    validation_samples: int = Field(
        500, ge=1, le=100_000, description="validation samples to measure on, the first ones"
    )
    calibration_samples: int = Field(
        300, ge=1, le=100_000, description="training samples to find the value ranges on"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.keep is not None:
            self.refuse("max_drop", because="keep says how many layers stay in float")
        return self


class _Int8Mixed(Technique):
    Config = _Config
    needs = frozenset({"calibration"})
    numerics = "int8"
    summary = "Quantises to 8-bit integers all but the layers that suffer most."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The same module, to be executed in int8 with the layers named that stay in float.

        Raises:
            NotApplicable: no layer that integers could compute, or half of them in float are still
                not enough.
        """
        module = network.module.eval()
        layers = layers_of(module, calibration.QUANTISED)
        if not layers:
            raise NotApplicable("int8-mixed: the network has no convolution and no linear layer")
        if config.keep is not None and 2 * config.keep >= len(layers):
            raise NotApplicable(
                f"int8-mixed: keep = {config.keep} is half or more of the {len(layers)} layers, "
                "and a variant that is mostly float is none in int8"
            )
        samples = calibration.draw(context.task, config.calibration_samples, context.seed)
        floats = _floats(module, layers, samples, context, config)
        numerics = Numerics("int8", calibration=samples, floats=tuple(floats))
        return replace(network, numerics=numerics)


TECHNIQUE = _Int8Mixed()


def _floats(
    module: nn.Module,
    layers: list[str],
    samples: Samples,
    context: Context,
    config: _Config,
) -> list[str]:
    """The layers to keep in float, the most sensitive first."""
    task, progress = context.task, context.progress
    ranges = fake_quantise.input_ranges(module, task, samples, layers)
    change = fake_quantise.as_int8({module.get_submodule(n): seen for n, seen in ranges.items()})
    validation = task.samples("validation")
    measured = validation.batch(slice(0, config.validation_samples))
    found = layer_sensitivity(
        module,
        task,
        measured,
        change,
        layers,
        lambda fraction, text: progress(_RANKING * fraction, text),
    )
    order = [one.layer for one in most_sensitive(found)]
    if config.keep is not None:
        return order[: config.keep]
    probe = Probe(module, task, measured)
    most = (len(layers) - 1) // 2
    drop = 0.0
    for kept in range(most + 1):
        progress(_RANKING + (1 - _RANKING) * kept / (most + 1), f"{kept} layers in float")
        drop = probe.effect(change, order[kept:]).drop
        if drop <= config.max_drop:
            return order[:kept]
    raise NotApplicable(
        f"int8-mixed: with {most} of {len(layers)} layers in float the score still drops by "
        f"{drop:.4f} on validation, and max_drop is {config.max_drop}"
    )
