"""The settings of the ports: where to listen, by what certificate, and whom to let in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from gateway.settings.types import OwnPort


class PortSettings(BaseSettings):
    """How the server is reached."""

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
    console: Literal["on", "read-only", "off"] = Field(
        "on",
        description="The page at /: on, read-only without what changes anything, or off.",
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
