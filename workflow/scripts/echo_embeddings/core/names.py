"""File names and messages that any tool can carry: printable UTF-8 on one line."""

import os
import re


def _escape(text: str, more: str) -> str:
    """`text` with what is not printable UTF-8, and the characters in `more`, as `%XX` a byte."""
    if text.isprintable() and not any(c in text for c in more):
        return text
    return "".join(
        c if c.isprintable() and c not in more else "".join(f"%{b:02X}" for b in os.fsencode(c)) for c in text
    )


def encode_name(raw: str) -> str:
    """A path, as the operating system gives it, as printable UTF-8: other bytes and `%` as `%XX`."""
    return _escape(raw, "%")


def decode_name(name: str) -> str:
    """The operating system's path that `encode_name` made `name` of."""
    raw = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes.fromhex(m[1].decode()), name.encode())
    return os.fsdecode(raw)


def one_line(error: object) -> str:
    """The message of an error, or its type where it has none, as one printable line."""
    return _escape(" ".join(str(error).split()), "") or type(error).__name__
