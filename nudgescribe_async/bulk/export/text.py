"""Customers as lines of text: NDJSON and CSV. Each page is written for itself, so that any page can be the last.

NDJSON has an object a line, in the service's own key names, keys that the contract does not know included; a profile in
the clear stands where the encrypted one stood. CSV follows RFC 4180: CRLF, UTF-8 without a byte order mark, a quote where
one is needed. No value is an empty cell, an empty text is ``""``.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Protocol

from nudgescribe_async.bulk.export.columns import PROFILE, Columns, compact
from nudgescribe_async.bulk.export.values import decimal_text, plain_text
from nudgescribe_async.endpoint import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from nudgescribe_async.endpoints.models import Customer

__all__ = ["Csv", "Encoder", "Gzip", "Ndjson"]

_QUOTED = re.compile(r'[",\r\n]|\A\s|\s\Z|\A\Z')


class Encoder(Protocol):
    """Makes bytes of customers. What it makes of one page does not depend on the pages before it."""

    def head(self) -> bytes:
        """What a file begins with."""
        ...

    def encode(self, customers: Sequence[Customer]) -> bytes:
        """The rows of a page."""
        ...


def _moment(value: object) -> str:
    moment: datetime = value  # type: ignore[assignment]  # columns has its type
    return timestamp(moment)


class Ndjson:
    """An object a line."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def encode(self, customers: Sequence[Customer]) -> bytes:
        """A line for each."""
        return "".join(map(self._line, customers)).encode()

    def _line(self, customer: Customer) -> str:
        created, updated = customer.created_at, customer.updated_at
        fields: dict[str, object] = {
            "customer_id": customer.customer_id,
            "account_id": customer.account_id,
            "workspace_id": customer.workspace_id,
            "customer_group_id": customer.customer_group_id,
            PROFILE: self._columns.profile(customer),
            "created_at": None if created is None else timestamp(created),
            "updated_at": None if updated is None else timestamp(updated),
            "created_by": customer.created_by,
            "updated_by": customer.updated_by,
        }
        # A timestamp that was none is in `extra` under its own name, and so comes back to its place.
        fields |= customer.extra
        return compact(fields) + "\n"


def _text(value: object, _: object) -> object:
    return plain_text(value)


def _json(value: object, _: object) -> object:
    return compact(value)


def _number(value: object, _: object) -> object:
    return decimal_text(value)


def _timestamp(value: object, _: object) -> object:
    return _moment(value)


class Csv:
    """A line for each customer, and one with the names of the columns at the top."""

    # An amount or a day is the text that the service has, so that it can go up again as it came down.
    _FITS: Mapping[str, Callable[[object, str | None], object]] = {
        "text": _text,
        "json": _json,
        "number": _number,
        "currency": _number,
        "date": _text,
        "timestamp": _timestamp,
    }

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def head(self) -> bytes:
        """The names of the columns."""
        return self._line(self._columns.names).encode()

    def encode(self, customers: Sequence[Customer]) -> bytes:
        """A line for each."""
        table = self._columns.table(customers, self._FITS)
        return "".join(map(self._line, zip(*table, strict=True))).encode()

    @staticmethod
    def _line(cells: Sequence[str | None]) -> str:
        return (
            ",".join(
                "" if cell is None else '"' + cell.replace('"', '""') + '"' if _QUOTED.search(cell) else cell
                for cell in cells
            )
            + "\r\n"
        )


class Gzip:
    """What another encoder makes, each page compressed for itself, as RFC 1952 allows: a file can end behind any of them."""

    def __init__(self, inner: Encoder) -> None:
        self._inner = inner

    def head(self) -> bytes:
        """What the other begins with."""
        return _compressed(self._inner.head())

    def encode(self, customers: Sequence[Customer]) -> bytes:
        """The rows of a page."""
        return _compressed(self._inner.encode(customers))


def _compressed(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()
