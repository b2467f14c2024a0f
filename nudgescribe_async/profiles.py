"""Profiles in the clear: what decrypts them, and how a customer comes by it.

The service hands profiles out encrypted, and how it encrypts them is not documented. So the client decrypts
nothing by itself: it takes a ``ProfileDecryptor``, and uses it where ``customer.profile()`` is called, and
nowhere else. ``AesGcmProfiles`` is the one for the sandbox.

A customer refers to the decryptor of its client without holding a key of its own: what is pickled, copied or
compared is the answer of the service alone.
"""

from __future__ import annotations

import base64
import inspect
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn, Protocol, cast, runtime_checkable

from nudgescribe_async.errors import ConfigurationError, ProfileError
from nudgescribe_async.shapes import JSON, NotPickled

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["AesGcmProfiles", "HasProfile", "ProfileDecryptor", "attach", "checked_decryptor"]

_ALGORITHM = "A256GCM"
_KEY_BYTES = 32
_IV_BYTES = 12


@runtime_checkable
class ProfileDecryptor(Protocol):
    """What reads the encrypted profiles of a client; anything with ``decrypt`` will do.

    It is called in whatever thread calls ``customer.profile()``, in several at once if need be, and in the
    event loop's own: it must be quick, and must not wait for anything. Get keys before the client is built.
    Its ``repr`` must not show them, since tracebacks may show it.
    """

    def decrypt(self, customer_id: str, extended_profile: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """The profile of a customer in the clear: profile field to value.

        Args:
            customer_id: whose profile it is. A scheme that binds profiles to customers needs it.
            extended_profile: what the service answered.

        Raises:
            Exception: it cannot be read. A ``ProfileError`` reaches the caller as it is, anything else as the
                ``__cause__`` of one; so its text should have nothing of the profile in it.
        """
        ...


class AesGcmProfiles(NotPickled):
    """Reads profiles that are sealed with AES-256-GCM as the *sandbox* seals them.

    The envelope is ``{"alg": "A256GCM", "kid", "iv", "ciphertext"}``, the last two in Base64; the customer id is
    the associated data, so that an envelope that was moved to another customer is refused. The scheme of the real
    service is not documented: nothing says that it is this one.

    Safe to use from several threads. It takes some microseconds a profile. It copies as itself, and refuses
    to be pickled, since it holds keys.

    Args:
        key: the key, 32 bytes, tried on every envelope; or several by their id, as the envelope's ``kid``
            has it, where keys were changed or there are several accounts.

    Raises:
        ConfigurationError: a key is none, or the package ``cryptography`` is missing (extra ``crypto``).
    """

    __slots__ = ("_ciphers",)

    def __init__(self, key: bytes | Mapping[str, bytes]) -> None:
        ciphers = _ciphers(key)
        del key  # tracebacks may show local variables
        if isinstance(ciphers, str):
            raise ConfigurationError(ciphers)
        self._ciphers = ciphers

    def __repr__(self) -> str:
        return "AesGcmProfiles(***)"

    def decrypt(self, customer_id: str, extended_profile: Mapping[str, JSON]) -> dict[str, JSON]:
        """The profile in an envelope of this customer.

        Raises:
            ProfileError: it is no such envelope, it was damaged, it is another customer's, or its key is not at hand.
        """
        profile = self._opened(customer_id, extended_profile)
        if isinstance(profile, str):
            raise _error(customer_id, profile)
        return profile

    def _opened(self, customer_id: str, envelope: Mapping[str, JSON]) -> dict[str, JSON] | str:
        """The profile, or what is wrong.

        An error raised in here would hold the profile, or a part of it, in its context and in its frames.
        """
        algorithm, kid = envelope.get("alg"), envelope.get("kid")
        if algorithm != _ALGORITHM:
            return f"it is not sealed with {_ALGORITHM}, or not in the way of the sandbox"
        cipher = self._ciphers.get(None) or (self._ciphers.get(kid) if isinstance(kid, str) else None)
        if cipher is None:
            named = f"whose id is {kid[:64]!r}" if isinstance(kid, str) else "that it does not name"
            return f"it is sealed with a key {named}, and that is none of the given ones"
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see _ciphers

        try:
            iv = base64.b64decode(cast("str", envelope["iv"]), validate=True)
            ciphertext = base64.b64decode(cast("str", envelope["ciphertext"]), validate=True)
        except (KeyError, TypeError, ValueError):
            return "its envelope is damaged"
        if len(iv) != _IV_BYTES:
            return "its envelope is damaged"
        try:
            bound_to = customer_id.encode()
        except UnicodeEncodeError:
            return "its customer id is no text that an envelope could be bound to"
        try:
            clear = cipher.decrypt(iv, ciphertext, bound_to)
            profile = json.loads(clear, parse_constant=_no_number, parse_float=_finite)
        except InvalidTag:
            return "the key is another one, or the envelope is another customer's or damaged"
        except (ValueError, RecursionError):  # sealed by somebody who has the key, and no JSON all the same
            return "what is sealed in it is no JSON"
        return cast("dict[str, JSON]", profile) if type(profile) is dict else "what is sealed in it is no JSON object"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is larger than any")
    return number


def _ciphers(key: object) -> dict[str | None, AESGCM] | str:
    """What uses each key, by the key's id (``None`` for one that is used whatever the id), or what is wrong."""
    try:
        # The extra `crypto`; a client without it never comes here.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra
    except ImportError:
        return 'AesGcmProfiles needs the package cryptography: pip install "nudgescribe_async[crypto]".'
    keys = cast("Mapping[object, object]", key) if isinstance(key, Mapping) else {None: key}
    if not keys:
        return "AesGcmProfiles got no key: the mapping of key ids to keys is empty."
    ciphers: dict[str | None, AESGCM] = {}
    for kid, one in keys.items():
        if isinstance(key, Mapping) and not isinstance(kid, str):
            return f"AesGcmProfiles: the id of a key must be text, not {type(kid).__name__}."
        if not isinstance(one, bytes) or len(one) != _KEY_BYTES:
            came = f"{len(one)} bytes" if isinstance(one, bytes) else type(one).__name__
            return f"AesGcmProfiles: {'the key' if kid is None else f'the key {kid!r}'} must be {_KEY_BYTES} bytes, not {came}."
        ciphers[cast("str | None", kid)] = AESGCM(one)
    return ciphers


def _error(customer_id: str, why: str) -> ProfileError:
    error = ProfileError(f"The profile of customer {customer_id!r} cannot be read: {why}.")
    error.customer_id = customer_id
    return error


class HasProfile:
    """What ``profile()`` adds to the model of a customer (``x-profile`` in the contract).

    The slot is left alone by decoding, ``repr``, comparison, copies and pickles, and so costs nothing where no
    decryptor is given.
    """

    __slots__ = ("_decryptor",)

    if TYPE_CHECKING:  # the first two are fields of the model
        customer_id: str
        extended_profile: dict[str, JSON]
        _decryptor: ProfileDecryptor

    def profile(self, decryptor: ProfileDecryptor | None = None) -> dict[str, JSON]:
        """The profile in the clear: profile field to value.

        Decrypted anew by every call, in the thread of the caller, and kept nowhere. Works after the client was
        closed, too.

        Args:
            decryptor: left out, the ``profile_decryptor`` of the client that the customer came from. A customer that was
                copied, pickled or built by hand has none, and needs one here.

        Raises:
            ConfigurationError: there is no decryptor, or what was passed cannot be one.
            ProfileError: the profile cannot be read with it.
        """
        if decryptor is None:
            decryptor = cast("ProfileDecryptor | None", getattr(self, "_decryptor", None))
            if decryptor is None:
                raise ConfigurationError(
                    "There is nothing to decrypt the profile with. Give the client one, Nudgescribe(profile_decryptor=...), "
                    "or this call, customer.profile(decryptor): a customer that was copied or pickled has lost its client's."
                )
        elif (unfit := _unfit(decryptor)) is not None:
            del decryptor  # tracebacks may show local variables, and a key may have been passed
            raise ConfigurationError(f"customer.profile(): the decryptor {unfit}")
        failed: Exception | None = None
        try:
            profile: object = decryptor.decrypt(self.customer_id, self.extended_profile)
            if isinstance(profile, Mapping):
                return dict(profile)
        except ProfileError:
            raise
        except Exception as error:  # noqa: BLE001 - somebody else's code
            failed, profile = error, None
        what = f"raised {type(failed).__name__}" if failed is not None else f"gave {type(profile).__name__}, no mapping"
        if inspect.iscoroutine(profile):
            profile.close()
            what = "gave a coroutine, where it must answer at once"
        del profile  # tracebacks may show local variables
        raise _error(self.customer_id, f"the decryptor {what}") from failed


def attach(decryptor: ProfileDecryptor, answer: object) -> None:
    """Let the customers of an answer be read with this decryptor; any other answer is left alone."""
    for item in cast("list[object]", answer) if isinstance(answer, list) else (answer,):
        if isinstance(item, HasProfile):
            item._decryptor = decryptor  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - this module's own


def checked_decryptor(decryptor: object) -> ProfileDecryptor | None:
    """The decryptor that a client was given.

    Raises:
        ConfigurationError: it cannot be one.
    """
    if decryptor is None:
        return None
    unfit = _unfit(decryptor)
    if unfit is not None:
        del decryptor  # as in profile()
        raise ConfigurationError(f"profile_decryptor {unfit}")
    return cast("ProfileDecryptor", decryptor)


def _unfit(decryptor: object) -> str | None:
    """Why something cannot be a decryptor, as the end of a sentence."""
    if isinstance(decryptor, type) or not isinstance(decryptor, ProfileDecryptor):
        what = f"the class {decryptor.__name__}" if isinstance(decryptor, type) else type(decryptor).__name__
        return f"must be an object with decrypt(customer_id, extended_profile), not {what}."
    if inspect.iscoroutinefunction(decryptor.decrypt):
        return "must answer at once: decrypt() must not be a coroutine. Get keys beforehand."
    return None
