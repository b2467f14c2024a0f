"""Checksums of a whole file, as storages offer them with an answer.

============================  =====================================================================
``Repr-Digest``               RFC 9530: sha-256, sha-512; with a part (206) it is that of the whole
``x-amz-checksum-sha256``     S3 and what speaks its language; of the whole, unless of its parts
``x-goog-hash``               Google Cloud Storage: md5; of the whole
``Content-MD5``               Azure and older storages; of what is in the answer, so not with a part
============================  =====================================================================

What cannot be read is no checksum. Where there are several, the file must have them all: of two that contradict each
other nobody knows which is the right one.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nudgescribe_async.transport import Headers

__all__ = ["Digest", "noted", "offered", "restored"]

Digest: TypeAlias = tuple[str, bytes]
"""The name of an algorithm of ``hashlib``, and a checksum by it."""
_SIZES = {"sha256": 32, "sha512": 64, "md5": 16}
_REPR_DIGEST = re.compile(r"(?:^|,)\s*(sha-256|sha-512)\s*=\s*:([A-Za-z0-9+/=]*):", re.IGNORECASE)
_GOOGLE = re.compile(r"(?:^|,)\s*md5=([A-Za-z0-9+/=]+)", re.IGNORECASE)


def offered(headers: Headers, *, part: bool) -> frozenset[Digest]:
    """The checksums of the whole file.

    Args:
        headers: of the answer.
        part: whether only a part of the file is in it.
    """
    return frozenset(
        (algorithm, digest)
        for algorithm, text in _stated(headers, part=part)
        if (digest := _decoded(text)) is not None and len(digest) == _SIZES[algorithm]
    )


def noted(digests: Iterable[Digest]) -> tuple[str, ...]:
    """As text, in an order that depends on nothing else."""
    return tuple(sorted(f"{algorithm}:{digest.hex()}" for algorithm, digest in digests))


def restored(texts: Iterable[str]) -> frozenset[Digest]:
    """What ``noted`` made text of."""
    return frozenset((text.partition(":")[0], bytes.fromhex(text.partition(":")[2])) for text in texts)


def _stated(headers: Headers, *, part: bool) -> Iterator[tuple[str, str]]:
    for found in _REPR_DIGEST.finditer(headers.get("repr-digest", "")):
        yield found[1].lower().replace("-", ""), found[2]
    yield "sha256", headers.get("x-amz-checksum-sha256", "")
    for found in _GOOGLE.finditer(headers.get("x-goog-hash", "")):
        yield "md5", found[1]
    if not part:
        yield "md5", headers.get("content-md5", "")


def _decoded(text: str) -> bytes | None:
    try:
        return binascii.a2b_base64(text.strip(), strict_mode=True)
    except ValueError:
        return None
