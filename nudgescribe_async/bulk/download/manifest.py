"""What a directory holds, as a value: the journal while the download is under way, the manifest when it is complete.

No URL is in it, nor anything else that is secret, nor anything of a customer. Of the same files, it is always the
same, byte for byte.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

from attrs import asdict, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from nudgescribe_async.bulk.download.report import Via

__all__ = ["Checkpoint", "FinishedPage", "Manifest", "ManifestError"]

_VERSION = 1
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_NAME = re.compile(r"page-[0-9]{5,18}\.csv")
_DIGEST = re.compile(r"(?:md5|sha256|sha512):(?:[0-9a-f]{2})+")


class ManifestError(Exception):
    """A manifest cannot be read. The text says why, as the end of a sentence."""


@frozen(kw_only=True)
class FinishedPage:
    """A file that is in its place, whole and checked."""

    name: str
    bytes: int
    rows: int
    sha256: str
    via: Via


@frozen(kw_only=True)
class Checkpoint:
    """How far a file has come that can be continued.

    Attributes:
        etag: by which the storage knows whether it is the same file still.
        total: how long it will be.
        bytes: how long the part is that is here.
        sha256: of that part. What is here and has another one is not continued.
        digests: the checksums of the whole that came along so far, as ``algorithm:hexadecimal``.
    """

    etag: str
    total: int
    bytes: int
    sha256: str
    digests: tuple[str, ...] = ()


def _no_finished() -> dict[int, FinishedPage]:
    return {}


def _no_unfinished() -> dict[int, Checkpoint]:
    return {}


@frozen(kw_only=True)
class Manifest:
    """What was asked for, and what there is of it.

    Attributes:
        query: a fingerprint of what was asked for, and of the service that was asked.
        campaign_id: the campaign.
        run_number: the run that was asked for; ``None`` for the current one.
        current_run: which one that was; 0 if there was none in the history yet, ``None`` if nobody said.
        pages: how many files there are.
        complete: whether all of them are here, and were of one run at the end too.
        finished: the files that are here, by page.
        unfinished: those that can be continued.
    """

    query: str
    campaign_id: str
    run_number: int | None
    current_run: int | None
    pages: int
    complete: bool = False
    finished: Mapping[int, FinishedPage] = field(factory=_no_finished)
    unfinished: Mapping[int, Checkpoint] = field(factory=_no_unfinished)

    def to_json(self) -> str:
        """The text of the file."""
        parts: dict[str, object] = {
            "version": _VERSION,
            "query": self.query,
            "campaign_id": self.campaign_id,
            "run_number": self.run_number,
            "current_run": self.current_run,
            "pages": self.pages,
            "complete": self.complete,
            "rows": sum(page.rows for page in self.finished.values()),
            "bytes": sum(page.bytes for page in self.finished.values()),
            "files": {str(number): asdict(self.finished[number]) for number in sorted(self.finished)},
            "unfinished": {str(number): asdict(self.unfinished[number]) for number in sorted(self.unfinished)},
        }
        return json.dumps(parts, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The manifest that ``to_json()`` wrote.

        Raises:
            ManifestError: it is none, or one of a version that this package does not know.
        """
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError):
            raise ManifestError("is no JSON") from None
        if not isinstance(parts, dict) or "version" not in parts:
            raise ManifestError("is not of a download")
        found = cast("dict[str, Any]", parts)
        if found["version"] != _VERSION:
            raise ManifestError(f"is of version {found['version']!r}; this package knows version {_VERSION}")
        problem = next(_problems(found), None)
        if problem is not None:
            raise ManifestError(f"is damaged: {problem}")
        return cls(
            query=found["query"],
            campaign_id=found["campaign_id"],
            run_number=found["run_number"],
            current_run=found["current_run"],
            pages=found["pages"],
            complete=found["complete"],
            finished={int(number): FinishedPage(**entry) for number, entry in found["files"].items()},
            unfinished={int(number): _checkpoint(entry) for number, entry in found["unfinished"].items()},
        )


def _checkpoint(entry: dict[str, Any]) -> Checkpoint:
    values: dict[str, Any] = {**entry, "digests": tuple(entry["digests"])}
    return Checkpoint(**values)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_run(value: object) -> bool:
    return value is None or _is_count(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _are_digests(value: object) -> bool:
    texts = cast("list[object]", value) if isinstance(value, list) else [None]
    return all(isinstance(text, str) and _DIGEST.fullmatch(text) for text in texts)


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "query": _is_text,
    "campaign_id": _is_text,
    "run_number": _is_run,
    "current_run": _is_run,
    "pages": _is_count,
    "complete": lambda value: isinstance(value, bool),
}
_FINISHED: Mapping[str, Callable[[object], bool]] = {
    "name": _is_name,
    "bytes": _is_count,
    "rows": _is_count,
    "sha256": _is_text,
    "via": lambda value: value in ("url", "csv"),
}
_UNFINISHED: Mapping[str, Callable[[object], bool]] = {
    "etag": _is_text,
    "total": _is_count,
    "bytes": _is_count,
    "sha256": _is_text,
    "digests": _are_digests,
}


def _problems(parts: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name} is wrong or missing" for name, fits in _FIELDS.items() if not fits(parts.get(name, ...)))
    for name, fields in (("files", _FINISHED), ("unfinished", _UNFINISHED)):
        entries: object = parts.get(name)
        if not isinstance(entries, dict):
            yield f"{name} is missing"
            continue
        for number, entry in cast("dict[str, object]", entries).items():
            if (
                not _NUMBER.fullmatch(number)
                or not isinstance(entry, dict)
                or not _fit(cast("dict[str, object]", entry), fields)
            ):
                yield f"{name} has a wrong entry"


def _fit(entry: dict[str, object], fields: Mapping[str, Callable[[object], bool]]) -> bool:
    return entry.keys() == fields.keys() and all(fits(entry[name]) for name, fits in fields.items())
