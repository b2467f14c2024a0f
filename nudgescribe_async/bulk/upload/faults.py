"""How a source is refused: where, what, and what to do; never with a value of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nudgescribe_async.errors import UploadSourceError

if TYPE_CHECKING:
    from nudgescribe_async.bulk.upload.report import UploadReport

__all__ = ["fault"]

_OPERATION = "customers.upload"


def fault(
    what: str,
    *,
    row: int | None = None,
    line: int | None = None,
    field: str | None = None,
    advice: str = "",
    report: UploadReport | None = None,
) -> UploadSourceError:
    """The error for a source that is not fit to be sent. ``what`` is a whole sentence, and may name the field itself."""
    places = [f"row {row:,}"] if row is not None else []
    places += [f"line {line:,} of the file"] if line is not None else []
    places += [f"field {field!r}"] if field is not None and repr(field) not in what else []
    where = ", ".join(places)
    error = UploadSourceError(f"{where[:1].upper()}{where[1:]}: {what}" if where else what, operation=_OPERATION)
    error.row, error.line, error.field, error.report = row, line, field, report
    error.advice = f"{advice.rstrip()} Nothing was sent.".lstrip()
    return error
