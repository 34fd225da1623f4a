"""Every setting of the server. Command line > environment > file > default.

A setting `max_queue` is `--max-queue` on the command line, `GEARSHIFT_MAX_QUEUE` in the
environment and `max_queue = 1024` in a TOML file, which `--config` or `GEARSHIFT_CONFIG` names. A
table is one in TOML, and JSON elsewhere.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gateway.log_settings import LogSettings
from gateway.processes.cores import usable_cores
from gateway.setting_types import (
    Database,
    FloorText,
    Models,
    Number,
    OwnPort,
    PolicyName,
    Table,
    without_password,
)
from gateway.store import urls
from router.constraints import NONE, Constraints, Objective, floor
from router.menu import Percentile

PREFIX = "GEARSHIFT_"
CONFIG_VARIABLE = PREFIX + "CONFIG"


class SettingsError(Exception):
    """A setting is not usable. The message names it, where it came from and what was expected."""


class Settings(LogSettings):
    """What an operator decides. `Settings()` holds the defaults; `load` reads the sources."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    models: Models = Field(
        Path("models"),
        description="The store to serve: a folder of MODELS/model/variant/, or the URL of one, "
        "such as s3://bucket/models.",
    )
    store_cache: Path | None = Field(
        None,
        description="The folder for the copies of stores at URLs, each in a folder of its own; by "
        "default gearshift in the user's cache folder.",
    )
    store_cache_mb: float = Field(
        20_000.0,
        gt=0,
        allow_inf_nan=False,
        description="What the copy of a store at a URL may hold, in MB; a variant that does not "
        "fit is left out.",
    )
    store_seconds: float = Field(
        15.0,
        gt=0,
        allow_inf_nan=False,
        description="How often to look at a store at a URL for variants that came, were replaced "
        "or went.",
    )
    host: str = Field("127.0.0.1", description="The address to listen on; 0.0.0.0 for all.")
    port: int = Field(8080, ge=0, le=65535, description="The port to listen on; 0 for a free one.")
    grpc_port: OwnPort = Field(
        None,
        description='The port of gRPC: 0 for a free one, "off" for none; by default the port + 1.',
    )
    admin_host: str = Field("127.0.0.1", description="The address that the admin port listens on.")
    admin_port: OwnPort = Field(
        None,
        description='The port of the admin API: 0 for a free one, "off" for none; by default '
        "the port + 2.",
    )
    state: Path | None = Field(
        None,
        description="The folder for what the server must remember, such as keys and what they "
        "spent; by default .gearshift in the store, or for one at a URL gearshift in the user's "
        "state folder.",
    )
    database: Database | None = Field(
        None,
        description="The database of the keys and of what they spent, as an SQLAlchemy URL of "
        "SQLite or PostgreSQL; by default the file gearshift.db in the state folder.",
    )
    tls_certificate: Path | None = Field(
        None,
        description="The server's certificate chain, in PEM: every port then speaks TLS alone. "
        "Read again on SIGHUP.",
    )
    tls_key: Path | None = Field(
        None, description="The certificate's private key, in PEM, without a password."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="Authorities in PEM, one of which must have signed a client's certificate; by "
        "default clients need none.",
    )
    require_keys: bool = Field(
        False, description="Let nobody in without a key, also while there is none."
    )
    threads_per_lane: int = Field(
        1, ge=1, le=1024, description="Threads that one batch runs on; cards were measured on 1."
    )
    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that share the port; the usable cores are divided among them.",
    )
    lanes: int = Field(
        default_factory=lambda known: max(1, usable_cores() // known["threads_per_lane"]),
        ge=1,
        le=1024,
        description="Execution slots of a worker, one batch at a time each; by default as many as "
        "fit its cores.",
    )
    lane_kind: Literal["thread", "process"] = Field(
        "thread",
        description="What a lane is: a thread of the server, or a process of its own, which an "
        "engine may crash or hang without harm to the others (Linux).",
    )
    batch_timeout_seconds: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="A lane that runs one batch for longer is given up: the variant is left alone "
        "for a while, and another takes the lane's place.",
    )
    breaker_failures: int = Field(
        3,
        ge=1,
        le=1000,
        description="Batches of a variant that fail in a row until it is left alone for a while; "
        "half of its last 20 do as well.",
    )
    breaker_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="How long a variant that failed is left alone before one batch tries it again; "
        "twice as long each time that it fails, up to a minute.",
    )
    max_batch: int = Field(32, ge=1, le=4096, description="Rows of one batch, at most.")
    latency_percentile: Annotated[Percentile, Number] = Field(
        99, description="The percentile of a variant's batch time that a promise counts on."
    )
    accuracy_margin: float = Field(
        0.005,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="A variant shown not to be worse than the best by more than this counts as "
        "its equal; 0.005 is half a point.",
    )
    policy: PolicyName = Field("gearshift", description="What a free lane runs, by name.")
    model_weights: Annotated[
        Mapping[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]],
        NoDecode,
        Table,
    ] = Field(
        {},
        description="How much lane time each model gets, beside the others, when there is not "
        "enough for all; 1 for those that are not named.",
    )
    usd_per_lane_hour: float = Field(
        0.05, ge=0, allow_inf_nan=False, description="The price of one lane for one hour, in USD."
    )
    default_max_latency_ms: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Deadline of a request that states no constraint, in ms.",
    )
    default_min_accuracy: FloorText | None = Field(
        None,
        description="Floor of a request that states no constraint: 0.97, or 99% of the reference.",
    )
    default_max_cost_usd_per_million: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Cost cap of a request that states no constraint, in USD per million.",
    )
    default_optimize: Objective = Field(
        "accuracy", description="What to make best where a request does not say."
    )
    console: Literal["on", "read-only", "off"] = Field(
        "on",
        description="The page at /: on, read-only without what changes anything, or off.",
    )
    trust_store: bool = Field(
        False, description="Load formats that can carry code. Only for a store that is your own."
    )
    verify_signatures: Path | None = Field(
        None,
        description="A public key in PEM: a variant that its owner did not sign is not loaded. By "
        "default signatures are not asked for.",
    )
    response_cache_mb: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Memory for answers that are given again to the same inputs, in MB, in each "
        "process; 0 keeps none.",
    )
    max_queue: int = Field(1024, ge=1, description="Requests that may wait for a lane.")
    max_body_bytes: int = Field(
        64 << 20, ge=1, description="The largest request body, in bytes; more is answered 413."
    )
    max_header_bytes: int = Field(
        64 << 10,
        ge=1024,
        description="The largest request line and headers together, in bytes; more is answered "
        "431, or 414 when the path is to blame.",
    )
    read_timeout_seconds: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a request may take from its first byte to its last, on the admin "
        "port each 64 KiB of its body; then 408.",
    )
    write_timeout_seconds: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a caller may leave an answer unread; a large one must be read at "
        "64 KiB in that time, or the connection is cut off.",
    )
    idle_timeout_seconds: float = Field(
        75.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a connection is kept after an answer, for the next request.",
    )
    max_connections: int | None = Field(
        None,
        ge=1,
        description="HTTP connections of one process, at most; more are answered 503. By default "
        "as many as its limit of open files leaves room for.",
    )
    memory_limit_mb: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Memory that loaded variants may take together, in MB, by their cards, on all "
        "lanes; what is wanted most stays loaded. By default no limit.",
    )
    residency_seconds: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Under a memory limit, how often to look whether other variants are wanted "
        "more now; what was loaded stays for three such times.",
    )
    watch_seconds: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="How often to look for variants that came into the store, were replaced in it "
        "or left it.",
    )
    notice_seconds: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="How long the server serves on, not ready any more, once it was told to stop: "
        "until whoever sends it requests has turned elsewhere. Part of drain_seconds.",
    )
    drain_seconds: float = Field(
        30.0,
        ge=0,
        allow_inf_nan=False,
        description="How long the server may take to stop; running requests have all but the last "
        "second.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is given: `load` merges the sources, so that an error can name its own."""
        return (init_settings,)

    @property
    def store(self) -> Path:
        """The folder that is served: the store, or the copy of one at a URL."""
        if isinstance(self.models, Path):
            return self.models
        return self._own("store_cache", self.store_cache, "XDG_CACHE_HOME", ".cache")

    @property
    def state_folder(self) -> Path:
        """Where the server keeps what it must remember; not made yet, perhaps."""
        if self.state is not None:
            return self.state
        if isinstance(self.models, Path):
            return self.models / ".gearshift"
        return self._own("state", None, "XDG_STATE_HOME", ".local/state")

    def _own(self, name: str, chosen: Path | None, variable: str, place: str) -> Path:
        """A folder for the store's URL alone: in `chosen`, or where the user keeps such things."""
        if chosen is None:
            try:
                chosen = Path(os.environ.get(variable) or Path.home() / place) / "gearshift"
            except RuntimeError as error:
                raise SettingsError(f"{name}: expected a folder, since there is no home") from error
        return chosen / urls.folder_name(str(self.models))

    @property
    def default_constraints(self) -> Constraints:
        """The operator's default policy; demands nothing unless one of the defaults is set."""
        least = self.default_min_accuracy
        own = Constraints(
            max_latency_ms=self.default_max_latency_ms,
            min_accuracy=None if least is None else floor("default_min_accuracy", least),
            max_cost_usd_per_million=self.default_max_cost_usd_per_million,
            optimize=self.default_optimize,
        )
        return NONE if own == Constraints(optimize="accuracy") else own


def load(options: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """The settings of this process.

    Args:
        options: what the command line says, by setting; None where it says nothing.
        config: a TOML file; by default the one that `GEARSHIFT_CONFIG` names, if any.

    Raises:
        SettingsError: one line that names the setting, its source, and what was expected.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    named = os.environ.get(CONFIG_VARIABLE)
    if config is None and named:
        config = Path(named)
    file = {} if config is None else _read(config)
    environment = EnvSettingsSource(Settings)()
    merged = {**file, **environment, **given}
    try:
        return Settings(**merged)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0])
        if name in given:
            source = "--" + name.replace("_", "-")
        elif name in environment:
            source = PREFIX + name.upper()
        else:
            source = str(config)
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(Settings.model_fields))
            raise SettingsError(f"{source}: unknown setting {name!r}; there are {known}") from error
        expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        came = merged[name]
        if name == "database":
            came = without_password(came)
        elif name == "models":
            came = urls.shown(str(came))
        raise SettingsError(f"{name} (from {source}): expected {expected}, got {came!r}") from error


def shown(settings: Settings) -> dict[str, Any]:
    """Every setting as JSON, without the password that a database's URL may hold."""
    found = settings.model_dump(mode="json")
    if settings.database is not None:
        found["database"] = without_password(settings.database)
    return found


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{config}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config}: not TOML: {error}") from error
