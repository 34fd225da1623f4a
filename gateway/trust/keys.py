"""API keys: made from 256 random bits, shown once, kept as a digest.

A key reads `gsk_<id>_<secret>`. The id is no secret: it finds the record, and may be logged. The
secret is as long as the digest that is kept of it, so that a plain SHA-256 is enough: there is
nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.errors import InvalidRequest
from router.quota import Limits

Scope = Literal["infer", "admin", "read"]
SCOPES: tuple[Scope, ...] = ("infer", "read", "admin")

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_PREFIX = "gsk"
_TEXT = re.compile(rb"gsk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_SCHEME = re.compile(rb"[Bb]earer +(\S+) *")
DEFAULT_TENANT = "default"
# What the tenant of a request is called that came without a key, or with one that is not known;
# and the rest of too many.
_TAKEN_TENANTS = ("open", "none", "others")
# What an unknown id is compared with, so that it takes as long as a known one.
_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Key:
    """One key as it is kept.

    Attributes:
        digest: SHA-256 of the secret, in hexadecimal.
        created: when, in UTC, as 2026-01-31T00:00:00+00:00.
        revoked: likewise; None while it may be used.
        tenant: the class of keys that it belongs to: a label of metrics.
    """

    id: str
    name: str
    digest: str
    scopes: tuple[Scope, ...]
    limits: Limits
    created: str
    revoked: str | None = None
    tenant: str = DEFAULT_TENANT

    def may(self, scope: Scope) -> bool:
        """Whether it has `scope`; `admin` holds the others too."""
        return scope in self.scopes or "admin" in self.scopes

    def as_json(self) -> dict[str, Any]:
        """All of it but the digest."""
        limits = self.limits
        return {
            "id": self.id,
            "name": self.name,
            "tenant": self.tenant,
            "scopes": list(self.scopes),
            "requests_per_second": limits.requests_per_second,
            "burst": limits.burst,
            "concurrency": limits.concurrency,
            "budget_usd_per_day": limits.budget_usd_per_day,
            "created": self.created,
            "revoked": self.revoked,
        }


class Wanted(BaseModel):
    """What is asked of a new key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=NAME_PATTERN)
    tenant: str = Field(DEFAULT_TENANT, pattern=NAME_PATTERN)
    scopes: list[Scope] = Field(["infer"], min_length=1)
    requests_per_second: float | None = Field(None, gt=0, allow_inf_nan=False)
    burst: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1)
    budget_usd_per_day: float | None = Field(None, ge=0, allow_inf_nan=False)

    @property
    def limits(self) -> Limits:
        """Those of the key."""
        return Limits(
            self.requests_per_second, self.burst, self.concurrency, self.budget_usd_per_day
        )


def wanted(raw: dict[str, Any]) -> Wanted:
    """A new key's description, checked.

    Raises:
        InvalidRequest: names the field, what came and what was expected.
    """
    try:
        asked = Wanted.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(Wanted.model_fields)
            raise InvalidRequest(field, field, f"one of {known}") from error
        if problem["type"] == "missing":
            raise InvalidRequest(field, "nothing", "a name for the key") from error
        expected = problem["msg"].removeprefix("Input should be ")
        if problem["type"] == "string_pattern_mismatch":
            expected = "letters, digits, dots, underscores and hyphens, 64 at most"
        raise InvalidRequest(field, problem["input"], expected) from error
    if asked.tenant in _TAKEN_TENANTS:
        taken = ", ".join(_TAKEN_TENANTS)
        raise InvalidRequest("tenant", asked.tenant, f"a name other than {taken}: metrics use them")
    return asked


def create(asked: Wanted, created: str) -> tuple[Key, str]:
    """A new key, and its text, which is kept nowhere.

    Args:
        created: now, in UTC.
    """
    number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    scopes = tuple(scope for scope in SCOPES if scope in asked.scopes)
    digest = _digest(secret.encode())
    key = Key(number, asked.name, digest, scopes, asked.limits, created, tenant=asked.tenant)
    return key, f"{_PREFIX}_{number}_{secret}"


def presented(authorization: bytes | None) -> tuple[str, bytes] | None:
    """The id and the secret of an `Authorization: Bearer KEY` header (RFC 6750, section 2.1).

    Returns:
        None when there is none, or it is no key of this form.
    """
    scheme = _SCHEME.fullmatch(authorization or b"")
    found = _TEXT.fullmatch(scheme[1]) if scheme else None
    return (found[1].decode(), found[2]) if found else None


def opens(key: Key | None, secret: bytes) -> bool:
    """Whether this is the key's secret; in the same time whether it is or not."""
    right = hmac.compare_digest(_digest(secret), key.digest if key else _NOBODY)
    return right and key is not None and key.revoked is None


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
