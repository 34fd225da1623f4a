"""int8 until the real technique lands."""

from __future__ import annotations

from compressors.technique import Context, Network, Numerics, Settings, Technique


class _Int8(Technique):
    class Config(Settings):
        calibration_samples: int = 300

    precision = "int8"
    summary = "8-bit integers"

    def apply(self, network: Network, context: Context, config: Config) -> Network:
        train = context.task.samples("train")
        return Network(
            network.module,
            Numerics("int8", calibration=train.batch(slice(0, config.calibration_samples))),
        )


TECHNIQUE = _Int8()
