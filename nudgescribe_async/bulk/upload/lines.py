"""From the bytes of a file to its lines, a block at a time."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, Final

from nudgescribe_async.bulk.upload.faults import fault

if TYPE_CHECKING:
    from nudgescribe_async.errors import UploadSourceError

__all__ = ["Lines", "check_encoding"]

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF_8: Final = "utf-8"


def check_encoding(encoding: str) -> str:
    """The usual name of an encoding.

    Raises:
        TypeError: it is no text.
        ValueError: Python knows no such encoding of text.
    """
    if not isinstance(encoding, str):
        raise TypeError(f"encoding must be a text such as 'latin-1', not {type(encoding).__name__}.")
    try:
        "a".encode(encoding)  # refuses those that are none of text, such as hex
        codecs.getincrementaldecoder(encoding)
        return codecs.lookup(encoding).name.removesuffix("-sig")  # the mark is taken off in any case
    except (LookupError, ValueError):
        raise ValueError(f"encoding: Python knows no encoding of text called {encoding!r}.") from None


class Lines:
    """Decodes blocks of bytes, and cuts them into lines that keep their ends.

    Lines end with LF, CRLF or CR. What cannot be decoded is a fault once the lines before it were given out, so that
    its place is known.
    """

    def __init__(self, encoding: str, longest: int) -> None:
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._longest = longest
        self._rest: list[str] = []  # the pieces of a line that has not ended yet
        self._rest_length = 0
        self._head: bytes | None = b""
        self._begun = False
        self.cut: str | None = None
        """Where a line was longer than any should be, its beginning."""
        self.fault: UploadSourceError | None = None
        """What ended the reading, once the lines that ``feed`` gave last are through. It has no place yet."""

    def feed(self, block: bytes) -> list[str]:
        """The lines that end in this block."""
        if self._head is not None:
            self._head += block
            if len(self._head) < 3:
                return []
            block, self._head = self._head, None
            self._look_at_start(block)
        return self._cut(self._decode(block, final=False), final=False)

    def end(self) -> list[str]:
        """The last line, if it has no end."""
        block, self._head = self._head or b"", None
        self._look_at_start(block)
        return self._cut(self._decode(block, final=True), final=True)

    def _look_at_start(self, block: bytes) -> None:
        utf_16 = block.startswith(_UTF_16) and not self._encoding.startswith(("utf-16", "utf-32"))
        if utf_16:
            raise fault(
                "The file is encoded in UTF-16, by the mark that it begins with.",
                advice="Save it as UTF-8, or pass encoding='utf-16'.",
            )
        if block.startswith(codecs.BOM_UTF8) and self._encoding != _UTF_8:
            raise fault(
                f"The file begins with the mark of UTF-8, and encoding={self._encoding!r} was passed.",
                advice="Leave encoding out.",
            )

    def _decode(self, block: bytes, *, final: bool) -> str:
        held = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            # The lines before are whole; the decoder complains about what it held back and this block as one.
            good = max(error.start - held, 0)
            self.fault = self._undecodable()
            text = self._decoder.decode(block[:good]) if good else ""
        if not self._begun and text:
            self._begun = True
            text = text.removeprefix("\ufeff")
        nul = text.find("\0")
        if nul >= 0:
            text = text[:nul]
            self.fault = fault(
                "The file holds a NUL character, which no text has.",
                advice="It is another kind of file, damaged, or encoded in UTF-16: pass encoding='utf-16' in that case.",
            )
        return text

    def _undecodable(self) -> UploadSourceError:
        if self._encoding == _UTF_8:
            return fault(
                "The file is not encoded in UTF-8.",
                advice="Save it as UTF-8, or name its encoding: encoding='cp1252' is what Windows writes in Western "
                "Europe and America, encoding='latin-1' is much like it.",
            )
        return fault(
            f"The file is not encoded in {self._encoding}.",
            advice="Leave encoding out if it is UTF-8, or name another.",
        )

    def _cut(self, text: str, *, final: bool) -> list[str]:
        if self._rest:
            if "\n" not in text and "\r" not in text and not final and self.fault is None:
                self._keep(text)
                self._look_at_length()
                return []
            text = "".join([*self._rest, text])
            self._rest, self._rest_length = [], 0
        lines = io.StringIO(text, newline="").readlines()  # which knows these three ends; splitlines() has more
        if lines and not final and not lines[-1].endswith("\n"):
            # The CR at its end may be half of a CRLF. Behind a fault it is not whole, and not given out.
            self._keep(lines.pop())
        return lines

    def _keep(self, piece: str) -> None:
        self._rest.append(piece)
        self._rest_length += len(piece)

    def _look_at_length(self) -> None:
        if self.fault is not None or self._rest_length <= self._longest:
            return
        self.cut = "".join(self._rest)
        self.fault = fault(
            f"The row has more than {self._longest:,} characters.",
            advice="A line break or a quote may be missing; if that is meant, pass a larger max_cell_bytes.",
        )
