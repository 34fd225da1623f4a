"""What can go wrong while variants are built.

BuildError
├── TaskError            the task's file, network, data or score is at fault
├── RecipeError          the recipe file is at fault
├── UnknownTechnique
├── TechniqueBroken      a technique's file cannot be imported
├── NotApplicable        a technique found nothing to act on
├── NothingChanged       the steps ran and the network is as it was
├── NotSupported         this machine or an absent extra cannot do it
├── ExportMismatch       the lowered program's outputs differ from the network's
├── NotFinite            NaN or infinity in outputs or loss
├── ShapeChanged         outputs have another shape or datatype than the reference's
├── WrongKernels         the engine ran other kernels than the card would claim
├── WrongWeights         the file holds wider weights than the card would claim
├── ReloadMismatch       what was read back differs from what was in memory
└── StoreError           the store cannot be written or already holds the variant
"""


class BuildError(Exception):
    """Base of all of them; the message is for the person who runs the build."""


class TaskError(BuildError): ...


class RecipeError(BuildError): ...


class UnknownTechnique(BuildError): ...


class TechniqueBroken(BuildError): ...


class NotApplicable(BuildError): ...


class NothingChanged(BuildError): ...


class NotSupported(BuildError): ...


class ExportMismatch(BuildError): ...


class NotFinite(BuildError): ...


class ShapeChanged(BuildError): ...


class WrongKernels(BuildError): ...


class WrongWeights(BuildError): ...


class ReloadMismatch(BuildError): ...


class StoreError(BuildError): ...
