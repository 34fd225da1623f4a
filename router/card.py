"""The card: a variant's record. What it is, how it was made, what was measured, on what machine.

A card is written once, by the compressors, beside the artifact it describes, and read by the
gateway. It says what was measured and nothing that was not: the models below refuse unknown
fields, coerce nothing, and are frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from router import padding
from router.padding import Padding
from router.processor import Digest, Positive, Processor

CARD_FILE = "card.json"
SCORES_FILE = "scores.safetensors"

# Starts with a letter or digit and holds no separator, so that a name can never leave its folder.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
ScoreDifference = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Datatypes of the Open Inference Protocol v2, "Tensor Data Types".
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip

Precision = Literal["fp32", "bf16", "fp16", "int8"]
"""The arithmetic that a variant asks for."""
StoredWeights = Literal["fp16", "int8", "int4"]
"""How weights lie on disk and in memory where that is narrower than the arithmetic."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TensorSpec(_Record):
    """One input or output. The first dimension is the batch and is -1; so is any other free one."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    @model_validator(mode="after")
    def _batch_comes_first(self) -> Self:
        if not self.shape or self.shape[0] != -1:
            raise ValueError(f"the first dimension must be -1 (the batch), got {self.shape}")
        if any(size < 1 and size != -1 for size in self.shape):
            raise ValueError(f"a dimension must be positive, or -1 when free, got {self.shape}")
        return self


def misfits(processor: Processor, inputs: tuple[TensorSpec, ...]) -> Iterator[str]:
    """Why `processor` cannot make what goes into a network with these inputs, if it cannot."""
    ports = {spec.name: spec for spec in inputs}
    if processor.input in ports:
        yield f"processor.input is {processor.input!r}, which is the name of an input"
    rank = 2 if processor.kind == "text" else 4
    for name in processor.fills:
        if name not in ports:
            yield f"the processor fills {name!r}; inputs are {', '.join(ports)}"
        elif len(ports[name].shape) != rank:
            yield f"the processor fills {name!r}, which has not {rank} dimensions"
        elif processor.kind == "image" and -1 in ports[name].shape[1:]:
            yield f"the processor fills {name!r}, whose height and width must be fixed"


class Step(_Record):
    """One technique of a recipe with every setting it ran with, defaults included."""

    technique: str
    settings: dict[str, JsonValue]


class TaskRecord(_Record):
    """What was asked of the network: the task, its metric, and which samples gave the figures."""

    name: Name
    metric: str
    split: str
    samples: Positive
    clusters: Positive
    """Independent sources among the samples; equal to `samples` when each is its own source."""
    labels: tuple[str, ...] | None = None
    data_digest: Digest | None = None
    """SHA-256 of the samples and their targets: scores on other samples cannot be compared."""
    definition_digest: Digest | None = None
    """SHA-256 of the task's code and of all its splits: what was trained or scored by other code,
    or on other samples, is another variant."""


class _Estimate(_Record):
    """A figure with its 95 % interval; `method` names how the interval was found."""

    value: float
    low: float
    high: float
    method: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"expected low <= value <= high, got {self.low}, {self.value}, {self.high}"
            )
        return self


class Accuracy(_Estimate):
    """The task's metric on the test split."""

    value: Score
    low: Score
    high: Score


class PairedDifference(_Estimate):
    """This variant's score minus the reference's on the same samples."""

    value: ScoreDifference
    low: ScoreDifference
    high: ScoreDifference


class LatencyPoint(_Record):
    """Time of one batch on one lane: percentiles over `runs` timed runs after warm-up.

    `spread_ms` is the interquartile range of those runs: two figures that differ by less do not
    differ.
    """

    batch: Positive
    threads: Positive
    runs: Positive
    p50_ms: Milliseconds
    p95_ms: Milliseconds
    p99_ms: Milliseconds
    spread_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.p50_ms <= self.p95_ms <= self.p99_ms:
            raise ValueError(
                f"expected p50 <= p95 <= p99, got {self.p50_ms}, {self.p95_ms}, {self.p99_ms}"
            )
        return self


class Machine(_Record):
    """Where it was measured. `fingerprint` is a digest of the other fields."""

    cpu: str
    cores: Positive
    memory_bytes: Positive
    instruction_sets: tuple[str, ...]
    system: str
    fingerprint: Digest


class EngineRecord(_Record):
    """What executed the variant while it was measured, and what must execute it again."""

    name: Name
    version: str
    format: str
    kernels: dict[str, Positive]
    """How many executed operations ran at each precision, as the engine itself reports it."""
    constructor: str | None = None
    """The task, as `gearshift compress` takes it, whose network the weights belong into: for a
    network that cannot be exported. Running it runs the task's own code."""
    constructor_digest: Digest | None = None
    """SHA-256 of the file that the constructor is written in: weights know nothing of the code
    around them, and other code computes something else with them. What that file imports is not in
    it. None in cards older than the field, and where there is no constructor."""


class EngineTrial(_Record):
    """One engine that the variant was lowered to, measured in turn with the others in one run.

    `name` is an engine, or `eager` for the network as PyTorch runs it without any: nothing serves
    that, it is what speed-ups are also stated against.
    """

    name: Name
    version: str
    format: str
    kernels: dict[str, Positive]
    validation: Annotated[float, Field(allow_inf_nan=False)]
    """The metric on the validation split: what a faster engine must not be paid with."""
    latency: Annotated[tuple[LatencyPoint, ...], Field(min_length=1)]
    bytes_on_disk: Annotated[int, Field(ge=0)]


class VariantCard(_Record):
    """The variant's record: see the module's docstring."""

    schema_version: Literal[1]
    model: Name
    variant: Name
    description: str
    reference: Name
    """The variant of the same model that relative floors and paired differences refer to."""
    recipe: tuple[Step, ...]
    parent_digest: Digest
    """SHA-256 of the weights that the recipe started from."""
    precision: Precision
    weights: StoredWeights | None = None
    """None: as the arithmetic has them."""
    task: TaskRecord
    accuracy: Accuracy
    paired: PairedDifference
    latency: Annotated[tuple[LatencyPoint, ...], Field(min_length=1)]
    yardstick: tuple[LatencyPoint, ...] = ()
    """The reference's own program, on the engine that serves it, timed in turn with this variant's:
    a speed-up over a time from another run would compare two states of the machine. Empty on the
    reference itself, and on cards from before there was one."""
    measured_shapes: dict[str, tuple[Positive, ...]] = Field(default_factory=dict)
    """For inputs with a free size besides the batch: the shape of one row as latency and memory
    were measured."""
    padding: tuple[Padding, ...] = ()
    """Free sizes that rows may be filled up in, so that requests of other lengths share a run."""
    machine: Machine
    engine: EngineRecord
    """The one that serves; `latency` is its own."""
    engines: tuple[EngineTrial, ...] = ()
    """Every engine that was measured, the one that serves among them."""
    refused: dict[str, str] = Field(default_factory=dict)
    """Engines that cannot run this variant, and why."""
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    processor: Processor | None = None
    """What lets clients send text or pictures; they may send the inputs themselves all the same."""
    parameters: Positive
    bytes_on_disk: Positive
    """Weights and programs together, without the card, the scores and the manifest."""
    resident_bytes: Positive
    """Growth of resident memory when a fresh process, whose engine runs already, loads the variant
    and first runs it: what one more variant costs."""
    build_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    created: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    seeds: dict[str, int]

    def equal_sizes(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """Groups of free sizes that one request must have equal, each as (input, dimension): those
        that were equal in what was measured, such as the length of a sequence and of its mask."""
        return equal_sizes(self.inputs, self.measured_shapes)

    @model_validator(mode="after")
    def _padding_fits(self) -> Self:
        padding.check(self.padding, self.inputs, self.outputs, self.equal_sizes())
        return self

    @model_validator(mode="after")
    def _processor_fits(self) -> Self:
        if self.processor is not None:
            for problem in misfits(self.processor, self.inputs):
                raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _batches_rise(self) -> Self:
        batches = [point.batch for point in self.latency]
        if batches != sorted(set(batches)) or batches[0] != 1:
            raise ValueError(f"latency must list batch 1 first, then larger ones, got {batches}")
        beside = [point.batch for point in self.yardstick]
        if beside and beside != batches:
            raise ValueError(f"yardstick must list the batches of latency, {batches}, got {beside}")
        return self


def equal_sizes(
    inputs: Iterable[TensorSpec], measured_shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[tuple[str, int], ...], ...]:
    """As `VariantCard.equal_sizes`, of a card that is yet to be written."""
    groups: dict[int, list[tuple[str, int]]] = {}
    for spec in inputs:
        for dimension, size in enumerate(measured_shapes.get(spec.name, ()), 1):
            if spec.shape[dimension] == -1:
                groups.setdefault(size, []).append((spec.name, dimension))
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
