"""Customers as typed columns, and files of Parquet made of them. pyarrow has no types.

A Parquet file cannot be appended to. So pages are collected as batches of an Arrow stream, which can: it may end
behind any batch. When a file is complete, its stream is packed to Parquet, some thousand rows at a time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from nudgescribe_async.bulk.export.columns import Columns, compact
from nudgescribe_async.bulk.export.values import day, double, money, plain_text
from nudgescribe_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from nudgescribe_async.endpoints.models import Customer

__all__ = ["Arrow", "arrow_types", "need_pyarrow", "pack"]

GROUP = 20_000
"""Rows from which on a row group ends; it ends with a page. All that is packed at once is in memory."""


def need_pyarrow() -> None:
    """Load pyarrow, which takes a while.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        _pyarrow()
        _parquet()
    except ImportError:
        raise ConfigurationError(
            'Parquet needs the package pyarrow: pip install "nudgescribe_async[parquet]".'
        ) from None


def _pyarrow() -> Any:
    return import_module("pyarrow")


def _parquet() -> Any:
    return import_module("pyarrow.parquet")


def arrow_types() -> dict[str, Any]:
    """The Arrow type of each kind of column."""
    pa = _pyarrow()
    return {
        "text": pa.string(),
        "json": pa.string(),
        "number": pa.float64(),
        "currency": pa.decimal128(38, 4),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }


def _as_it_is(value: object, _: object) -> object:
    return value


class Arrow:
    """An Arrow stream, a batch for each page."""

    _FITS: Mapping[str, Callable[[object, str | None], object]] = {
        "text": lambda value, _: plain_text(value),
        "json": lambda value, _: compact(value),
        "number": lambda value, _: double(value),
        "currency": lambda value, _: money(value),
        "date": day,
        "timestamp": _as_it_is,
    }

    def __init__(self, columns: Columns) -> None:
        types = arrow_types()
        self._columns = columns
        self._schema = _pyarrow().schema([(column.name, types[column.kind]) for column in columns.all])

    def head(self) -> bytes:
        """The types of the columns."""
        return cast("bytes", self._schema.serialize().to_pybytes())

    def encode(self, customers: Sequence[Customer]) -> bytes:
        """A batch."""
        pa = _pyarrow()
        table = self._columns.table(customers, self._FITS)
        arrays = [pa.array(cells, each.type) for cells, each in zip(table, self._schema, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        return cast("bytes", batch.serialize().to_pybytes())


def pack(stream: Path, file: Path, *, pause: Callable[[], None]) -> None:
    """Make a Parquet file of a stream; the same stream gives the same file.

    Args:
        stream: what ``Arrow`` made.
        file: is replaced if it is there.
        pause: called between row groups; may raise to end it, and half a file is left.
    """
    pa, parquet = _pyarrow(), _parquet()
    # Not mapped into memory: a file that somebody cuts would end the process.
    with pa.OSFile(os.fsencode(stream), "rb") as source:
        reader = pa.ipc.open_stream(source)
        with file.open("wb") as sink:
            writer = parquet.ParquetWriter(sink, reader.schema, compression="zstd")
            try:
                waiting: list[Any] = []
                rows = 0
                for batch in reader:
                    pause()
                    waiting.append(batch)
                    rows += batch.num_rows
                    if rows >= GROUP:
                        writer.write_table(pa.Table.from_batches(waiting), row_group_size=rows)
                        waiting, rows = [], 0
                if waiting:
                    writer.write_table(pa.Table.from_batches(waiting), row_group_size=max(rows, 1))
            except BaseException:
                with suppress(Exception):
                    writer.close()
                raise
            writer.close()
