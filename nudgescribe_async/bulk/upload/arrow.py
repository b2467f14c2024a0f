"""Tables, by the two protocols that they share: the Arrow PyCapsule interface, and the dataframe interchange.

The one module that knows pyarrow, which has no types.
"""

from __future__ import annotations

import re
from datetime import datetime
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
# Whose values are texts, or written as such. Those of others mean nothing without the library that has made them.
_EXTENSIONS: Final = ("arrow.uuid", "arrow.json")
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
            for part in _cut(batch):
                some = True
                yield _Part(pa=pa, batch=part)
        if not some:
            yield _Part(pa=pa, batch=pa.RecordBatch.from_pylist([], schema=reader.schema))
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError):
        # What it says may repeat a value.
        if hasattr(source, "to_frame") or isinstance(source, pa.Array | pa.ChunkedArray):
            raise fault(
                f"The source ({type(source).__name__}) is one column, and no table.",
                advice="Pass a table that has it as a column named for its profile field, such as series.to_frame(name).",
            ) from None
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
                field = self.batch.schema.field(kept[index])
                columns.append(_values(self.pa, self.batch.column(kept[index]), _extension(self.pa, field)))
            except (self.pa.ArrowException, ArithmeticError, TypeError, ValueError, NotImplementedError):
                # What it says may repeat a value.
                raise fault(
                    f"Column {index + 1} of the table, of the type {self.batch.column(kept[index]).type}, holds what "
                    "Python has no value for.",
                    advice="Cast the column to text.",
                ) from None
        return list(zip(*columns, strict=True))


class _Moment(datetime):
    """One with nanoseconds, which those of Python have not."""

    nanoseconds: int

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:  # noqa: ARG002 - there is just one way
        text = super().isoformat(sep, "microseconds")
        return f"{text[:26]}{self.nanoseconds:03}{text[26:]}"


def _cut(batch: Any) -> Iterator[Any]:
    """The batch in parts of a few thousand rows, or fewer where they are large."""
    for start in range(0, batch.num_rows, _ROWS):
        yield from _halved(batch.slice(start, _ROWS))


def _halved(part: Any) -> Iterator[Any]:
    if part.num_rows > 1 and sum(map(_size, part.columns)) > _BYTES:
        middle = part.num_rows // 2
        yield from _halved(part.slice(0, middle))
        yield from _halved(part.slice(middle))
    else:
        yield part


def _size(column: Any) -> int:
    kind = str(column.type)
    if kind.startswith(("dictionary", "run_end_encoded")):
        return 0  # values that rows share are made once for all of them
    if kind in {"string_view", "binary_view"}:
        # What views are on would be counted as a whole in each part. A view is 16 bytes, and begins with a length.
        lengths = memoryview(column.buffers()[1]).cast("i")[column.offset * 4 : (column.offset + len(column)) * 4 : 4]
        return sum(lengths)
    return cast("int", column.nbytes)


def _extension(pa: Any, field: Any) -> str | None:
    """The name of the extension of Arrow that a column is of, whether pyarrow knows it or not."""
    if isinstance(field.type, pa.BaseExtensionType):
        return cast("str", field.type.extension_name)
    name = cast("dict[bytes, bytes]", field.metadata or {}).get(b"ARROW:extension:name")
    return None if name is None else name.decode()


def _values(pa: Any, column: Any, extension: str | None = None) -> Sequence[object]:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        extension = kind.extension_name
    if extension is not None and extension not in _EXTENSIONS:
        # No field takes it, and the reason names its type.
        value: object = type(extension, (), {})()
        return [value if there else None for there in column.is_valid().to_pylist()]
    if pa.types.is_run_end_encoded(kind):
        return _runs(pa, column)
    if pa.types.is_dictionary(kind):
        return _expanded(pa, column.indices, column.dictionary)
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return _moments(pa, column)
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        # As Python's floats they would get digits that they never had.
        return [None if text is None else float(text) for text in _texts(pa, column)]
    return cast("Sequence[object]", column.to_pylist())


def _expanded(pa: Any, indices: Any, values: Any) -> Sequence[object]:
    """For each index its value: made once, and only if it is there."""
    used = indices.unique().drop_null()
    try:
        taken = _values(pa, values.take(used))
    except pa.ArrowNotImplementedError:  # of views
        taken = [values[index].as_py() for index in used.to_pylist()]
    made = dict(zip(used.to_pylist(), taken, strict=True))
    return [made.get(index) for index in indices.to_pylist()]


def _runs(pa: Any, column: Any) -> Sequence[object]:
    first, count = column.find_physical_offset(), column.find_physical_length()
    ends = column.run_ends.slice(first, count).to_pylist()
    values: list[object] = []
    for value, end in zip(_values(pa, column.values.slice(first, count)), ends, strict=True):
        values.extend([value] * (min(end - column.offset, len(column)) - len(values)))
    return values


def _moments(pa: Any, column: Any) -> Sequence[object]:
    # Not as pyarrow has it: it would load pandas.
    counts: list[int | None] = column.cast(pa.int64()).to_pylist()
    whole = pa.array(
        [None if count is None else count // 1_000 for count in counts], pa.timestamp("us", column.type.tz)
    )
    return [
        moment if not count or not count % 1_000 else _moment(moment, count % 1_000)
        for moment, count in zip(whole.to_pylist(), counts, strict=True)
    ]


def _moment(moment: datetime, nanoseconds: int) -> _Moment:
    exact = _Moment.combine(moment.date(), moment.timetz())
    exact.nanoseconds = nanoseconds
    return exact


def _texts(pa: Any, column: Any) -> Sequence[str | None]:
    return cast("Sequence[str | None]", column.cast(pa.float32()).cast(pa.string()).to_pylist())
