"""Tickets: tasks sealed for the browser, which can neither read nor change them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any

TAG = 16
"""Bytes of a ticket's authentication."""


class Seal:
    """Deterministic authenticated encryption (SIV) from keyed hashes.

    The tag is an HMAC of the text, the key stream is hashed from key and tag: equal texts give
    equal tickets, and a changed one is refused. Whoever votes cannot see which image is whose.

    Args:
        secret: Key, 32 bytes.

    Example:
        >>> seal = Seal(bytes(32))
        >>> seal.open(seal.close({"shown": [1, 2]}))
        {'shown': [1, 2]}
        >>> seal.open("forged") is None
        True
    """

    def __init__(self, secret: bytes) -> None:
        self._tags = hashlib.sha256(b"tag" + secret).digest()
        self._stream = hashlib.sha256(b"stream" + secret).digest()

    def close(self, content: Any) -> str:
        """Seal JSON-like content as text for addresses."""
        text = json.dumps(content, separators=(",", ":")).encode()
        tag = self._tag(text)
        return base64.urlsafe_b64encode(tag + self._crypted(text, tag)).decode()

    def open(self, ticket: str) -> Any:
        """Return the content of a ticket, or None if it is not genuine."""
        try:
            data = base64.b64decode(ticket.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        text = self._crypted(data[TAG:], data[:TAG])
        return json.loads(text) if hmac.compare_digest(self._tag(text), data[:TAG]) else None

    def _tag(self, text: bytes) -> bytes:
        return hmac.digest(self._tags, text, "sha256")[:TAG]

    def _crypted(self, text: bytes, tag: bytes) -> bytes:
        """Encrypt or decrypt: the exclusive or with a key stream."""
        stream = hashlib.shake_256(self._stream + tag).digest(len(text))
        return bytes(a ^ b for a, b in zip(text, stream, strict=True))
