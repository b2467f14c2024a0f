"""What was asked for, checked: the format, the destination, and what must be the same when the call comes again."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from attrs import field, frozen

from nudgescribe_async.bulk.files import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Format", "Plan", "is_url", "plan_of", "shown"]

Format: TypeAlias = Literal["ndjson", "csv", "parquet"]

LAYOUT = 1
"""Raised whenever the same customers would be written differently."""

_FORMATS: Mapping[str, Format] = {"ndjson": "ndjson", "jsonl": "ndjson", "csv": "csv", "parquet": "parquet"}
_KNOWN = "ndjson, ndjson.gz, csv, csv.gz or parquet"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")
_USER = re.compile(r"(?<=://)[^/?#]*@")
_CHAINED = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_UNCLEAR = re.compile(r"(?<=://)(?:[^/?#]*:[^/?#]*/|[^/?#]*[?#]).*@", re.DOTALL)
"""Perhaps a password with one of ``/?#`` in it, perhaps an ``@`` elsewhere."""


@frozen(kw_only=True)
class Plan:
    """What an export is to make.

    Attributes:
        destination: the path, absolute; or the URL, which may hold a password.
        url: whether it is a URL.
        format: how rows are written.
        compressed: whether the files are compressed with gzip.
        rows_per_part: when a part ends; ``None`` for a single file.
        asked: everything that must be the same for a later call to go on with what this one leaves.
    """

    destination: str = field(repr=lambda text: repr(shown(text)))
    url: bool
    format: Format
    compressed: bool
    rows_per_part: int | None
    asked: Mapping[str, Any]

    @property
    def shown(self) -> str:
        """The destination for people, logs and manifests."""
        return shown(self.destination) if self.url else self.destination

    @property
    def full_format(self) -> str:
        """The format as ``format=`` takes it."""
        return f"{self.format}.gz" if self.compressed else self.format

    @property
    def fingerprint(self) -> str:
        """By which a later call knows what it may go on with."""
        return sha256(canonical(self.asked)).hexdigest()

    def part_name(self, number: int) -> str:
        """The name of a part, counted from 1; of a single file, its own."""
        if self.rows_per_part is None:
            return re.split(r"[/\\]" if self.url else re.escape(os.sep), self.destination.split("?")[0])[-1]
        return f"part-{number:05d}.{self.full_format}"


def is_url(destination: str) -> bool:
    """Whether it is the URL of something that fsspec knows, and no path."""
    return _SCHEME.match(destination) is not None


def shown(url: str) -> str:
    """A URL without user, password, query and fragment."""
    clear = "::".join(_UNCLEAR.sub("", one) for one in _CHAINED.split(url))
    return re.split(r"[?#]", _USER.sub("", clear))[0]


def plan_of(
    destination: object,
    format: object,  # noqa: A002 - the name that the caller knows
    *,
    rows_per_part: object,
    asked: Mapping[str, Any],
) -> Plan:
    """Check what was asked for; touches no file.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument has a value that cannot be right.
    """
    if not isinstance(destination, str | os.PathLike):
        raise TypeError(f"destination must be a path or a URL, not {type(destination).__name__}.")
    where = os.fspath(cast("str | os.PathLike[str]", destination))
    if not isinstance(cast("object", where), str):
        raise TypeError("destination must be a path of text, not of bytes.")
    if not where.strip():
        raise ValueError("destination must not be empty.")
    url = is_url(where)
    if url:
        _check_url(where)
    where = where.rstrip("/") if url else os.path.abspath(where)  # noqa: PTH100 - Path.resolve would follow the link
    if rows_per_part is not None:
        if isinstance(rows_per_part, bool) or not isinstance(rows_per_part, int):
            raise TypeError(f"rows_per_part must be a whole number, not {type(rows_per_part).__name__}.")
        if rows_per_part < 1:
            raise ValueError(f"rows_per_part must be at least 1, not {rows_per_part}.")
    kind, compressed = _format(where.split("?")[0] if url else where, format, folder=rows_per_part is not None)
    return Plan(
        destination=where,
        url=url,
        format=kind,
        compressed=compressed,
        rows_per_part=rows_per_part,
        asked={
            **asked,
            "format": f"{kind}.gz" if compressed else kind,
            "rows_per_part": rows_per_part,
            "layout": LAYOUT,
            **({"destination": shown(where)} if url else {}),
        },
    )


def _check_url(url: str) -> None:
    """Refuse a URL of nothing, and one of which nobody can say where its password ends. The errors do not show it."""
    if not re.split(r"[?#]", url)[0].rpartition("://")[2].strip("/"):
        raise ValueError("destination is the URL of a storage. Put the name of what is to be made there behind it.")
    if any(_UNCLEAR.search(one) for one in _CHAINED.split(url)):
        raise ValueError(
            "destination is a URL in which the end of the password is not clear. Write '/', '?', '#' and '@' in it "
            "as %2F, %3F, %23 and %40; or give user, password and port in storage_options."
        )


def _format(where: str, given: object, *, folder: bool) -> tuple[Format, bool]:
    """How to write, by what was given, else by the suffix of the path."""
    if given is not None and not isinstance(given, str):
        raise TypeError(f"format must be a text, {_KNOWN}; not {type(given).__name__}.")
    file_name = "" if folder else where.rpartition("/")[2].lower()
    name = given.removeprefix(".") if given is not None else file_name
    if given is None and folder:
        raise ValueError(f"With rows_per_part the destination is a folder, so give the format: {_KNOWN}.")
    plain = name.removesuffix(".gz")
    kind = _FORMATS.get(plain.rpartition(".")[2] if given is None else plain)
    if kind is None:
        what = (
            f"format must be {_KNOWN}; not {given!r}."
            if given is not None
            else (f"The name of the destination does not say the format ({_KNOWN}): give it as format=.")
        )
        raise ValueError(what)
    compressed = name.endswith(".gz")
    if kind == "parquet" and (compressed or file_name.endswith(".gz")):
        raise ValueError("Parquet is compressed by itself: leave .gz out.")
    suffix = _FORMATS.get(file_name.removesuffix(".gz").rpartition(".")[2]) if "." in file_name else None
    zipped = file_name.endswith(".gz")
    if (suffix is not None and (suffix, zipped) != (kind, compressed)) or (zipped and not compressed):
        said = f"{suffix or kind}{'.gz' if zipped else ''}"
        raise ValueError(
            f"The name of the destination says {said}, and format says {name}. Leave format out, or change one of them."
        )
    return kind, compressed
