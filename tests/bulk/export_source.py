"""Customers without a service, through the real page engine, for tests of exports."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nudgescribe_async.bulk.export.job import Source, export
from nudgescribe_async.endpoints.models import Customer, ProfileField
from nudgescribe_async.paging import PageIterator, PageSource
from nudgescribe_async.profiles import attach

if TYPE_CHECKING:
    from nudgescribe_async.bulk.export import ExportReport
    from nudgescribe_async.consistency import Consistency
    from nudgescribe_async.shapes import JSON

FIELDS = (
    ("external_id", "string", None),
    ("customer_id", "string", None),
    ("points", "number", None),
    ("grade", "char", None),
    ("born", "Date", "dd.MM.yyyy"),
    ("spent", "currency", "EUR"),
)


class Plain:
    """A decryptor for profiles that are in the clear already."""

    def decrypt(self, customer_id: str, extended_profile: Mapping[str, JSON]) -> Mapping[str, JSON]:  # noqa: ARG002
        return extended_profile


def customer(number: int, **changes: Any) -> Customer:
    values: dict[str, Any] = {
        "customer_id": f"c{number}",
        "customer_group_id": "g",
        "account_id": "a",
        "workspace_id": "w",
        "extended_profile": {
            "external_id": f'{number:05d}, "x"\r\ny' if number % 3 else "ü🎈",
            "customer_id": "other",
            "points": number * 7,
            "grade": "A",
            "born": f"{number % 28 + 1:02d}.02.2001",
            "spent": f"{number}.50",
            "undeclared": [number],
        },
        "created_at": datetime(2025, 1, 2, 3, 4, 5, number % 1_000_000, UTC),
        "updated_at": None,
        "created_by": "" if number % 2 else "someone",
        "extra": {"tier": number} if number % 5 == 0 else {},
    }
    return Customer(**(values | changes))


def customers(count: int) -> list[Customer]:
    return [customer(number) for number in range(count)]


def fields() -> list[ProfileField]:
    return [
        ProfileField(profile_field_id=name, field_name=name, field_type=kind, field_format=pattern)
        for name, kind, pattern in FIELDS
    ]


class Group:
    """A group of customers in pages; what is asked for is counted."""

    def __init__(
        self,
        people: Sequence[Customer],
        *,
        size: int = 4,
        decrypted: bool = True,
        consistency: Consistency = "warn",
    ) -> None:
        self.people = list(people)
        self.size = size
        self.decrypted = decrypted
        self.consistency: Consistency = consistency
        self.asked: list[int] = []
        self.fields_asked: list[str] = []
        self.on_page: Callable[[int], None] = lambda _: None
        self.asks: dict[str, str | None] = {"customer_group_id": "g"}

    async def _fetch(self, page: int) -> list[Customer]:
        self.asked.append(page)
        self.on_page(page)
        found = self.people[(page - 1) * self.size : page * self.size]
        attach(Plain(), found)
        return found

    async def _count(self) -> int:
        return -(-len(self.people) // self.size)

    async def _fields(self, workspace_id: str) -> list[ProfileField]:
        self.fields_asked.append(workspace_id)
        return fields()

    def iterate(self, resume_from: str | None) -> PageIterator[Customer]:
        return PageIterator(
            PageSource(
                operation="customers.list",
                fetch=self._fetch,
                decode=lambda found: found,
                count=self._count,
                query="q",
                identify=lambda item: item.customer_id,
                even=True,
            ),
            concurrency=2,
            consistency=self.consistency,
            resume_from=resume_from,
        )

    @property
    def source(self) -> Source:
        return Source(
            iterate=self.iterate,
            fields=self._fields,
            decrypted=self.decrypted,
            consistency=self.consistency,
            asked=self.asks,
        )

    async def export(self, destination: str | Path, format: str | None = None, **options: Any) -> ExportReport:  # noqa: A002
        defaults: dict[str, Any] = {
            "rows_per_part": None,
            "workspace_id": None,
            "overwrite": False,
            "restart": False,
            "storage_options": None,
            "spool": None,
            "checkpoint_every": 0,
            "on_progress": None,
        }
        return await export(self.source, destination, format, **(defaults | options))


def read_ndjson(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def read_csv(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


def ids(file: Path) -> list[str]:
    """The ids in a file of any format, or of the parts in a folder."""
    if file.is_dir():
        return [known for part in sorted(file.glob("part-*")) for known in ids(part)]
    if file.suffix == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_table(file).column("customer_id").to_pylist())
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    rows: Sequence[Mapping[str, Any]] = read_ndjson(data) if ".ndjson" in file.name else read_csv(data)
    return [row["customer_id"] for row in rows]


def content(path: Path) -> dict[str, bytes]:
    """Every file below a path, but for manifests."""
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {file.name: file.read_bytes() for file in files if not file.name.endswith("manifest.json")}


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
