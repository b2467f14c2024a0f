"""Encryption of what the service knows of people.

Every account has a key of its own. A profile is sealed with AES-256-GCM under that key, with the id of the
customer as associated data, so that an envelope cannot be moved to another customer. The envelope is what the
database holds and what goes over the wire. Customers are found by their identifier through a keyed hash (a blind
index), so that the identifier itself is never stored in the clear either.

How the real service encrypts is not documented: the scheme is the sandbox's own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from typing import TYPE_CHECKING, Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nudgescribe_async.sandbox.values import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nudgescribe_async.sandbox.validation import Value

ALGORITHM = "A256GCM"
_IV_BYTES = 12


class Key:
    """The key of one account, and the only code that uses it. It is safe to use from several threads."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.kid = hashlib.sha256(b"kid:" + secret).hexdigest()[:16]
        self._gcm = AESGCM(secret)
        self._blind = hmac.new(secret, b"blind index", hashlib.sha256).digest()

    def __repr__(self) -> str:
        return f"Key(kid={self.kid!r})"

    def seal(self, label: str, data: bytes) -> bytes:
        """Encrypt anything; ``label`` says what it belongs to and must be given again to open it."""
        iv = os.urandom(_IV_BYTES)
        return iv + self._gcm.encrypt(iv, data, label.encode())

    def open(self, label: str, sealed: bytes) -> bytes:
        """Decrypt what was sealed under the same label."""
        return self._gcm.decrypt(sealed[:_IV_BYTES], sealed[_IV_BYTES:], label.encode())

    def seal_profile(self, customer_id: str, profile: Mapping[str, Value]) -> str:
        """The envelope of a profile, as JSON text."""
        sealed = self.seal(customer_id, json.dumps(profile, ensure_ascii=False, separators=(",", ":")).encode())
        iv = base64.b64encode(sealed[:_IV_BYTES]).decode()
        ciphertext = base64.b64encode(sealed[_IV_BYTES:]).decode()
        # Base64 and hexadecimal digits need no escaping, and this runs once a row of every upload.
        return f'{{"alg":"{ALGORITHM}","kid":"{self.kid}","iv":"{iv}","ciphertext":"{ciphertext}"}}'

    def open_profile(self, customer_id: str, envelope: str | Mapping[str, Any]) -> dict[str, Value]:
        """The profile in an envelope."""
        parts = json.loads(envelope) if isinstance(envelope, str) else envelope
        try:
            sealed = base64.b64decode(parts["iv"], validate=True) + base64.b64decode(parts["ciphertext"], validate=True)
            return cast("dict[str, Value]", json.loads(self.open(customer_id, sealed)))
        except (KeyError, TypeError, ValueError, InvalidTag) as error:
            raise SandboxError("The envelope is not the one of this customer, or it was changed.") from error

    def blind(self, identifier: object) -> str:
        """The blind index of an identifier."""
        return hmac.new(self._blind, str(identifier).encode(), hashlib.sha256).hexdigest()


def new_secret() -> bytes:
    """A fresh key of 256 bits."""
    return AESGCM.generate_key(256)
