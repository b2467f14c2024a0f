"""Tables, by the two protocols that they share: the Arrow PyCapsule interface, and the dataframe interchange.

The one module that knows pyarrow, which has no types.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import frozen

from nudgescribe_async.bulk.upload.faults import fault
from nudgescribe_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nudgescribe_async.bulk.upload.intake import Table

__all__ = ["is_table", "parts"]

_STREAM: Final = "__arrow_c_stream__"
_ARRAY: Final = "__arrow_c_array__"
_INTERCHANGE: Final = "__dataframe__"
_ROWS: Final = 2_000
_BYTES: Final = 2**20
# Where pandas puts an index that has no name and is no mere count.
_INDEX: Final = re.compile(r"__index_level_\d+__")


def is_table(source: object) -> bool:
    """Whether it can be read as a table. A class that has the methods is none."""
    return not isinstance(source, type) and any(hasattr(source, name) for name in (_STREAM, _ARRAY, _INTERCHANGE))


def parts(source: object) -> Iterator[Table]:
    """The table in parts.

    Raises:
        ConfigurationError: pyarrow is not installed.
        UploadSourceError: the table cannot be had as Arrow data.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import interchange  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            'Tables are read with pyarrow: install it, pip install "nudgescribe_async[parquet]". Mappings need nothing.'
        ) from None
    return _parts(cast("Any", pa), cast("Any", interchange), source)


def _parts(pa: Any, interchange: Any, source: object) -> Iterator[Table]:
    try:
        if hasattr(source, _STREAM):
            reader = pa.RecordBatchReader.from_stream(source)
        elif hasattr(source, _ARRAY):
            batch = pa.record_batch(source)
            reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
        else:
            reader = interchange.from_dataframe(source).to_reader()
        some = False
        for batch in reader:
            step = max(1, min(_ROWS, _BYTES * batch.num_rows // max(batch.nbytes, 1)))
            for start in range(0, batch.num_rows, step):
                some = True
                yield _Part(pa=pa, batch=batch.slice(start, step))
        if not some:
            yield _Part(pa=pa, batch=pa.RecordBatch.from_pylist([], schema=reader.schema))
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError):
        # What it says may repeat a value.
        raise fault(
            f"The table ({type(source).__name__}) cannot be read as Arrow data.",
            advice="A column may hold values of several types: give each column one type, or pass mappings.",
        ) from None


@frozen(kw_only=True)
class _Part:
    pa: Any
    batch: Any

    @property
    def _kept(self) -> list[int]:
        return [index for index, name in enumerate(self.batch.schema.names) if not _INDEX.fullmatch(name)]

    @property
    def names(self) -> Sequence[str]:
        names: Sequence[str] = self.batch.schema.names
        return [names[index] for index in self._kept]

    def rows(self, picked: Sequence[int]) -> Sequence[Sequence[object]]:
        kept = self._kept
        columns: list[Sequence[object]] = []
        for index in picked:
            try:
                columns.append(_values(self.pa, self.batch.column(kept[index])))
            except (self.pa.ArrowException, ArithmeticError, TypeError, ValueError, NotImplementedError):
                # What it says may repeat a value.
                raise fault(
                    f"Column {index + 1} of the table, of the type {self.batch.column(kept[index]).type}, holds what "
                    "Python has no value for.",
                    advice="Cast the column to text.",
                ) from None
        return list(zip(*columns, strict=True))


def _values(pa: Any, column: Any) -> Sequence[object]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        if len(column.dictionary) > _ROWS:
            return cast("Sequence[object]", column.to_pylist())
        values = _values(pa, column.dictionary)
        return [None if index is None else values[index] for index in column.indices.to_pylist()]
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # pyarrow would load pandas for it.
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        # As Python's floats they would get digits that they never had.
        return [None if text is None else float(text) for text in _texts(pa, column)]
    return cast("Sequence[object]", column.to_pylist())


def _texts(pa: Any, column: Any) -> Sequence[str | None]:
    return cast("Sequence[str | None]", column.cast(pa.float32()).cast(pa.string()).to_pylist())
