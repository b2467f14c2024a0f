"""The part of an export that touches the disk. Blocking: each method is called in a thread, one at a time.

In the folder that belongs to an export while it runs::

    checkpoint.json   what of the rest is good: replaced as a whole, and only once the disk has what it names
    parts/            the files, as they will be
    stream.arrow      of Parquet, the file that is being written, before it is packed
    seen              the ids that were written, as fingerprints of 16 bytes, where repetitions matter
    lock              held while a call works on it
    replaced/         for a moment, the folder of parts that was in the place of the new one

What a checkpoint does not name is cut off or removed by the next call, and read again.

The end goes step by step, and each can be done again by the same call: the last file is completed; the checkpoint says
``written``; everything is put in its place, the manifest last; all but the checkpoint is removed. Then the report is
handed over, and only with that the checkpoint goes, and the folder.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import asdict, evolve

from nudgescribe_async.bulk.export import checkpoint as checkpoints
from nudgescribe_async.bulk.export.arrow import Arrow, pack
from nudgescribe_async.bulk.export.checkpoint import Checkpoint
from nudgescribe_async.bulk.export.columns import Columns
from nudgescribe_async.bulk.export.report import ExportPart, ExportReport
from nudgescribe_async.bulk.export.text import Csv, Gzip, Ndjson
from nudgescribe_async.bulk.export.values import MISFIT, plain_text
from nudgescribe_async.bulk.files import AppendFile, InUseError, Lock, checksum, flush_file, flush_folder, names_in
from nudgescribe_async.endpoint import timestamp
from nudgescribe_async.errors import ExportError, PageDriftError
from nudgescribe_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence
    from pathlib import Path

    from nudgescribe_async.bulk.export.plan import Plan
    from nudgescribe_async.bulk.export.target import Target
    from nudgescribe_async.bulk.export.text import Encoder
    from nudgescribe_async.consistency import Consistency, PageReport
    from nudgescribe_async.cursor import PageCursor
    from nudgescribe_async.endpoints.models import Customer

__all__ = ["Amounts", "Writing"]

Amounts: TypeAlias = tuple[int, int, int]
"""Pages, rows and bytes that were written."""

_OURS = {"checkpoint.json", "checkpoint.json.new", "parts", "stream.arrow", "seen", "lock", "replaced"}
_ANEW = "restart=True forgets what was written, and begins anew."
_ID_BYTES = 16
_UNWRITABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a value can come to that no format holds. What a profile_decryptor raises is a ``ProfileError``, and goes by."""


class Writing:
    """An export on its way to the disk.

    Args:
        plan: what it is to make.
        target: where it goes.
        consistency: what to do about customers that come again after a call that broke off.
        overwrite: whether something that exists is replaced.
        restart: whether what an earlier call left is forgotten.
        every: seconds between checkpoints.
        pause: called between the pieces of long work; may raise to end it.
    """

    def __init__(
        self,
        plan: Plan,
        target: Target,
        *,
        consistency: Consistency,
        overwrite: bool,
        restart: bool,
        every: float,
        pause: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._target = target
        self._consistency = consistency
        self._overwrite = overwrite
        self._restart = restart
        self._every = every
        self._pause = pause
        self._started = time.monotonic()
        self._lock: Lock | None = None
        self._gate: tuple[Path, Lock] | None = None
        self._state: Checkpoint | None = None
        self._encoder: Encoder | None = None
        self._file: AppendFile | None = None
        self._rows = 0
        self._seen: AppendFile | None = None
        self._old: frozenset[bytes] = frozenset()
        self._earlier: tuple[PageReport, ...] = ()
        self._saved_at = 0.0
        self._unsaved = False
        self._broken = False
        self.resumed = False

    # --- what is known of it -------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether its columns are settled."""
        return self._state is not None

    @property
    def written(self) -> bool:
        """Whether nothing is left to be read."""
        return self._state is not None and self._state.phase == "written"

    @property
    def cursor(self) -> str | None:
        """Where reading goes on."""
        return None if self._state is None else self._state.cursor

    def amounts(self) -> Amounts:
        """How much was written."""
        state = self._known()
        files = sum(part.bytes for part in state.parts) + (self._file.size if self._file is not None else 0)
        return state.pages, sum(part.rows for part in state.parts) + self._rows, files

    def _known(self) -> Checkpoint:
        assert self._state is not None  # noqa: S101 - begin() comes first
        return self._state

    @property
    def _path(self) -> Path:
        return self._target.work / "checkpoint.json"

    @property
    def _parts(self) -> Path:
        return self._target.work / "parts"

    # --- the beginning -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Lock the destination, and find out what an earlier call has left.

        Raises:
            ExportError: somebody else works on it, it is taken, or what was left cannot be used.
        """
        with self._explained():
            work = self._locked()
            self._target.put_back()
            foreign = sorted(names_in(work) - _OURS)
            if foreign:
                raise ExportError(
                    f"{work} has things in it that no export has made, such as {foreign[0]!r}. Move it away, or choose "
                    "another destination."
                )
            if self._restart:
                self._target.check(overwrite=self._overwrite)
                self._path.unlink(missing_ok=True)  # first, since it names the rest
                self._sweep()
            state = self._left_behind()
            if state is None or (state.phase != "written" and not self._target.takes_parts):
                # Parts that were sent are there, and are this export's own.
                self._target.check(overwrite=self._overwrite)
            if state is not None:
                self.resumed = True
                if state.phase == "reading":
                    self._take_up(state)
                else:
                    self._look_over(state)
                self._state, self._earlier = state, state.runs

    def _locked(self) -> Path:
        try:
            for attempt in range(10):
                self._target.prepare()
                try:
                    self._lock = Lock(self._target.work / "lock")
                except FileNotFoundError:  # one that has just ended has removed the folder
                    if attempt == 9:
                        raise
                else:
                    break
            gate = self._target.gate()
            self._gate = (gate, Lock(gate)) if gate is not None else None
        except InUseError:
            raise ExportError(
                f"Another export is writing to {self._plan.shown}. Wait for its end, or choose another destination."
            ) from None
        return self._target.work

    def _left_behind(self) -> Checkpoint | None:
        """The checkpoint of an earlier call, if there is one that this call can go on with."""
        if not self._path.exists():
            if self._parts.is_dir() and names_in(self._parts):
                raise ExportError(f"{self._path} is missing, so {self._parts} cannot be used. {_ANEW}")
            return None
        try:
            state = checkpoints.read(self._path)
        except ValueError as error:
            raise ExportError(f"The checkpoint {self._path} cannot be used: {error}. {_ANEW}") from None
        asked = self._plan.asked
        if state.asked != asked:
            names = sorted(name for name in {*asked, *state.asked} if asked.get(name) != state.asked.get(name))
            name = names[0]
            raise ExportError(
                f"What {self._target.work} holds was begun with {name}={state.asked.get(name)!r}, and this call has "
                f"{asked.get(name)!r}. Call it as before to go on; {_ANEW}"
            )
        if state.phase == "drifted":
            raise ExportError(
                f"The group had changed while it was being exported with consistency='strict', so what "
                f"{self._target.work} holds is not to be trusted: {state.drift} {_ANEW}"
            )
        return state

    def _take_up(self, state: Checkpoint) -> None:
        """Check what the checkpoint names, cut off what it does not, and open what was being written."""
        self._parts.mkdir(mode=0o700, exist_ok=True)
        kept = {part.name for part in state.parts[state.sent :]}
        for part in state.parts[state.sent :]:
            self._check_part(part)
        if state.begun is not None:
            kept.add(state.begun.name)
            self._file = self._taken_up(self._open_path(state.begun.name), state.begun)
            self._rows = state.begun.rows
        if state.seen is not None:
            path = self._target.work / "seen"
            self._seen = self._taken_up(path, state.seen)
            data = path.read_bytes()
            self._old = frozenset(data[at : at + _ID_BYTES] for at in range(0, len(data), _ID_BYTES))
        for name in names_in(self._parts) - kept:
            (self._parts / name).unlink()
        self._encoder = self._encoder_for(Columns.from_plain(state.columns, decrypted=state.decrypted))

    def _look_over(self, state: Checkpoint) -> None:
        """All was written, and perhaps long ago: see whether what is here is still that, in its place already or not."""
        for part in state.parts[state.sent :]:
            path = self._target.found(self._parts, part)
            if path is not None and path.parent == self._parts:
                self._check_part(part)
            elif path is not None and checksum(path, pause=self._pause)[0].hexdigest() != part.sha256:
                raise ExportError(
                    f"{path} is not what was written: somebody has changed it, or put something else there. Move it "
                    f"away; then {_ANEW}"
                )

    def _check_part(self, part: ExportPart) -> None:
        path = self._parts / part.name
        try:
            found, size = checksum(path, pause=self._pause)
        except FileNotFoundError:
            raise ExportError(f"{path} is missing. {_ANEW}") from None
        if (size, found.hexdigest()) != (part.bytes, part.sha256):
            raise ExportError(f"{path} is not what was written. {_ANEW}")

    def _taken_up(self, path: Path, good: ExportPart) -> AppendFile:
        try:
            return AppendFile(path, size=good.bytes, sha256=good.sha256, pause=self._pause)
        except FileNotFoundError:
            problem = "it is missing"
        except ValueError as error:
            problem = str(error)
        raise ExportError(f"{path} cannot be continued: {problem}. {_ANEW}")

    def begin(self, columns: Columns) -> None:
        """Settle the columns of an export that begins."""
        with self._explained():
            self._encoder = self._encoder_for(columns)
            self._state = Checkpoint(
                asked=self._plan.asked,
                columns=columns.to_plain(),
                decrypted=columns.decrypted,
                started=timestamp(datetime.now(UTC)),
            )
            checkpoints.write(self._path, self._state)
            self._parts.mkdir(mode=0o700, exist_ok=True)
            if self._consistency != "warn":
                self._seen = AppendFile(_private(self._target.work / "seen"))
            self._saved_at = time.monotonic()

    def _encoder_for(self, columns: Columns) -> Encoder:
        if self._plan.format == "parquet":
            return Arrow(columns)
        plain: Encoder = Ndjson(columns) if self._plan.format == "ndjson" else Csv(columns)
        return Gzip(plain) if self._plan.compressed else plain

    # --- page by page --------------------------------------------------------------------------------------------

    def add(self, customers: Collection[Customer], cursor: PageCursor, total: int | None, run: PageReport) -> Amounts:
        """Write a page, and take note of it.

        Args:
            customers: what is on it.
            cursor: where reading goes on behind it.
            total: how many pages there were at the start.
            run: what this call has read so far.

        Raises:
            ExportError: it cannot be written. What the last checkpoint names is not touched.
            PageDriftError: customers were written by an earlier call already, and that is not to be.
        """
        with self._explained(), self._whole():
            state = self._known()
            rows, again = self._new_ones(customers)
            if again and self._consistency == "strict":
                sentence = f"{again:,} customers came again after the export had been continued."
                failure = PageDriftError(
                    f"The set changed while its pages were read: {sentence}",
                    cursor=cursor,
                    operation="customers.export",
                )
                failure.drift = sentence
                raise failure
            if self._full:  # an earlier call ended while it was being packed
                self._end_part()
                state = self._known()
            if rows:
                self._write(rows)
            self._state = evolve(
                state,
                cursor=cursor.to_json(),
                pages=state.pages + 1,
                total=total,
                again=state.again + again,
            )
            self._note(run)
            self._unsaved = True
            if self._full:
                self._end_part()
            elif time.monotonic() - self._saved_at >= self._every:
                self._save()
            return self.amounts()

    def _new_ones(self, customers: Collection[Customer]) -> tuple[Sequence[Customer], int]:
        """Those that no earlier call has written. Within a call, the iteration sees to it."""
        if self._seen is None or not self._old:
            return list(customers), 0
        new = [customer for customer in customers if _mark(customer) not in self._old]
        return new, len(customers) - len(new)

    def _write(self, rows: Sequence[Customer]) -> None:
        encoder = self._encoder
        assert encoder is not None  # noqa: S101 - begin() or open() made it
        data = self._encoded(encoder, rows)
        if self._file is None:
            self._begin_part()
        assert self._file is not None  # noqa: S101 - a part that was begun
        self._file.write(data)
        if self._seen is not None:
            self._seen.write(b"".join(map(_mark, rows)))
        self._rows += len(rows)

    @staticmethod
    def _encoded(encoder: Encoder, rows: Sequence[Customer]) -> bytes:
        def attempt(some: Sequence[Customer]) -> bytes | str:
            try:
                return encoder.encode(some)
            except _UNWRITABLE as error:
                return type(error).__name__

        data = attempt(rows)
        if isinstance(data, bytes):
            return data
        # Out here, so that no traceback holds the error, which may hold the value.
        failed = next((each for each in rows if isinstance(attempt([each]), str)), None)
        who = f"Customer {failed.customer_id!r}" if failed is not None else "A customer"
        raise ExportError(
            f"{who} cannot be written ({data}): something in it is nested too deeply, is a number with too many "
            "digits, or is nothing that JSON has. Where a profile_decryptor made it, see to that."
        )

    def _note(self, run: PageReport) -> None:
        runs = (*self._earlier, run) if run.pages or run.drift or not self._earlier else self._earlier
        self._state = evolve(self._known(), runs=runs)

    def _open_path(self, name: str) -> Path:
        return self._target.work / "stream.arrow" if self._plan.format == "parquet" else self._parts / name

    def _part_name(self) -> str:
        return self._plan.part_name(len(self._known().parts) + 1)

    def _begin_part(self) -> None:
        encoder = self._encoder
        assert encoder is not None  # noqa: S101 - begin() or open() made it
        self._rows = 0
        self._file = AppendFile(_private(self._open_path(self._part_name())))
        self._file.write(encoder.head())

    @property
    def _full(self) -> bool:
        return self._plan.rows_per_part is not None and self._rows >= self._plan.rows_per_part

    def _end_part(self) -> None:
        """The file is complete: from here on it is never opened again."""
        file, name = self._file, self._part_name()
        assert file is not None  # noqa: S101 - a part that was begun
        path = self._parts / name
        if self._plan.format == "parquet":
            self._save()  # packing takes a while, and may be interrupted
            pack(file.path, _private(path), pause=self._pause)
            flush_file(path)
            found, size = checksum(path, pause=self._pause)
            part = ExportPart(name=name, rows=self._rows, bytes=size, sha256=found.hexdigest())
        else:
            file.flush()
            part = ExportPart(name=name, rows=self._rows, bytes=file.size, sha256=file.sha256)
        file.close()
        self._file, self._rows = None, 0
        state = self._known()
        self._state = evolve(state, parts=(*state.parts, part), begun=None)
        self._save()
        self._send()

    def _send(self) -> None:
        """Bring complete parts to their places, if they are to go one by one."""
        while self._target.takes_parts and (state := self._known()).sent < len(state.parts):
            self._pause()
            part = state.parts[state.sent]
            self._target.send(self._parts / part.name, part, overwrite=self._overwrite)
            self._state = evolve(state, sent=state.sent + 1)
            self._save()
            (self._parts / part.name).unlink()

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """A checkpoint, if there is something new and nothing is in doubt."""
        if self._state is not None and self._unsaved and not self._broken:
            with self._explained():
                self._save()

    def _save(self) -> None:
        state = self._known()
        begun = seen = None
        if self._file is not None:
            self._file.flush()
            begun = ExportPart(name=self._part_name(), rows=self._rows, bytes=self._file.size, sha256=self._file.sha256)
        if self._seen is not None:
            self._seen.flush()
            seen = ExportPart(name="seen", rows=0, bytes=self._seen.size, sha256=self._seen.sha256)
        flush_folder(self._parts)
        self._state = evolve(state, begun=begun, seen=seen)
        checkpoints.write(self._path, self._state)
        self._saved_at, self._unsaved = time.monotonic(), False

    def drifted(self, sentence: str) -> None:
        """What was read is not to be trusted, and no later call may go on with it."""
        if self._state is not None:
            with self._explained():
                self._state = evolve(self._state, phase="drifted", drift=sentence)
                checkpoints.write(self._path, self._state)
                self._unsaved = False

    # --- the end -------------------------------------------------------------------------------------------------

    def finish(self, run: PageReport | None) -> ExportReport:
        """Complete the last file, put everything in its place, and remove all but the checkpoint.

        A later call does it again if this one did not come to its end, or if nobody got its report.
        """
        with self._explained(), self._whole():
            if not self.written:
                if run is not None:
                    self._note(run)
                if self._file is None and not self._known().parts:
                    self._begin_part()  # of an empty group: a file with no rows
                if self._file is not None:
                    self._end_part()
                self._send()
                self._state = evolve(self._known(), phase="written", finished=timestamp(datetime.now(UTC)))
                self._save()
            state = self._known()
            report = self._report(state)
            self._target.publish(self._parts, state.parts, self._manifest(state, report), overwrite=self._overwrite)
            self._close_files()
            self._sweep()  # but for the checkpoint: until the caller has the report, the same call is to give it
            return report

    def _report(self, state: Checkpoint) -> ExportReport:
        parts = state.parts
        lines = "".join(f"{part.sha256}  {part.name}\n" for part in parts)
        single = self._plan.rows_per_part is None
        return ExportReport(
            destination=self._plan.shown,
            format=self._plan.full_format,
            rows=state.rows,
            pages=state.pages,
            bytes=sum(part.bytes for part in parts),
            sha256=parts[0].sha256 if single else sha256(lines.encode()).hexdigest(),
            parts=parts,
            columns=tuple(column["name"] for column in state.columns),
            manifest=self._target.manifest,
            seconds=time.monotonic() - self._started,
            resumed=self.resumed,
            runs=state.runs,
            again=state.again,
        )

    def _manifest(self, state: Checkpoint, report: ExportReport) -> bytes:
        values: dict[str, Any] = {
            "format": report.format,
            "rows": report.rows,
            "pages": report.pages,
            "bytes": report.bytes,
            "sha256": report.sha256,
            "parts": [asdict(part) for part in report.parts],
            "columns": Columns.from_plain(state.columns, decrypted=state.decrypted).to_plain(),
            "profiles": "decrypted" if state.decrypted else "as the service sent them",
            "drift": list(report.drift),
            "left_out": report.left_out,
            "runs": [asdict(run) for run in report.runs],
            "started": state.started,
            "finished": state.finished,
            "asked": dict(self._plan.asked),  # the same, and in the same order after an interruption
            "fingerprint": self._plan.fingerprint,
            "package": f"nudgescribe_async {__version__}",
        }
        text = json.dumps(values, indent=2, ensure_ascii=False)
        if plain_text(text) is MISFIT:  # the name of a file need not be text that UTF-8 can write
            text = json.dumps(values, indent=2)
        return text.encode() + b"\n"

    def _sweep(self) -> None:
        """Remove what an export has made in its folder, but for the checkpoint."""
        work = self._target.work
        for name in ("parts", "replaced"):
            with suppress(FileNotFoundError):
                shutil.rmtree(work / name)
        for name in ("stream.arrow", "seen", "checkpoint.json.new"):
            (work / name).unlink(missing_ok=True)

    def close(self, *, reported: bool = False) -> None:
        """Close everything, and leave no folder behind that nobody needs. May be called more than once.

        Args:
            reported: the caller gets the report, so the checkpoint goes. This is the one step at which an export that
                the same call completes becomes one that the same call refuses to replace.
        """
        self._close_files()
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            work = self._target.work
            with suppress(OSError):
                if reported:
                    self._path.unlink()
                    flush_folder(work)  # else a power cut might bring it back, and a later call an old report
                if not names_in(work) & (_OURS - {"lock"}):
                    (work / "lock").unlink()
                    work.rmdir()
        finally:
            lock.release()
            self._leave_gate()

    def _leave_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is None:
            return
        path, lock = gate
        try:
            with suppress(OSError):
                path.unlink()
        finally:
            lock.release()

    def keep(self) -> None:
        """The caller did not get the report after all: leave the checkpoint, so that the same call gives it."""
        with suppress(OSError, ExportError):  # somebody else may have begun to work there, and that is fine
            work = self._locked()
            if names_in(work) == {"lock"}:
                checkpoints.write(self._path, self._known())
        self.close()

    def _close_files(self) -> None:
        for file in (self._file, self._seen):
            if file is not None:
                file.close()
        self._file = self._seen = None

    @contextmanager
    def _whole(self) -> Generator[None, None, None]:
        """If it does not come to its end, what is in memory is in doubt, and is not saved."""
        broken, self._broken = self._broken, True
        yield
        self._broken = broken

    @contextmanager
    def _explained(self) -> Generator[None, None, None]:
        """Say what is to be done about trouble with the disk."""
        try:
            yield
        except OSError as error:
            where = error.filename if isinstance(error.filename, str) else str(self._target.work)
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                advice = "Free some space; then the same call goes on from the last checkpoint."
            elif error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                advice = "See to the permissions; then call it again."
            else:
                advice = "What the last checkpoint names is kept: the same call goes on from there."
            raise ExportError(f"{where} cannot be written or read: {error.strerror or error}. {advice}") from error


def _private(path: Path) -> Path:
    """Customers are nobody else's business: a file that is read by its owner alone, whatever the umask says."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return path


def _mark(customer: Customer) -> bytes:
    return blake2b(customer.customer_id.encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).digest()
