"""The shapes of answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


def dumps(value: object) -> bytes:
    """JSON, as the service writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def as_json(body: object) -> web.Response:
    """An answer of JSON that was serialised on the thread already."""
    assert isinstance(body, bytes)  # noqa: S101
    return web.Response(body=body, content_type="application/json")


def error_body(code: str, message: str) -> bytes:
    """What every error says."""
    return dumps({"success": False, "message": message, "code": code})


def error(status: int, code: str, message: str) -> web.Response:
    """An error."""
    return web.Response(status=status, body=error_body(code, message), content_type="application/json")


def code_of(phrase: str) -> str:
    """The code of an error that is known by its phrase only."""
    return phrase.lower().replace(" ", "_")


class Stream(web.StreamResponse):
    """An answer whose body is produced while it is sent, and perhaps never ends."""

    def __init__(
        self, chunks: AsyncIterator[bytes], *, status: int, headers: Mapping[str, str], bodiless: bool
    ) -> None:
        super().__init__(status=status, headers=headers)
        self._chunks = chunks
        self._bodiless = bodiless

    async def write_eof(self, data: bytes = b"") -> None:
        """Send everything. The iterator is closed whatever happens."""
        try:
            if not self._bodiless:
                async for chunk in self._chunks:
                    await self.write(chunk)
        finally:
            close = getattr(self._chunks, "aclose", None)
            if close is not None:
                await close()
        await super().write_eof(data)
