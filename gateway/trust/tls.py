"""TLS for every listener: one certificate, read again on SIGHUP without losing a connection."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.settings import Settings, SettingsError


class Tls:
    """The certificate that the server shows, and whose clients it takes.

    TLS 1.2 at least (RFC 8996 forbids what was before it), with OpenSSL's default ciphers.

    Attributes:
        context: what listeners accept connections with; `reload` changes what it shows.
        reloads: how often that was done, for those that keep a copy.

    Raises:
        SettingsError: a file cannot be read, or certificate and key do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self.certificate, self.key, self.client_ca = certificate, key, client_ca
        self.context = self._read()
        self.reloads = 0

    def check(self) -> None:
        """Whether the files are usable now.

        Raises:
            SettingsError: they are not.
        """
        self._read()

    def reload(self) -> None:
        """Show the certificate that is in the files now to the connections that come.

        Raises:
            SettingsError: it is not usable; the one that was read before stays.
        """
        self._read()  # whole in a context of its own first: half a pair must not get into use
        self.context.load_cert_chain(self.certificate, self.key, password="")
        self.reloads += 1

    def accepting(self, *_: object) -> ssl.SSLContext:
        """The context, for those that ask for it by a function."""
        return self.context

    def pem(self) -> tuple[bytes, bytes, bytes | None]:
        """Key, certificate chain and clients' authorities as they are in the files.

        Raises:
            SettingsError: they are not usable.
        """
        self._read()
        authorities = None if self.client_ca is None else self.client_ca.read_bytes()
        return self.key.read_bytes(), self.certificate.read_bytes(), authorities

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # An empty password: a key that needs one fails, and does not ask the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"tls_certificate and tls_key: expected a certificate and its key in PEM, got "
                f"{self.certificate} and {self.key}: {_why(error)}"
            ) from error
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(
                    f"tls_client_ca: expected certificates in PEM, got {self.client_ca}: "
                    f"{_why(error)}"
                ) from error
        return context


def of(settings: Settings) -> Tls | None:
    """What the settings say; None for plain TCP.

    Raises:
        SettingsError: half of it is missing, or a file is not usable.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        if settings.tls_client_ca is not None:
            raise SettingsError("tls_client_ca: expected tls_certificate and tls_key beside it")
        return None
    if certificate is None or key is None:
        given, missing = ("tls_key", "tls_certificate") if key else ("tls_certificate", "tls_key")
        raise SettingsError(f"{given}: expected {missing} beside it, got none")
    return Tls(certificate, key, settings.tls_client_ca)


def _why(error: OSError) -> str:
    return error.strerror or getattr(error, "reason", None) or str(error)
