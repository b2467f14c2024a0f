"""What an export says of itself: while it runs, and when it is done."""

from __future__ import annotations

from attrs import field, frozen

from nudgescribe_async.consistency import PageReport  # noqa: TC001 - a field of a value that is pickled

__all__ = ["ExportPart", "ExportProgress", "ExportReport"]


@frozen(kw_only=True)
class ExportPart:
    """One complete file of an export.

    Attributes:
        name: the name of the file, without its folder.
        rows: how many customers are in it.
        bytes: its size.
        sha256: the checksum of its bytes, in hexadecimal.
    """

    name: str
    rows: int
    bytes: int
    sha256: str


@frozen(kw_only=True)
class ExportProgress:
    """How far an export is, after each page that was written.

    Attributes:
        pages: pages that are written, by earlier calls too.
        total: pages there were at the start; ``None`` if that is not known.
        rows: customers that are written, by earlier calls too.
        bytes: how much is written of the files, by earlier calls too. Of Parquet, before it is packed.
        seconds: since this call began.
        rate: customers a second, of this call.
    """

    pages: int
    total: int | None
    rows: int
    bytes: int
    seconds: float
    rate: float


@frozen(kw_only=True)
class ExportReport:
    """What an export has made. Its manifest says the same, for those who come later.

    Attributes:
        destination: where it is; of a URL, without user, password and query.
        format: ``"ndjson"``, ``"csv"`` or ``"parquet"``; with ``".gz"`` behind it if it is compressed with gzip.
        rows: how many customers are in it.
        pages: how many pages they came on.
        bytes: the size of all its files.
        sha256: the checksum of the file; of a folder, that of the lines ``<sha256>  <name>`` for each of its parts.
        parts: its files; one, unless ``rows_per_part`` was given.
        columns: the names of its columns, in their order.
        manifest: where the manifest is.
        seconds: how long this call took.
        resumed: whether it went on with what an earlier call had begun.
        runs: what each call that had a part in it read, and noticed of changes of the group. Of a call that was killed, up
            to where the next one went on.
        again: how many customers came that an earlier call had written. Noticed, and left out, with
            ``consistency="dedupe"`` only.
    """

    destination: str
    format: str
    rows: int
    pages: int
    bytes: int
    sha256: str
    parts: tuple[ExportPart, ...]
    columns: tuple[str, ...]
    manifest: str
    seconds: float
    resumed: bool
    runs: tuple[PageReport, ...] = field(default=())
    again: int = 0

    @property
    def drift(self) -> tuple[str, ...]:
        """What was noticed of changes of the group meanwhile, each a sentence, as far as it was noticed at all."""
        sentences = [sentence for run in self.runs for sentence in run.drift]
        if self.again:
            came = "1 customer" if self.again == 1 else f"{self.again:,} customers"
            sentences.append(f"{came} came that an earlier call had written, and were left out.")
        return tuple(dict.fromkeys(sentences))

    @property
    def left_out(self) -> int:
        """How many customers were left out by ``consistency="dedupe"``, in all calls."""
        return self.again + sum(run.repeated for run in self.runs if run.consistency == "dedupe")

    def __str__(self) -> str:
        files = "" if len(self.parts) == 1 else f" in {len(self.parts):,} parts"
        noticed = " ".join(self.drift) or "No change was noticed meanwhile."
        return f"{self.rows:,} customers are in {self.destination}{files} ({self.bytes:,} bytes). {noticed}"
