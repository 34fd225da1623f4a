"""svd: linear layers become two thinner ones by truncated singular value decomposition.

    W (out x in)  ->  A (out x r) B (r x in),    r (out + in) < out * in

By `weighting`, A B is the matrix of rank r nearest to the weights (Eckart & Young 1936; Denton et
al. 2014, arXiv 1404.0736), or the one whose outputs on training samples are nearest to the layer's
(activation-weighted: Yuan et al. 2023, arXiv 2312.05821; Wang et al. 2024, arXiv 2403.07378). The
formulas are in `compressors/surgery/factors.py`. By `rank_by`, ranks are

    ratio        the same share of every layer's full rank, min(out, in)
    energy       the least that keep a share of each layer's squared singular values
    sensitivity  those of all layers together that keep within `cost`: each layer l is truncated
                 alone, and the squared relative error e_l of the network's outputs on validation
                 samples is divided by the tail t_l of the squared spectrum that was dropped. Small
                 errors of layers add up, so the ranks minimise sum_l (e_l / t_l) tail_l(r_l).

A layer that would not be cheaper stays whole. Fine-tuning, with `epochs` > 0, wins back some of
what was lost. In torch's own transformer layers the two of the feed-forward part are split.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from compressors.errors import NotApplicable
from compressors.sensitivity import Probe, layers_called, replaced
from compressors.surgery.factors import (
    Spectrum,
    directions,
    energy_rank,
    in_multiples,
    ranks_within,
)
from compressors.surgery.observe import draw, observe, weights_of
from compressors.surgery.splitting import fine_tune, linear_pair, linears, put
from compressors.technique import Context, Network, Technique
from compressors.training import Training


class _Config(Training):
    epochs: int = Field(2, ge=0, le=1000, description="of fine-tuning; 0: none")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="at the peak of the one cycle")
    rank_by: Literal["ratio", "energy", "sensitivity"] = Field(
        "ratio", description="what decides the ranks: one of the three settings below"
    )
    ratio: float = Field(0.25, gt=0, lt=1, description="rank, as a share of each layer's full one")
    energy: float = Field(
        0.9, gt=0, lt=1, description="share of the squared singular values that a layer keeps"
    )
    cost: float = Field(
        0.5, gt=0, lt=1, description="multiplications of all linear layers that can be split, as a "
        "share of what they had; for rank_by = sensitivity"
    )  # fmt: skip
    weighting: Literal["weights", "activations"] = Field(
        "weights", description="what the two layers are to be near to: the weights or the outputs"
    )
    samples: int = Field(
        256, ge=1, le=100_000, description="to see activations on, and to measure sensitivity on"
    )
    round_to: int = Field(
        8, ge=1, le=64, description="ranks are multiples of this; odd ones run slower"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        rules = {"ratio": "ratio", "energy": "energy", "sensitivity": "cost"}
        others = [setting for rule, setting in rules.items() if rule != self.rank_by]
        self.refuse(*others, because=f"rank_by is {self.rank_by!r}")
        return self


class _Svd(Technique):
    Config = _Config
    needs = frozenset({"training", "calibration"})
    summary = "Splits linear layers into two of a low rank, then fine-tunes."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The network with every linear layer split that is cheaper so, fine-tuned.

        Raises:
            NotApplicable: there is no linear layer, or none is cheaper.
            NotFinite: the loss became NaN.
        """
        module = network.module
        layers = linears(module)
        found = _spectra(module, layers, context, config)
        if not found:
            raise NotApplicable("svd: the network has no linear layer that is called as a module")
        if config.rank_by == "sensitivity":
            ranks = _by_sensitivity(module, layers, found, context, config)
        else:
            ranks = {name: _rank(layer, config) for name, layer in found.items()}
        cheaper = {n: r for n, r in ranks.items() if found[n].cost(r) < found[n].whole}
        if not cheaper:
            raise NotApplicable(
                f"svd: no linear layer is cheaper in two at {config.rank_by} "
                f"{getattr(config, config.rank_by, config.cost)} with ranks in multiples of "
                f"{config.round_to}"
            )
        for name, rank in cheaper.items():
            put(module, name, linear_pair(layers[name], *found[name].factors(rank)))
        fine_tune(module, context, config)
        return replace(network, module=module)


TECHNIQUE = _Svd()


def _spectra(
    module: nn.Module, layers: dict[str, nn.Linear], context: Context, config: _Config
) -> dict[str, Spectrum]:
    """By layer; with activations, of the layers that have any."""
    if config.weighting == "weights":
        return {n: Spectrum(one.weight, *directions(one.weight)) for n, one in layers.items()}
    samples = draw(context.task, config.samples, context.seed)
    weights = {id(weight): name for name, weight in weights_of(module).items()}
    found = {}
    for names in _groups(layers):
        called = {name: weights[id(layers[name].weight)] for name in names}
        context.progress(0.0, f"looking at what {names[0]} and what follows see")
        with layers_called():
            seen = observe(module, context.task, samples, ("gram",), only=set(called.values()))
        for name, weight in called.items():
            gram = seen[weight].gram
            if gram is not None:
                one = layers[name].weight
                found[name] = Spectrum(one, *directions(one, gram[0]))
    return found


def _groups(layers: dict[str, nn.Linear], at_once: int = 1 << 28) -> Iterator[list[str]]:
    """Names of layers whose Gram matrices have at most `at_once` numbers together."""
    group: list[str] = []
    held = 0
    for name, layer in layers.items():
        size = layer.in_features**2
        if group and held + size > at_once:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _rank(found: Spectrum, config: _Config) -> int:
    full = len(found.values)
    if config.rank_by == "ratio":
        return in_multiples(config.ratio * full, config.round_to)
    least = energy_rank(found.values, config.energy)
    return -(-least // config.round_to) * config.round_to


def _by_sensitivity(
    module: nn.Module,
    layers: dict[str, nn.Linear],
    found: dict[str, Spectrum],
    context: Context,
    config: _Config,
) -> dict[str, int]:
    validation = context.task.samples("validation")
    count = min(config.samples, len(validation))
    rows = np.random.default_rng(context.seed).choice(len(validation), count, replace=False)
    probe = Probe(module, context.task, validation.batch(rows))
    of_layer = {id(layers[name]): one for name, one in found.items()}

    def rank_of(one: Spectrum) -> int:
        """Every layer's at the same share of its cost, to compare them."""
        share = config.cost * one.whole / one.cost(1)
        return min(in_multiples(share, config.round_to), len(one.values) - 1)

    @contextmanager
    def thinner(layer: nn.Module) -> Iterator[None]:
        one = of_layer[id(layer)]
        left, right = one.factors(rank_of(one))
        with replaced(layer, weight=left @ right):
            yield

    hurt = {}
    for index, (name, one) in enumerate(found.items()):
        context.progress(0.0, f"sensitivity of {name}, {index + 1} of {len(found)}")
        tail = one.tail(rank_of(one))
        error = probe.effect(thinner, [name]).error
        hurt[name] = error**2 / tail if tail > torch.finfo(torch.float64).tiny else 0.0
    budget = config.cost * sum(one.whole for one in found.values())
    ranks = ranks_within(found, hurt, budget, config.round_to)
    if not ranks:
        raise NotApplicable(
            f"svd: cost {config.cost} is less than ranks of {config.round_to} everywhere take"
        )
    return ranks
