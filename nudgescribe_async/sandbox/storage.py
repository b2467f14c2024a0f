"""The other origin: files behind signed URLs.

A signed URL is worth what it is worth without any credentials, and whoever sends some along has leaked them: such a
request is refused with 400, so that a test notices. A wrong or expired signature is refused with 403.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import time
from typing import TYPE_CHECKING

from aiohttp import web

from nudgescribe_async.sandbox import messages
from nudgescribe_async.sandbox.values import Refusal

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.store import Store

_CREDENTIALS = ("Authorization", "x-api-key", "x-auth-context", "Cookie")
_STATUSES = {"bad_request": 400, "unauthorised": 403}


class Storage:
    """Signs URLs, and serves what they stand for."""

    def __init__(self, store: Store, secret: bytes, lifetime: float) -> None:
        self._store = store
        self._secret = secret
        self._lifetime = lifetime
        self.origin = "http://storage.sandbox.invalid"

    def sign(self, file_id: str) -> dict[str, object]:
        """The answer with a URL that is good for a while."""
        expires = f"{time.time() + self._lifetime:.3f}"
        url = f"{self.origin}/files/{file_id}?expires={expires}&signature={self._signature(file_id, expires)}"
        return {"url": url, "expires_in": math.floor(self._lifetime)}

    def _signature(self, file_id: str, expires: str) -> str:
        data = f"{file_id}\n{expires}".encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, data, hashlib.sha256).hexdigest()

    def _check(self, request: web.Request) -> str:
        leaked = [name for name in _CREDENTIALS if name in request.headers]
        if leaked:
            raise Refusal("bad_request", f"Credentials were sent to another origin: {', '.join(leaked)}")
        file_id = request.match_info["file_id"]
        expires = request.query.get("expires", "")
        signature = request.query.get("signature", "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(self._signature(file_id, expires).encode(), signature):
            raise Refusal("unauthorised", "The signature is wrong")
        if float(expires) <= time.time():
            raise Refusal("unauthorised", "The URL has expired")
        return file_id

    async def download(self, request: web.Request) -> web.Response:
        """``GET`` (and ``HEAD``) of a signed URL, with ``Range``, ``If-Range`` and ``If-None-Match``."""
        try:
            file_id = self._check(request)
            content, etag = await self._store.read(lambda db: messages.read_file(db, file_id))
        except Refusal as refusal:
            return web.Response(status=_STATUSES[refusal.kind], text=refusal.message)
        headers = {
            "ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "text/csv; charset=utf-8",
            "Repr-Digest": _repr_digest(content),  # with a part, too, it is that of the whole
        }
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        if "Range" not in request.headers or request.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
            return web.Response(body=content, headers=headers)
        try:
            wanted = request.http_range
        except ValueError:
            wanted = slice(0, 0)
        start, stop, _ = wanted.indices(len(content))
        if start >= stop:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return web.Response(status=206, body=content[start:stop], headers=headers)


def _repr_digest(content: bytes) -> str:
    """As RFC 9530 has it."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"
