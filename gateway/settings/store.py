"""The settings of the store, and of what the server must remember."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from gateway.settings.error import SettingsError
from gateway.settings.types import Database, Models
from gateway.store import urls


class StoreSettings(BaseSettings):
    """Where variants come from, which of them to believe, and where the server's own folder is."""

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
    trust_store: bool = Field(
        False, description="Load formats that can carry code. Only for a store that is your own."
    )
    verify_signatures: Path | None = Field(
        None,
        description="A public key in PEM: a variant that its owner did not sign is not loaded. By "
        "default signatures are not asked for.",
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
