"""From the bytes of a file to its lines, a block at a time."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, Final

from nudgescribe_async.bulk.upload.faults import fault

if TYPE_CHECKING:
    from nudgescribe_async.errors import UploadSourceError

__all__ = ["Lines"]

_WIDE: Final = (
    # UTF-32 first: one of its marks begins with one of UTF-16.
    ("utf-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    ("utf-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
_UTF_8: Final = "utf-8"
_READ: Final = "Read it with pandas, polars or pyarrow, and pass the table."
_UNPACK: Final = "Unpack it first, and pass what is in it."
_WORKBOOK: Final = "A workbook: save it as CSV in UTF-8, or read it with pandas or polars, and pass the table."
_OTHERS: Final = (
    (b"PAR1\x15", "a Parquet file", _READ),
    (b"ARROW1\0\0", "a file of Arrow", _READ),
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx)", f"{_UNPACK} {_WORKBOOK}"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", _WORKBOOK),
    (b"\x1f\x8b", "packed with gzip", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", _UNPACK),
    (b"\xfd7zXZ", "packed with xz", _UNPACK),
)
"""What files that are no text begin with."""
_LONGEST_START: Final = max(len(start) for start, _, _ in _OTHERS)


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
            if len(self._head) < _LONGEST_START:
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
        for start, what, advice in _OTHERS:
            if block.startswith(start):
                raise fault(f"The file is {what}, by its first bytes, and no CSV.", advice=advice)
        marked = next((name for name, marks in _WIDE if block.startswith(marks)), None)
        if marked is not None and not self._encoding.startswith(marked):
            raise fault(
                f"The file is encoded in {marked.upper()}, by the mark that it begins with.",
                advice=f"Save it as UTF-8, or pass encoding={marked!r}.",
            )
        if block.startswith(codecs.BOM_UTF8) and self._encoding != _UTF_8:
            raise fault(
                f"The file begins with the mark of UTF-8, and encoding={self._encoding!r} was passed.",
                advice="Leave encoding out.",
            )

    def _decode(self, block: bytes, *, final: bool) -> str:
        state = self._decoder.getstate()
        try:
            text = self._decoder.decode(block, final)
        except UnicodeError as error:  # not always a UnicodeDecodeError: where a mark is lacking, it has no place
            # The lines before are whole; the decoder complains about what it held back and this block as one.
            good = max(getattr(error, "start", 0) - len(state[0]), 0)
            self.fault = self._undecodable()
            self._decoder.setstate(state)  # with some encodings the complaint has changed it
            text = self._decoder.decode(block[:good])
        if not self._begun and text:
            self._begun = True
            text = text.removeprefix("\ufeff")
        nul = text.find("\0")
        if nul >= 0:
            text = text[:nul]
            self.fault = fault(
                "The file holds a NUL character, which no text has.",
                advice="It is another kind of file, damaged, or encoded in UTF-16 without a mark: pass "
                "encoding='utf-16-le' in that case.",
            )
        return text

    def _undecodable(self) -> UploadSourceError:
        if self._encoding == _UTF_8:
            return fault(
                "The file is not encoded in UTF-8.",
                advice="Save it as UTF-8, or name its encoding: encoding='cp1252' is what Windows writes in Western "
                "Europe and America, encoding='latin-1' is much like it.",
            )
        if self._encoding in {"utf-16", "utf-32"} and not self._begun:
            return fault(
                f"The file does not begin with the mark of {self._encoding.upper()}.",
                advice=f"Without a mark, pass encoding='{self._encoding}-le' (or '-be'); leave encoding out for UTF-8.",
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
