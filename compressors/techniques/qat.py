"""qat: quantisation-aware training (Jacob et al. 2018, arXiv 1712.05877), with learned steps (LSQ,
Esser et al. 2019, arXiv 1902.08153).

The network is fine-tuned while the weights and inputs of its convolutions and linear layers are
rounded to what 8-bit integers can stand for, x ~ s clamp(round(x / s), bottom, top), so that it
learns to live with the rounding; gradients pass through as if it were not there, and the steps s
learn too. For networks that lose too much when they are quantised after training (`int8`), at the
cost of training. The rounding becomes part of the network, and the engine turns it into integers.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import nn

from compressors import training
from compressors.errors import NotApplicable
from compressors.quantising import calibration, fake_quantise
from compressors.technique import Context, Network, Numerics, Technique
from compressors.training import Training

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class _Config(Training):
    epochs: int = Field(2, ge=1, le=1000, description="passes over the training split")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="at the peak of the one cycle")
    calibration_samples: int = Field(
        300, ge=1, le=100_000, description="training samples for the steps to start from"
    )


class _Qat(Technique):
    Config = _Config
    needs = frozenset({"training", "calibration"})
    numerics = "int8"
    summary = "Fine-tunes with weights and activations rounded to 8 bits, then runs in integers."

    def apply(self, network: Network, context: Context, config: _Config) -> Network:
        """The fine-tuned network, which holds its own fake-quantise operations.

        Raises:
            NotApplicable: no convolution or linear layer is called.
            NotFinite: the loss became NaN.
        """
        module = network.module.eval()
        names = [name for name, part in module.named_modules() if name and type(part) in _LAYERS]
        samples = calibration.draw(context.task, config.calibration_samples, context.seed)
        ranges = fake_quantise.input_ranges(module, context.task, samples, names)
        if not ranges:
            raise NotApplicable("qat: the network calls no convolution and no linear layer")
        fake_quantise.quantise_layers(module, ranges)
        how = Training(**config.model_dump(include=set(Training.model_fields)))
        training.train(module, context.task, how, seed=context.seed, progress=context.progress)
        return replace(network, module=module, numerics=Numerics("int8", ranges="trained"))


TECHNIQUE = _Qat()
