"""int8: post-training static quantisation (Jacob et al. 2018, arXiv 1712.05877; overview: Nagel et
al. 2021, arXiv 2106.08295).

Weights and activations of convolutions and linear layers become 8-bit integers,

    q = clamp(round(x / s) + z),  x ~ s (q - z),

with a scale s and a zero point z for each output channel of a weight and for each activation. Their
ranges are those seen on a few training samples, drawn by seed; nothing is trained. What rounding
adds to a layer's mean output is taken off its bias again ("bias correction", arXiv 1906.04721).
Transformers have activations with a few huge channels, whose range would leave the others a few
integers: SmoothQuant (arXiv 2211.10438) divides each channel j of the inputs X, and multiplies the
weights W that read it, by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha).

The engine's lowering does it on its own graph, because what runs as int8 is the engine's to say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator

from compressors.errors import NotApplicable
from compressors.quantising import calibration
from compressors.technique import Context, Network, Numerics, Settings, Technique


class _Config(Settings):
    calibration_samples: int = Field(
        300, ge=1, le=100_000, description="training samples to find the value ranges on"
    )
    calibration_batch: int | None = Field(
        None, ge=1, le=4096, description="samples a run while doing so: quicker; None: one"
    )
    preset: Literal["performance", "mixed"] | None = Field(
        None, description="symmetric ranges, or asymmetric ones for activations; None: engine's own"
    )
    fast_bias_correction: bool | None = Field(
        None, description="False: a slower, closer correction of biases; None: the engine's own"
    )
    model_type: Literal["transformer", "plain"] | None = Field(
        None, description="whether to care for attention specially; None: where there is any"
    )
    smooth_quant_alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="how far SmoothQuant moves a transformer's outliers from activations into "
        "weights; None: the engine's own",
    )

    @model_validator(mode="after")
    def _smoothing_is_for_transformers(self) -> Self:
        if self.smooth_quant_alpha is not None and self.model_type == "plain":
            raise ValueError("smooth_quant_alpha is for model_type 'transformer', got 'plain'")
        return self


class _Int8(Technique):
    Config = _Config
    needs = frozenset({"calibration"})
    numerics = "int8"
    summary = "Quantises weights and activations to 8-bit integers after training."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The same module, to be executed in int8, with its calibration samples.

        Raises:
            NotApplicable: the network has no layer that integers could compute.
        """
        if not calibration.has_quantised(network.module):
            raise NotApplicable("int8: the network has no convolution and no linear layer")
        samples = calibration.draw(context.task, config.calibration_samples, context.seed)
        options = config.model_dump(exclude={"calibration_samples"}, exclude_none=True)
        return replace(network, numerics=Numerics("int8", calibration=samples, options=options))


TECHNIQUE = _Int8()
