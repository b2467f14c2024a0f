"""``ns.customers``: the endpoints, and all customers of a group as one stream."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from attrs import evolve

from nudgescribe_async.cursor import digest
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.customers import COUNT_PAGES, LIST, CustomersEndpoints
from nudgescribe_async.endpoints.profile_fields import LIST as LIST_FIELDS
from nudgescribe_async.engines import load_engine
from nudgescribe_async.options import CallOptions, bulk
from nudgescribe_async.paging import PageIterator, PageSource

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal

    from nudgescribe_async.bulk.export import ExportProgress, ExportReport
    from nudgescribe_async.bulk.upload import UploadChunk, UploadReport, UploadSource
    from nudgescribe_async.consistency import Consistency
    from nudgescribe_async.cursor import PageCursor
    from nudgescribe_async.endpoints.models import Customer
    from nudgescribe_async.page_window import Order
    from nudgescribe_async.reading import Answer

_ITER = evolve(COUNT_PAGES, operation="customers.iter")  # so that errors name what was called
_EXPORT = evolve(COUNT_PAGES, operation="customers.export")

__all__ = ["Customers"]


class Customers(CustomersEndpoints):
    """The customers of one customer group, page by page or all in one stream, up and down."""

    __slots__ = ()

    def iter(
        self,
        customer_group_id: str,
        *,
        concurrency: int = 8,
        prefetch: int | None = None,
        order: Order = "page",
        consistency: Consistency = "warn",
        resume_from: PageCursor | str | None = None,
        options: CallOptions | None = None,
    ) -> PageIterator[Customer]:
        """All customers of a group, in the order of the service.

        Asks for the number of pages (``customers.count_pages``) and, several at a time, for the pages
        (``customers.list``); at the end, for the number of pages once more. Pages are no snapshot: of customers
        that are added or removed meanwhile, some may be missed or come twice. What is noticed of that is in the
        ``report`` of the iterator; ``consistency`` says what to do about it.

        Args:
            customer_group_id: the group.
            concurrency: the most requests in flight; the client's own limit holds as well.
            prefetch: the most pages ahead of the consumer; twice ``concurrency`` if left out.
            order: ``"page"``, or ``"completion"``: whichever page comes first.
            consistency: ``"warn"`` logs and reports changes, and looks for customers who came before on the last 16
                pages, in memory that does not grow. ``"dedupe"`` lets no customer come twice, and ``"strict"`` raises
                ``PageDriftError`` at the first change; both keep every id (about 120 MB for a million).
            resume_from: the cursor of an earlier iteration over the same group, or its JSON.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            A ``PageIterator``: use it with ``async for``. Leaving the loop early cancels what is in flight.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """
        options = bulk(options)
        group = checked(_ITER, {"customer_group_id": customer_group_id})

        async def fetch(page: int) -> Answer:
            return await self._session.exchange(LIST, {**group, "page": page}, options)

        return PageIterator(
            PageSource(
                operation=LIST.operation,
                count=partial(self._session.call, COUNT_PAGES, group, options),
                fetch=fetch,
                decode=partial(self._session.decode, LIST),
                query=digest(LIST.operation, self._session.base_url, group, self._session.first_page(LIST)),
                first_page=self._session.first_page(LIST),
                identify=attrgetter("customer_id"),
                even=True,
                weigh=lambda answer: len(answer.body),
            ),
            concurrency=concurrency,
            prefetch=prefetch,
            order=order,
            consistency=consistency,
            resume_from=resume_from,
            events=self._session.events,
        )

    async def export(
        self,
        customer_group_id: str,
        destination: str | os.PathLike[str],
        format: str | None = None,  # noqa: A002 - what everybody calls it
        *,
        rows_per_part: int | None = None,
        workspace_id: str | None = None,
        consistency: Consistency = "warn",
        overwrite: bool = False,
        restart: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        spool: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 1.0,
        on_progress: Callable[[ExportProgress], None] | None = None,
        concurrency: int = 8,
        prefetch: int | None = None,
        options: CallOptions | None = None,
    ) -> ExportReport:
        """All customers of a group into a file, or a folder of parts: NDJSON, CSV or Parquet.

        It is written beside the destination (``<destination>.partial``), and renamed when it is complete. Whatever ends a
        call before its report is handed over, ``kill -9`` included, the same call made again goes on from the last checkpoint, without a
        lost or doubled row; what it makes is the same, byte for byte, as without the interruption. A manifest says what
        was made. See the guide for the columns, and for what becomes of values that fit none. Files with customers can be
        read by their owner alone (0600), whatever the umask says.

        One call at a time works on a destination; others are refused at once, in other processes too. Files are
        written in a thread, and one page after the other, so that memory does not grow with the group. Cancelling
        waits for the write under way, and writes a checkpoint; so does an error, and closing the client.

        Args:
            customer_group_id: the group.
            destination: a path, or a URL that fsspec knows (extra ``fsspec``).
            format: ``"ndjson"``, ``"csv"`` or ``"parquet"`` (extra ``parquet``), the first two also with ``".gz"`` behind it.
                Left out, the suffix of the path says it; given, it must not contradict it.
            rows_per_part: the destination is a folder, and a part ends with the page that gives it so many rows.
            workspace_id: whose profile fields become columns, if profiles are readable (``profile_decryptor``); left out,
                the workspace of the first customer. Without a decryptor it has no effect.
            consistency: what to do when the group changes meanwhile: ``"warn"`` reports it, ``"dedupe"`` leaves out who came
                before, ``"strict"`` raises ``PageDriftError``.
            overwrite: replace what is there, once the new one is complete. A folder is replaced only if an export made
                all that is in it.
            restart: forget what an earlier call has left.
            storage_options: for fsspec: credentials and the like. They are kept nowhere.
            spool: for a URL, the folder to write in until a file is complete; one of your own under the folder for
                temporary files, if left out.
            checkpoint_every: seconds between checkpoints, which is what has to be read again after a crash.
            on_progress: a plain function, called on the event loop after each page that was written. What it raises is
                logged.
            concurrency: the most requests in flight; the client's own limit holds as well.
            prefetch: the most pages ahead of the one that is written; twice ``concurrency`` if left out.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            ``ExportReport``.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
            ConfigurationError: a package is missing, and the text says which one to install; or there is no such storage.
            ExportError: the destination is taken, cannot be written, or what an earlier call left cannot be continued.
            PageError: a page could not be had. The same call goes on.
            PageDriftError: the group changed, and ``consistency="strict"``.
            ProfileError: a profile cannot be read.
            NudgescribeError: the number of pages could not be had, or there is no token.
        """
        await load_engine("nudgescribe_async.bulk.export.job")
        from nudgescribe_async.bulk.export.job import Source, export  # noqa: PLC0415 - see engines.py

        options = bulk(options)
        checked(_EXPORT, {"customer_group_id": customer_group_id})

        def iterate(resume_from: str | None) -> PageIterator[Customer]:
            return self.iter(
                customer_group_id,
                concurrency=concurrency,
                prefetch=prefetch,
                consistency=consistency,
                resume_from=resume_from,
                options=options,
            )

        source = Source(
            iterate=iterate,
            fields=lambda workspace: self._session.call(LIST_FIELDS, {"workspace_id": workspace}, options),
            decrypted=self._session.reads_profiles,
            consistency=consistency,
            asked={"base_url": self._session.base_url, "customer_group_id": customer_group_id},
        )
        return await export(
            source,
            destination,
            format,
            rows_per_part=rows_per_part,
            workspace_id=workspace_id,
            overwrite=overwrite,
            restart=restart,
            storage_options=storage_options,
            spool=spool,
            checkpoint_every=checkpoint_every,
            on_progress=on_progress,
        )

    async def upload(
        self,
        workspace_id: str,
        customer_group_id: str,
        source: UploadSource,
        *,
        fields: Sequence[str] | None = None,
        encoding: str = "utf-8",
        delimiter: str = ",",
        validate: bool = True,
        unique: str | None = None,
        bad_rows: Literal["skip", "refuse"] = "skip",
        dry_run: bool = False,
        from_row: int = 1,
        to_row: int | None = None,
        concurrency: int = 1,
        repeat_unknown: bool = False,
        rows_per_chunk: int = 10_000,
        chunk_bytes: int = 16 * 2**20,
        max_cell_bytes: int = 2**20,
        keep_problems: int = 10_000,
        spool: str | os.PathLike[str] | None = None,
        on_chunk: Callable[[UploadChunk], object] | None = None,
        options: CallOptions | None = None,
    ) -> UploadReport:
        """Upload customers from a file, an iterable or a table of any size, and account for every row.

        One pass reads the source, checks each row against the profile fields of the workspace, and keeps the good ones
        in a file without a name (personal data; the system frees it whatever happens). Only when all of it is through
        are they sent, with ``customers.check``, a chunk at a time. What the service says of a row is put down to
        the row of the source. Memory does not grow with the source.

        A chunk that fails ends the sending; one whose outcome is not known is not sent again. Both are in the report,
        which is returned then, too: call ``raise_for_failures()`` on it, or look at ``complete``. Refused rows are no
        failure, were it all of them, unless you say ``raise_for_failures(refused=True)``.

        All blocking work is done in threads. Cancelling waits for the piece under way, closes what was opened here and
        any generator, and frees the kept rows; chunks that were sent have taken effect, ``on_chunk`` was told of them, and
        a note of the ``CancelledError`` says which rows they are, and how to go on.
        Any number of uploads may run at once; those into one group take effect in any order.

        Args:
            workspace_id: the workspace, whose profile fields the columns are.
            customer_group_id: the group that receives the customers.
            source: a path, ``bytes``, or a binary file of CSV with a header; an iterable, async or plain, of mappings or
                of bytes; a table of pandas, polars or Arrow (extra ``parquet``); or a function that gives one of
                them. A file object is read from where it stands, and left open.
            fields: the columns to send; others are left out. Mappings that lack one have it empty. Left out: all
                columns; mappings must have those of the first one.
            encoding: of the text, such as ``"latin-1"``. A byte order mark of UTF-8 is taken off.
            delimiter: between cells.
            validate: ``False`` leaves group, names and values to the service, and asks for neither the groups of the
                workspace nor its profile fields. Dates of tables and mappings are written as ``yyyy-MM-dd`` then.
            unique: the column in which no value may come twice, such as the identifier; a row with the value of an earlier
                good one is a bad row. Its memory grows with the rows, by about 100 MB for a million.
            bad_rows: ``"skip"`` sends the others; ``"refuse"`` sends nothing if there is one.
            dry_run: only the pass: what would be refused here, and in which chunks the rest would go.
            from_row: the first row to look at. Those before are read, and neither checked nor sent; with
                ``unique``, the good ones of them count as earlier rows.
            to_row: the last row to look at; the source is not read beyond.
            concurrency: chunks in flight. With more than one, their rows may take effect in another order.
            repeat_unknown: send a chunk again, up to three times, whose outcome is not known. For rows that carry the
                identifier of the customer, so that the service finds those that it has.
            rows_per_chunk: the most rows of one request.
            chunk_bytes: about the most bytes of one request.
            max_cell_bytes: a larger cell is taken for a mistake in the file.
            keep_problems: of how many problems the report keeps row and reason; all are counted.
            spool: the folder for the kept rows, which take as much space as the source; the system's place for temporary
                files if left out.
            on_chunk: a plain function, called on the event loop with each chunk when it has ended, however. What it
                raises is logged.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            ``UploadReport``: returned whenever the pass ended well, but for the two cases of ``ClientClosedError`` and
            cancellation.

        Raises:
            UploadSourceError: the source is not fit to be sent, and nothing was sent: ``row``, ``line`` and ``field`` say
                where, as far as it has a place. ``report`` has the bad rows if ``bad_rows="refuse"``. Or the workspace
                has no such group.
            ClientClosedError: the client was closed; ``report`` is there if that was after the pass.
            ConfigurationError: a table is given, and pyarrow is not installed.
            NudgescribeError: the groups or the profile fields could not be read. Nothing was sent. Who may not read the
                groups (403) uploads all the same.
            OSError: the source cannot be opened or read, or the rows cannot be kept. Nothing was sent.
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """
        await load_engine("nudgescribe_async.bulk.upload.job")
        from nudgescribe_async.bulk.upload.job import Choices, upload  # noqa: PLC0415 - see engines.py

        choices = Choices.of(
            fields=fields,
            encoding=encoding,
            delimiter=delimiter,
            validate=validate,
            unique=unique,
            bad_rows=bad_rows,
            dry_run=dry_run,
            from_row=from_row,
            to_row=to_row,
            concurrency=concurrency,
            repeat_unknown=repeat_unknown,
            rows_per_chunk=rows_per_chunk,
            chunk_bytes=chunk_bytes,
            max_cell_bytes=max_cell_bytes,
            keep_problems=keep_problems,
            spool=spool,
            on_chunk=on_chunk,
        )
        return await upload(self._session, workspace_id, customer_group_id, source, choices, options)
