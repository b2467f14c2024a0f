"""The part of a file that is here, and how more of it comes.

An answer is continued only where nothing speaks against it: the first one had a strong ETag and said that it serves
ranges, and the next one is a 206 with the same ETag, from the very byte on and to the end. Anything else starts anew,
and a storage whose answer to a range was odd is not asked for one again.

Bytes are gathered in pieces of a quarter of a MiB, and written in a thread. When an answer breaks off, what has come of
it is written too; when the disk refuses, the length that is known is the length that counts.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from nudgescribe_async.bulk.download.digests import noted, offered, restored
from nudgescribe_async.bulk.download.manifest import Checkpoint
from nudgescribe_async.errors import OutcomeUnknownError, ResponseDecodeError
from nudgescribe_async.message_file import is_visibly_none, not_a_file
from nudgescribe_async.threads import check, in_thread
from nudgescribe_async.transport import Headers

if TYPE_CHECKING:
    import threading
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from nudgescribe_async.bulk.download.digests import Digest
    from nudgescribe_async.transport import Response

__all__ = ["BATCH", "CHECKPOINT_EVERY", "PartialFile"]

BATCH = 256 * 2**10
CHECKPOINT_EVERY = 8 * 2**20
"""Bytes of a file that are downloaded again at most after a crash."""
_START = 64 * 2**10  # bytes that tell what it is
_CHUNK = 2**20
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


class PartialFile:
    """A ``Sink`` that writes to one file, in as many attempts as it takes.

    Args:
        path: the file.
        keep: is told how far it has come, now and then.

    Attributes:
        size: how many bytes are here.
        whole: whether that is all.
        continued: whether it was continued where it had broken off.
        headers_of_answer: of the last answer that was taken.
        digests: the checksums of the whole, all that storages gave.
    """

    def __init__(self, path: Path, *, keep: Callable[[Checkpoint], Awaitable[None]]) -> None:
        self._path = path
        self._ranges = True
        self._keep = keep
        self._descriptor: int | None = None
        self._buffer = bytearray()
        self.start_anew()

    def start_anew(self) -> None:
        """Forget what has come."""
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self._kept = 0
        self._asked = False
        self._etag: str | None = None
        self._total: int | None = None
        self.size = 0
        self.whole = self.continued = False
        self.headers_of_answer = Headers()
        self.digests: frozenset[Digest] = frozenset()

    def ask_for_all(self) -> None:
        """Start anew, now and whenever it breaks off: nobody there offers to continue."""
        self._ranges = False
        self.start_anew()

    def restore(self, checkpoint: Checkpoint, stop: threading.Event) -> None:
        """Go on from what an earlier process left, if it is what that one noted. Blocks."""
        if not _STRONG.fullmatch(checkpoint.etag):
            return
        hashed, left = hashlib.sha256(), checkpoint.bytes
        with suppress(FileNotFoundError), self._path.open("rb", buffering=0) as file:
            while left and (piece := file.read(min(_CHUNK, left))):
                check(stop)
                hashed.update(piece)
                left -= len(piece)
        if left == 0 and 0 < checkpoint.bytes < checkpoint.total and hashed.hexdigest() == checkpoint.sha256:
            self._hash, self.size = hashed, checkpoint.bytes
            self._kept, self._etag, self._total = checkpoint.bytes, checkpoint.etag, checkpoint.total
            self.digests = restored(checkpoint.digests)

    def checkpoint(self) -> Checkpoint | None:
        """How far it has come; ``None`` if it cannot be continued from there."""
        if not self._ranges or self._etag is None or self._total is None or not 0 < self.size < self._total:
            return None
        return Checkpoint(
            etag=self._etag,
            total=self._total,
            bytes=self.size,
            sha256=self._hash.hexdigest(),
            digests=noted(self.digests),
        )

    # --- as a sink -------------------------------------------------------------------------------------------------

    def headers(self) -> Mapping[str, str]:
        """Ask for the rest, where there is a start and a way to continue it."""
        self._asked = self.checkpoint() is not None
        if not self._asked or self._etag is None:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._etag}

    async def receive(self, response: Response) -> None:
        """Take what comes. See ``Sink``."""
        self._begin(response)
        try:
            await in_thread(self._open)
            async for chunk in response.stream:
                self._buffer += chunk
                chunk = b""  # noqa: PLW2901 - tracebacks may be kept with their locals, and this is of customers
                if len(self._buffer) >= BATCH:
                    await self._take()
            if self.size == 0:
                self._judge_start()
        except BaseException:
            with suppress(OSError):  # something went wrong already
                await in_thread(self._write_and_close)
            raise
        await in_thread(self._write_and_close)
        self._end()

    def _begin(self, response: Response) -> None:
        headers = response.headers
        if response.status == 206 and self._asked and self._fits(headers):
            self.continued = True
        elif response.status == 200 and _is_whole(headers):
            self.start_anew()
            length = headers.get("content-length", "").strip()
            self._total = int(length) if length.isascii() and length.isdigit() else None
            etag = headers.get("etag", "").strip()
            if _STRONG.fullmatch(etag) and headers.get("accept-ranges", "").strip().lower() == "bytes":
                self._etag = etag
        else:
            self.ask_for_all()
            what = "is a part of the file" if response.status == 200 else f"is one with status {response.status}"
            raise _odd(f"The answer {what}, and not the file that was asked for.")
        self.headers_of_answer = headers
        self.digests |= offered(headers, part=response.status == 206)

    def _fits(self, headers: Headers) -> bool:
        """Whether a part is the rest of this file."""
        found = _RANGE.fullmatch(headers.get("content-range", "").strip())
        if found is None or headers.get("etag", "").strip() != self._etag:
            return False
        first, last, total = map(int, found.groups())
        length = headers.get("content-length", str(last - first + 1)).strip()
        return (first, last, total) == (self.size, total - 1, self._total) and length == str(last - first + 1)

    async def _take(self) -> None:
        if self.size == 0:
            self._judge_start()
        if self._total is not None and self.size + len(self._buffer) > self._total:
            self.start_anew()
            raise _odd("The answer is longer than it said.")
        await in_thread(self._write)
        if self.size - self._kept >= CHECKPOINT_EVERY:
            checkpoint = self.checkpoint()
            if checkpoint is not None:
                self._kept = self.size
                await self._keep(checkpoint)

    def _judge_start(self) -> None:
        """Refuse at the start what is no file of messages: a page for browsers is not worth its download."""
        headers, start = self.headers_of_answer, bytes(self._buffer[:_START])
        what = not_a_file(200, headers, start)
        visibly = is_visibly_none(200, headers, start)
        del start
        if what is None or (len(self._buffer) >= _START and what.startswith("a single line")):
            return
        self.start_anew()
        error = ResponseDecodeError(
            f"The answer is {what}, not CSV.", expected="text/csv", received=what, evidence="reference"
        )
        error.unreadable = visibly
        raise error

    def _end(self) -> None:
        if self._total is not None and self.size != self._total:
            raise OutcomeUnknownError(f"The answer broke off after {self.size:,} of {self._total:,} bytes of the file.")
        self.whole = True

    # --- in a thread -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        os.ftruncate(self._descriptor, self.size)
        os.lseek(self._descriptor, self.size, os.SEEK_SET)

    def _write(self) -> None:
        if self._descriptor is None:  # it could not be opened
            return
        view, done = memoryview(self._buffer), 0
        while done < len(view):
            done += os.write(self._descriptor, view[done:])
        self._hash.update(self._buffer)
        self.size += len(self._buffer)
        self._buffer = bytearray()

    def _write_and_close(self) -> None:
        try:
            self._write()
        finally:
            descriptor, self._descriptor = self._descriptor, None
            self._buffer = bytearray()  # what could not be written is asked for again
            if descriptor is not None:
                os.close(descriptor)


def _is_whole(headers: Headers) -> bool:
    """Whether nothing in an answer of 200 says that it is a part all the same."""
    if "content-range" not in headers:
        return True
    found = _RANGE.fullmatch(headers["content-range"].strip())
    if found is None:
        return False
    first, last, total = map(int, found.groups())
    return (first, last) == (0, total - 1) and headers.get("content-length", str(total)).strip() == str(total)


def _odd(what: str) -> ResponseDecodeError:
    error = ResponseDecodeError(what, expected="the file", received="something else")
    error.unreadable = True
    return error
