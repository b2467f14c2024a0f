"""Where HTTP/1.1 messages begin and end, and what of their heads decides that."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = [
    "BUFFER",
    "CONTINUE",
    "Alter",
    "Body",
    "Chunks",
    "Endless",
    "Sized",
    "body_of_answer",
    "body_of_request",
    "end_of_head",
    "request_line",
    "status_of",
    "waits_to_be_asked",
]

BUFFER: Final = 64 * 1024
"""How much is kept of each direction; also the longest head and the longest line between chunks."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

Alter: TypeAlias = Callable[[bytearray, int, int], None]
"""Changes a stretch of a body in place."""

_HEAD = re.compile(rb"[\r\n]*+.*?\r?\n\r?\n", re.DOTALL)
_REQUEST = re.compile(rb"([!-~]+) ([!-~]+) HTTP/1\.[01]\r?\n")
_ANSWER = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r\n]")
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding[ \t]*:[^\r\n]*chunked[ \t]*\r?\n", re.IGNORECASE)
_EXPECT = re.compile(rb"\nexpect[ \t]*:[ \t]*100-continue", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?\r?")


# --- heads -----------------------------------------------------------------------------------------------------------


def end_of_head(buffer: bytearray) -> int:
    """Where the first head ends, with the empty line; 0 if it is not complete."""
    head = _HEAD.match(buffer)
    return head.end() if head else 0


def request_line(head: bytes) -> tuple[str, str] | None:
    """Method and target; ``None`` if it is no request."""
    line = _REQUEST.match(head.lstrip(b"\r\n"))
    return (line[1].decode(), line[2].decode()) if line else None


def status_of(head: bytes) -> int | None:
    """The status; ``None`` if it is no answer."""
    line = _ANSWER.match(head)
    return int(line[1]) if line else None


def waits_to_be_asked(head: bytes) -> bool:
    """Whether the client sends the body only after ``CONTINUE``."""
    return _EXPECT.search(head) is not None


# --- bodies ----------------------------------------------------------------------------------------------------------


class Sized:
    """A body of known length, perhaps 0."""

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def done(self) -> bool:
        return not self.left

    def take(self, buffer: bytearray, alter: Alter | None) -> bytes:
        """Remove from the buffer what belongs to the body."""
        count = min(self.left, len(buffer))
        self.left -= count
        return _cut(buffer, count, alter)


class Endless:
    """A body that ends with the connection."""

    done = False

    def take(self, buffer: bytearray, alter: Alter | None) -> bytes:
        """Remove from the buffer what belongs to the body: everything."""
        return _cut(buffer, len(buffer), alter)


class Chunks:
    """A chunked body, with its trailer. If it is none, it is passed on until the connection ends."""

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # of this chunk, with the line break behind it
        self._in_trailer = False
        self._damaged = False

    def take(self, buffer: bytearray, alter: Alter | None) -> bytes:
        """Remove from the buffer what belongs to the body, with the lines between the chunks."""
        position = 0
        while position < len(buffer) and not self.done:
            if self._damaged:
                position = len(buffer)
            elif self._left:
                count = min(self._left, len(buffer) - position)
                if alter is not None:
                    alter(buffer, position, position + min(count, max(self._left - 2, 0)))
                self._left -= count
                position += count
            elif (end := buffer.find(b"\n", position)) >= 0:
                self._read_line(bytes(buffer[position:end]))
                position = end + 1
            elif len(buffer) - position > BUFFER:
                self._damaged = True
            else:
                break
        return _cut(buffer, position, None)

    def _read_line(self, line: bytes) -> None:
        if self._in_trailer:
            self.done = not line.strip()
            return
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            self._damaged = True
        elif count := int(size[1], 16):
            self._left = count + 2
        else:
            self._in_trailer = True


Body: TypeAlias = Sized | Endless | Chunks


def body_of_request(head: bytes) -> Body:
    """The body that a request has, perhaps an empty one."""
    return _announced(head) or Sized(0)


def body_of_answer(head: bytes, status: int, method: str) -> Body:
    """The body of the answer to a request with that method."""
    if method == "HEAD" or status in {204, 304}:
        return Sized(0)
    return _announced(head) or Endless()


def _announced(head: bytes) -> Body | None:
    if _CHUNKED.search(head):
        return Chunks()
    length = _LENGTH.search(head)
    return Sized(int(length[1])) if length else None


def _cut(buffer: bytearray, count: int, alter: Alter | None) -> bytes:
    if alter is not None:
        alter(buffer, 0, count)
    if count == len(buffer):
        taken = bytes(buffer)
        buffer.clear()
        return taken
    with memoryview(buffer) as view:
        taken = bytes(view[:count])
    del buffer[:count]
    return taken
