"""The user's key, under which identifiers are hashed: without it nobody tells by a hash what it is of."""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import UserError
from .layout import Layout

BYTES = 32  # of a key, at least
DIGITS = 32  # of a hash, hexadecimal
MAKE = "make one: (umask 077; head -c 32 /dev/urandom > ids.key), and name it in key_file"


@dataclass(frozen=True)
class Key:
    """A secret; it shows in no message."""

    secret: bytes = field(repr=False)

    def hash(self, keyword: str, value: str) -> str:
        """HMAC-SHA256 of what the DICOM attribute `keyword` says: its first `DIGITS` digits."""
        message = f"{keyword}\0{value}".encode(errors="backslashreplace")
        return hmac.new(self.secret, message, "sha256").hexdigest()[:DIGITS]

    @property
    def name(self) -> str:
        """By which this key is told from another; it gives nothing of it away."""
        return self.hash("", "")[:16]


def key_of_ids(config: Mapping[str, Any]) -> Key | None:
    """The key of the identifiers that the manifests keep; None where they keep none. Raises `UserError`."""
    return read_key(config["key_file"]) if config["convert"]["keep_ids"] else None


def read_key(path: str | None) -> Key:
    """The key in the file at `path`. Raises `UserError` if there is none, or none that is fit for it."""
    if path is None:
        raise UserError(f"config: key_file: convert.keep_ids needs a key; {MAKE}")
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(Layout().root)):
        raise UserError(f"config: key_file: {path!r} lies in {Layout().root}, which others may get; keep it elsewhere")
    try:
        secret = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"config: key_file: cannot read {path!r} in {Path.cwd()}: {error.strerror}; {MAKE}") from error
    if len(secret) < BYTES:
        raise UserError(f"config: key_file: {path!r} holds {len(secret)} bytes, a key has {BYTES} or more; {MAKE}")
    return Key(secret)
