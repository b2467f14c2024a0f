"""The types of columns in Spark and in Arrow, and the batches that a read makes of them. pyarrow has no types."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from pyspark.sql.types import (
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from nudgescribe_async.bulk.export.arrow import arrow_types
from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.spark.columns import chosen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nudgescribe_async.spark.columns import Field, Kind

__all__ = ["Batches", "fitting", "spark_schema"]

_TYPES: Mapping[Kind, DataType] = {
    "text": StringType(),
    "json": StringType(),
    "whole": LongType(),
    "flag": BooleanType(),
    "number": DoubleType(),
    "currency": DecimalType(38, 4),
    "date": DateType(),
    "timestamp": TimestampType(),
}


def spark_schema(fields: Sequence[Field]) -> StructType:
    """The columns, as Spark knows them."""
    return StructType([StructField(field.name, _TYPES[field.kind], not field.needed) for field in fields])


def fitting(schema: StructType, fields: Sequence[Field]) -> tuple[Field, ...]:
    """The columns that a schema asks for.

    Args:
        schema: of ours, or one that somebody gave to ``spark.read.schema(...)``: any of the columns, in any order.
        fields: the columns that there are.

    Raises:
        ConfigurationError: there is no such column, it is of another type, or it may be null.
    """
    wanted = chosen(fields, schema.fieldNames())
    for asked, field in zip(schema.fields, wanted, strict=True):
        if asked.dataType != _TYPES[field.kind]:
            raise ConfigurationError(
                f"The column {field.name!r} is {_TYPES[field.kind].simpleString()}, and the schema that was given has "
                f"{asked.dataType.simpleString()}. Leave the type as it is, and cast afterwards."
            )
        if not asked.nullable and not field.needed:
            raise ConfigurationError(
                f"The column {field.name!r} may be null, and the schema that was given says that it is not."
            )
    return wanted


class Batches:
    """Makes record batches that Spark takes as they are.

    Args:
        fields: the columns.
        schema: the same, as Spark asked for them, which knows which may be null.
    """

    def __init__(self, fields: Sequence[Field], schema: StructType) -> None:
        pa = cast("Any", import_module("pyarrow"))
        types = arrow_types() | {"whole": pa.int64(), "flag": pa.bool_()}
        self._arrow = pa
        self._schema = pa.schema(
            [
                pa.field(field.name, types[field.kind], nullable=asked.nullable)
                for field, asked in zip(fields, schema.fields, strict=True)
            ]
        )

    def batch(self, columns: Sequence[Sequence[object]]) -> Any:
        """A ``pyarrow.RecordBatch`` of columns of cells."""
        arrays = [self._arrow.array(cells, field.type) for cells, field in zip(columns, self._schema, strict=True)]
        return self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema)
