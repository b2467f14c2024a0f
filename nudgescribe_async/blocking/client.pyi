# Generated from nudgescribe_async/client.py, resources/ and endpoints/ by `nox -s generate`: do not edit.
# ruff: noqa: A002, PYI021 - the API calls things format, and editors show docstrings

import builtins
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Self, overload

from nudgescribe_async.auth import SupportsCredentials, TokenStore
from nudgescribe_async.blocking.facade import Facade
from nudgescribe_async.blocking.pages import PageIterator
from nudgescribe_async.bulk.download import DownloadReport
from nudgescribe_async.bulk.download.report import Via
from nudgescribe_async.bulk.export import ExportProgress, ExportReport
from nudgescribe_async.bulk.upload import UploadChunk, UploadReport, UploadSource
from nudgescribe_async.clock import Clock
from nudgescribe_async.consistency import Consistency
from nudgescribe_async.cursor import PageCursor
from nudgescribe_async.endpoints.models import (
    Customer,
    CustomerChange,
    CustomerGroup,
    DeleteReceipt,
    DownloadLink,
    ProfileField,
    ProfileFieldType,
    PublishReceipt,
    Receipt,
    RerunReceipt,
    RerunRecord,
    RunMessage,
    Tokens,
    UpdateReceipt,
    UploadReceipt,
    WorkspaceCampaigns,
)
from nudgescribe_async.events import RerunProgress
from nudgescribe_async.options import CallOptions, RetryBudget, RetryPolicy, Timeout
from nudgescribe_async.page_window import Order
from nudgescribe_async.profiles import ProfileDecryptor
from nudgescribe_async.rerun.plan import RerunRequest
from nudgescribe_async.rerun.report import RerunReport
from nudgescribe_async.shapes import JSON
from nudgescribe_async.transport import Transport
from nudgescribe_async.transport.multipart import FileSource

__all__ = ["Nudgescribe"]

class Auth:
    """The tokens of the client.

    There is seldom a reason to call these: the session logs in with the first call, and renews in time.
    """

    def authenticate(self) -> Tokens:
        """Log in now, with the credentials of the client.

        Worth a call at start-up, to find out about wrong credentials before the first customer does, and
        after the credentials were changed at the service. The new tokens are used by all calls from then on;
        what comes back is a copy.

        ``POST /v1/auth`` (reference). Callers that arrive meanwhile share the login.

        Returns:
            The tokens; ``expires_in`` is what is left of the access token's life, in seconds.

        Raises:
            AuthenticationError: the service refused the credentials.
            NudgescribeError: the service could not be asked.
        """

    def reauthenticate(self) -> Tokens:
        """Renew now: with the refresh token, or by logging in where that does not work.

        ``GET /v1/auth`` (reference). Callers that arrive meanwhile share the renewal.

        Returns:
            The tokens; ``expires_in`` is what is left of the access token's life, in seconds.

        Raises:
            AuthenticationError: the service refused both.
            NudgescribeError: the service could not be asked.
        """

class Customers:
    """The customers of one customer group, page by page or all in one stream, up and down."""

    def check(
        self,
        workspace_id: str,
        customer_group_id: str,
        *,
        customers: Sequence[Mapping[str, JSON]] | None = None,
        file: FileSource | None = None,
        options: CallOptions | None = None,
    ) -> UploadReceipt:
        """Upload customers, validated against the profile fields of the workspace.

        Takes either a CSV file or a list of customers, each a mapping of profile fields to values.
        This writes, whatever its name says: new customers are added to the group; a customer whose
        unique identifier is known already is updated. Large uploads are queued.
        ``customers.upload`` checks before it sends, and says which rows were refused.

        ``POST /v1/customer/check`` (reference). Sent again only if the first time provably had no
        effect.

        Args:
            workspace_id: The workspace (assumed).
            customer_group_id: The group that receives the customers (assumed).
            customers: Customers, each a mapping of profile field to value (reference). Give either
                this or ``file``.
            file: A CSV file; its header names profile fields (reference). Give either this or
                ``customers``.
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``UploadReceipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            PayloadTooLargeError: send less at once.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``customers.iter``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def count_pages(self, customer_group_id: str, *, options: CallOptions | None = None) -> int:
        """The number of pages of a customer group.

        ``POST /v1/customer/pages`` (reference). Changes nothing, and is tried again after a passing
        failure.

        Args:
            customer_group_id: The group (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            How many.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def list(
        self, customer_group_id: str, page: int | None = None, *, options: CallOptions | None = None
    ) -> builtins.list[Customer]:
        """One page of the customers of a group.

        The profiles come back encrypted.

        ``POST /v1/customer`` (seed). Changes nothing, and is tried again after a passing failure.

        Args:
            customer_group_id: The group (seed).
            page: The page. Left out: the first (seed). Pages count from 1 (assumed), unless
                ``first_page`` of the client says otherwise.
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``Customer``, in the order of the service.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def update(
        self, customer_group_id: str, customers: Sequence[CustomerChange], *, options: CallOptions | None = None
    ) -> UpdateReceipt:
        """Change the profiles of customers.

        Only edition 1 of the reference has this operation; later editions update through
        ``customers.check``.

        ``PATCH /v1/customer`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            customer_group_id: The group (assumed).
            customers: The customers, each with its new profile (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``UpdateReceipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def delete(
        self, customer_group_id: str, customer_ids: Sequence[str], *, options: CallOptions | None = None
    ) -> DeleteReceipt:
        """Remove customers from a group.

        ``DELETE /v1/customer`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            customer_group_id: The group (assumed).
            customer_ids: The customers (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``DeleteReceipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

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
            A ``PageIterator``: use it with ``for``. Leaving the loop early cancels what is in flight.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """

    def export(
        self,
        customer_group_id: str,
        destination: str | os.PathLike[str],
        format: str | None = None,
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

    def upload(
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
        rows_per_chunk: int = 10000,
        chunk_bytes: int = ...,
        max_cell_bytes: int = ...,
        keep_problems: int = 10000,
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

class CustomerGroupsEndpoints:
    """Named sets of customers in a workspace.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    def create(self, workspace_id: str, group_name: str, *, options: CallOptions | None = None) -> CustomerGroup:
        """Create a customer group.

        Creates another group each time, whatever the method suggests.

        ``PUT /v1/cg`` (seed). Sent again only if the first time provably had no effect.

        Args:
            workspace_id: The workspace (seed).
            group_name: The name of the group (seed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``CustomerGroup``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``customer_groups.list``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def list(self, workspace_id: str, *, options: CallOptions | None = None) -> builtins.list[CustomerGroup]:
        """All customer groups of a workspace.

        ``POST /v1/cg`` (seed). Changes nothing, and is tried again after a passing failure.

        Args:
            workspace_id: The workspace (seed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``CustomerGroup``, in the order of the service.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def update(
        self, workspace_id: str, customer_group_id: str, group_name: str, *, options: CallOptions | None = None
    ) -> CustomerGroup:
        """Rename a customer group.

        Assignments and history stay.

        ``PATCH /v1/cg`` (seed). Twice is the same as once, so it is tried again after a passing
        failure.

        Args:
            workspace_id: The workspace (seed).
            customer_group_id: The group (seed).
            group_name: The new name of the group (seed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``CustomerGroup``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def delete(self, workspace_id: str, customer_group_id: str, *, options: CallOptions | None = None) -> Receipt:
        """Delete a customer group.

        ``DELETE /v1/cg`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            workspace_id: The workspace (assumed).
            customer_group_id: The group (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``Receipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

class ProfileFieldsEndpoints:
    """What a workspace knows of each customer; uploads are validated against it.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    def create(
        self,
        workspace_id: str,
        field_name: str,
        field_type: ProfileFieldType | str,
        field_format: str | None = None,
        is_required: bool | None = None,
        *,
        options: CallOptions | None = None,
    ) -> ProfileField:
        """Create a profile field.

        ``PUT /v1/cpf`` (reference). Sent again only if the first time provably had no effect.

        Args:
            workspace_id: The workspace (assumed).
            field_name: The name of the field, as in the header of an upload (assumed).
            field_type: The type of the values (reference).
            field_format: The date format or the currency; needed for ``Date`` and ``currency``
                (reference).
            is_required: Whether every customer must have a value (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``ProfileField``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``profile_fields.list``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def list(self, workspace_id: str, *, options: CallOptions | None = None) -> builtins.list[ProfileField]:
        """All profile fields of a workspace.

        ``POST /v1/cpf`` (reference). Changes nothing, and is tried again after a passing failure.

        Args:
            workspace_id: The workspace (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``ProfileField``, in the order of the service.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def update(
        self,
        workspace_id: str,
        profile_field_id: str,
        field_name: str | None = None,
        field_type: ProfileFieldType | str | None = None,
        field_format: str | None = None,
        is_required: bool | None = None,
        *,
        options: CallOptions | None = None,
    ) -> ProfileField:
        """Change a profile field.

        What is left out stays as it is.

        ``PATCH /v1/cpf`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            workspace_id: The workspace (assumed).
            profile_field_id: The profile field (assumed).
            field_name: The name of the field, as in the header of an upload (assumed).
            field_type: The type of the values (reference).
            field_format: The date format or the currency; needed for ``Date`` and ``currency``
                (reference).
            is_required: Whether every customer must have a value (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``ProfileField``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def delete(self, workspace_id: str, profile_field_id: str, *, options: CallOptions | None = None) -> Receipt:
        """Delete a profile field, and the data held in it.

        ``DELETE /v1/cpf`` (reference). Twice is the same as once, so it is tried again after a
        passing failure.

        Args:
            workspace_id: The workspace (assumed).
            profile_field_id: The profile field (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``Receipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

class CampaignsEndpoints:
    """The campaigns of the account.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    def list(
        self,
        published_from: datetime | None = None,
        published_to: datetime | None = None,
        *,
        options: CallOptions | None = None,
    ) -> builtins.list[WorkspaceCampaigns]:
        """All campaigns of the account, grouped by workspace.

        The window on the date of publication is optional at both ends.

        ``POST /v1/campaign/all`` (reference). Changes nothing, and is tried again after a passing
        failure.

        Args:
            published_from: Only campaigns published at this moment or later (assumed).
            published_to: Only campaigns published at this moment or earlier (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``WorkspaceCampaigns``, in the order of the service.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

class Messages:
    """Publishing the messages of a campaign, and reading what was published."""

    def publish(self, campaign_id: str, *, options: CallOptions | None = None) -> PublishReceipt:
        """Export the messages of a campaign to files.

        Works in the background. A campaign at ``Ready to publish`` moves to ``Published``, and its
        messages with it. Counts against a quota.

        ``POST /v1/messages/publish`` (reference). Sent again only if the first time provably had no
        effect.

        Args:
            campaign_id: The campaign (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``PublishReceipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            QuotaExceededError: the quota of the account is used up.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``campaigns.list``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def count_pages(
        self, campaign_id: str, run_number: int | None = None, *, options: CallOptions | None = None
    ) -> int:
        """The number of message files of a campaign.

        A page is a file. With ``run_number``, the files of that historical run; without, those
        directly under the campaign.

        ``POST /v1/messages/pages`` (reference). Changes nothing, and is tried again after a passing
        failure.

        Args:
            campaign_id: The campaign (assumed).
            run_number: A run in the campaign's history. Left out: the current run (reference).
            options: Timeout, retries and headers of this call alone.

        Returns:
            How many.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    @overload
    def fetch(
        self,
        campaign_id: str,
        page: int,
        format: Literal["csv"] = "csv",
        run_number: int | None = None,
        *,
        options: CallOptions | None = None,
    ) -> str:
        """One file of published messages.

        As the CSV file itself, as parsed JSON, or as a signed URL. The parsed JSON is cut at 1,000
        rows without notice. A signed URL is not to be had for a historical run.

        ``POST /v1/messages/fetch`` (reference). Changes nothing, and is tried again after a passing
        failure.

        Args:
            campaign_id: The campaign (assumed).
            page: The file (assumed). Pages count from 1 (assumed), unless ``first_page`` of the
                client says otherwise.
            format: How the file is to come (assumed).
            run_number: A run in the campaign's history. Left out: the current run (reference).
            options: Timeout, retries and headers of this call alone.

        Returns:
            The text of the file, its rows, or a link to it, as ``format`` says.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    @overload
    def fetch(
        self,
        campaign_id: str,
        page: int,
        format: Literal["json"],
        run_number: int | None = None,
        *,
        options: CallOptions | None = None,
    ) -> list[dict[str, JSON]]: ...
    @overload
    def fetch(
        self,
        campaign_id: str,
        page: int,
        format: Literal["url"],
        run_number: int | None = None,
        *,
        options: CallOptions | None = None,
    ) -> DownloadLink: ...
    def iter(
        self,
        campaign_id: str,
        run_number: int | None = None,
        *,
        concurrency: int = 8,
        prefetch: int | None = None,
        order: Order = "page",
        consistency: Consistency = "warn",
        resume_from: PageCursor | str | None = None,
        options: CallOptions | None = None,
    ) -> PageIterator[dict[str, str]]:
        """All published messages of a campaign, one row of its CSV files after the other.

        Asks for the number of files (``messages.count_pages``) and, several at a time, for the files as CSV
        (``messages.fetch``); at the end, for their number once more. The parsed JSON of the service is not used,
        since it is cut at 1,000 rows without notice. Each file is checked as a whole before its first row is handed
        out.

        Args:
            campaign_id: the campaign.
            run_number: a run in the campaign's history; left out, the current run.
            concurrency: the most requests in flight; the client's own limit holds as well.
            prefetch: the most files ahead of the consumer; twice ``concurrency`` if left out.
            order: ``"page"``, or ``"completion"``: whichever file comes first.
            consistency: ``"warn"`` logs and reports another number of files at the end than at the start, and a file
                without rows; ``"strict"`` raises ``PageDriftError``. Rows have no documented id, so ``"dedupe"`` is as
                ``"warn"``.
            resume_from: the cursor of an earlier iteration over the same messages, or its JSON.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            A ``PageIterator`` of rows, each a mapping of column to text: use it with ``for``. Leaving the
            loop early cancels what is in flight.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
        """

    def download(
        self,
        campaign_id: str,
        directory: str | os.PathLike[str],
        run_number: int | None = None,
        *,
        concurrency: int = 4,
        via: Via = "url",
        overwrite: bool = False,
        options: CallOptions | None = None,
    ) -> DownloadReport:
        """All message files of a campaign, each whole and checked, into a directory.

        A page is a file, ``page-00001.csv`` and so on, as it was published, byte for byte. It is streamed to
        ``page-00001.csv.partial``, and renamed when its length, the checksums that came with it, and its rows are
        right; so what has the name of a page is a page. ``manifest.json`` says what is there, and is the journal
        meanwhile: the same call again, also after the process was killed, skips the files that are finished and
        unchanged, and continues the others. Memory does not grow with the size of a file, and nothing blocks the
        event loop.

        Files of the current run come by signed URL from the storage, which gets no token, key or other header of
        yours; those of a run that is named, or if the service has no signed URLs to give, come from the service
        itself. Asks which run is the current one at the start and at the end, so that files of two runs are never
        mixed. A ``PageFetched`` tells of each file that is in its place.

        One call at a time may work in a directory, in whichever process. Cancelling returns when no task, file or
        connection is left; closing the client ends it with ``ClientClosedError``. Either way the same call continues.

        A run without files is an error, and changes nothing. Files that are replaced, with ``overwrite`` or since the
        run has another number of files, stay until the first new one is whole, and the last of them until all are.

        Args:
            campaign_id: the campaign.
            directory: where the files go; it and its parents are made if they are not there, once the service has said
                that there are files.
            run_number: a run in the campaign's history; left out, the current run.
            concurrency: the most files under way; the client's own limit holds as well.
            via: ``"url"``: by signed URL where possible; ``"csv"``: always from the service itself.
            overwrite: whether the files of a download of something else that the directory holds may be replaced.
                What the directory holds of the same run is continued nevertheless.
            options: timeout, retries and headers of each request; the headers go to the service alone. Their
                priority is ``"bulk"`` if none is given.

        Returns:
            A ``DownloadReport``: every file with its rows, bytes and SHA-256, and what was noticed.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right, or ``directory`` is a file.
            DownloadError: a file could not be had or kept (``page`` says which, ``__cause__`` why); the number of files
                or the current run could not be had (``__cause__`` says why); there are no files; the directory holds
                something else, or is in use; the campaign was rerun meanwhile.
            AuthenticationError: there is no token to be had.
            ConfigurationError: the client belongs to another event loop, or this platform has no file locks.
            ClientClosedError: the client is closed, or was closed meanwhile.
        """

class Reruns:
    """Running published campaigns again: one, or hundreds."""

    def history(self, campaign_id: str, *, options: CallOptions | None = None) -> list[RerunRecord]:
        """The runs of a campaign, newest first.

        A campaign that was never rerun answers one synthesised run with number 1.

        ``POST /v1/campaign/rerun/history`` (reference). Changes nothing, and is tried again after a
        passing failure.

        Args:
            campaign_id: The campaign (assumed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``RerunRecord``, in the order of the service.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def messages(
        self, campaign_id: str, run_number: int | None = None, *, options: CallOptions | None = None
    ) -> list[RunMessage]:
        """The messages of a run.

        With ``run_number``, the archived messages of that run are included; without, the active
        messages of the current run.

        ``POST /v1/campaign/rerun/messages`` (reference). Changes nothing, and is tried again after
        a passing failure.

        Args:
            campaign_id: The campaign (assumed).
            run_number: A run in the campaign's history. Left out: the current run (reference).
            options: Timeout, retries and headers of this call alone.

        Returns:
            A list of ``RunMessage``, in the order of the service.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            TransportError: no usable answer came, and the retries are used up.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def initiate(
        self, campaign_id: str, new_customer_group_id: str, *, options: CallOptions | None = None
    ) -> RerunReceipt:
        """Run a published campaign again for another customer group.

        One atomic call: segment preview, run record, state of the campaign, archiving of the
        previous run's messages, and a queued job. Not repeatable. The campaign and all messages of
        its current run must be ``Published``. Afterwards the campaign is ``Ready for review`` where
        new segments need messages, and ``Ready to publish`` where all matched.

        ``POST /v1/campaign/rerun/initiate`` (seed). Sent again only if the first time provably had
        no effect.

        Args:
            campaign_id: The campaign (seed).
            new_customer_group_id: The group to run the campaign for (seed).
            options: Timeout, retries and headers of this call alone.

        Returns:
            ``RerunReceipt``.

        Raises:
            BadRequestError: an argument is wrong, or a prerequisite is not met.
            MissingFieldsError: a field is missing, or the workspace is not known.
            PermissionDeniedError: these credentials may not do this.
            RateLimitedError: too many requests, and the retries are used up.
            ServerError: the service failed, and went on failing.
            OutcomeUnknownError: it may have taken effect; look with ``reruns.history``.
            DeadlineExceededError: the time given to the call ran out.
            ResponseDecodeError: the answer does not fit the contract.
            NudgescribeError: see ``nudgescribe_async.errors`` for the rest of the tree.
        """

    def run(
        self,
        plan: Iterable[RerunRequest],
        *,
        concurrency: int = 8,
        journal: str | os.PathLike[str] | None = None,
        settle: float = 10.0,
        wait: bool = False,
        publish: bool = False,
        download: str | os.PathLike[str] | None = None,
        on_event: Callable[[RerunProgress], object] | None = None,
        fail_fast: bool = False,
        amend: bool = False,
        wait_timeout: float | None = None,
        grace: float = 10.0,
        stop: threading.Event | None = None,
        options: CallOptions | None = None,
    ) -> RerunReport:
        """Run the campaigns of a plan again, every one exactly once.

        The service has no key by which it would know a request again. So each intention is written to a journal before
        the request is sent, with the newest run that the campaign's history knew, and each outcome after it. Where no
        answer came, or one that says nothing (a timeout, a lost connection, a 5xx, a crash, a cancellation), the
        history is asked: a newer run for the wanted group is adopted; one for another group is somebody else's, and a
        conflict; if there is none after ``settle`` seconds, the campaign is sent again. The same call made again
        continues: whatever ended the one before, ``kill -9`` included, nothing is done twice and nothing is forgotten. The
        guide says in plain words what this cannot protect from.

        If a row of the plan was wrong, correct it, and make the call with the same journal and ``amend=True``: a journal of its
        own for the corrected plan would run again what has its run.

        First all campaigns are checked, and nothing is sent before that: the campaign is known and ``Published``, the
        group is one of its workspace, every message of its current run is ``Published``. What fails that is refused,
        and stops no other. A later call looks again at what was refused or not started, and finds out about what is not known; conflicts
        are left to you.

        One process at a time works with a journal: another one is told who does. All that is written to it is written in
        threads. Cancelling starts nothing new, gives what is in flight ``grace`` seconds to end and to be verified (what
        changes nothing, or can go on another time, ends at once), and raises ``CancelledError`` with the report so far as its
        attribute ``report``, unless it comes before the journal is open; cancelling twice does not wait. So does closing the
        client, which returns the report; the grace is that of ``aclose`` then.

        Args:
            plan: what to run, for which group. ``RerunPlan.from_csv`` reads it from a file.
            concurrency: campaigns at work at once; the client's own limit holds as well.
            journal: the file; left out, one for this plan in the user's folder for state
                (``$XDG_STATE_HOME/nudgescribe/reruns``), which is in the report. Another round of the same plan needs another journal.
            settle: seconds after which a request that nobody has answered does not arrive any more. Longer than the service,
                and whatever stands before it, may sit on a request.
            wait: wait until the service has done with each run: until the campaign is ``Ready for review``, ``Ready to
                publish`` or ``Published``.
            publish: wait, and publish the runs that are ``Ready to publish``; those to be reviewed are left to people, and
                published by a later call.
            download: a folder, into which the messages of published runs go: ``<campaign>/run-<number>/page-00001.csv``.
            on_event: a plain function, called on the event loop with each ``RerunProgress``. What it raises is logged; what ends
                a program (``KeyboardInterrupt``, ``SystemExit``) stops the call in good order, and is raised then.
            fail_fast: start nothing new once a campaign was not run as wanted.
            amend: the plan was corrected since the call before: what was refused, or not sent yet, may differ from what the
                journal has. All else must be in the plan as it was, and is not run again. Needs ``journal``.
            wait_timeout: seconds that each run is waited for; without end if left out, but for publications that an earlier call
                has asked for.
            grace: seconds that a cancelled call gives to what is in flight.
            stop: set it, and the call ends in good order and returns its report: for handlers of signals.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            ``RerunReport``. Call ``raise_for_failures()`` on it, or look at ``complete``.

        Raises:
            TypeError: an argument, or an item of the plan, is of the wrong type.
            ValueError: an argument has a value that cannot be right, or the plan is empty.
            JournalError: the journal is in use, is of another plan, or cannot be used. Nothing was sent without an entry
                in it; ``report`` has what was done before it failed, if anything was.
            NudgescribeError: the campaigns of the account could not be had. Nothing was sent.
        """

    def wait(
        self, campaign_id: str, run_number: int, *, timeout: float | None = None, options: CallOptions | None = None
    ) -> RerunRecord:
        """Wait until the service has done with a run.

        Asks the history, at first each second, then less often, up to every half minute. Cancelling it changes nothing;
        closing the client ends it.

        Args:
            campaign_id: the campaign.
            run_number: the run; a ``RerunReceipt`` and the history have it.
            timeout: seconds; without end if left out.
            options: timeout, retries and headers of each request. Their priority is ``"bulk"`` if none is given.

        Returns:
            The record of the run. Its ``campaign_status`` is ``Ready for review``, ``Ready to publish`` or ``Published``.

        Raises:
            DeadlineExceededError: time ran out.
            RerunError: the service says that it has failed; or the campaign has no such run, for ten seconds, since a history
                may lag behind.
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that cannot be right.
            NudgescribeError: the service could not be asked.
        """

class Nudgescribe(Facade):
    """The client for scripts, notebooks and threads.

    ::

        with blocking.Nudgescribe(Credentials(api_key=..., email=..., password=...)) as ns:
            groups = ns.customer_groups.list(workspace_id)
            for customer in ns.customers.iter(customer_group_id):
                ...

    It has what ``nudgescribe_async.Nudgescribe`` has, with the same arguments, results and errors; only nothing is awaited.
    Iterators are for ``for``, ``stop`` of ``ns.reruns.run`` is a ``threading.Event``, and ``close`` closes.

    Any number of threads may use one client at once: their calls run side by side in the event loop of a thread in the
    background, which begins with the first call and ends with ``close``. Subscribers and ``on_...`` functions are called
    in that thread. A client that was used and is forgotten warns with ``ResourceWarning``.

    Raises:
        ConfigurationError: an argument is missing or wrong; the error names it. Nothing was sent.
    """

    auth: Auth
    customers: Customers
    customer_groups: CustomerGroupsEndpoints
    profile_fields: ProfileFieldsEndpoints
    campaigns: CampaignsEndpoints
    messages: Messages
    reruns: Reruns

    def __init__(
        self,
        credentials: SupportsCredentials,
        *,
        base_url: str = ...,
        transport: Transport | None = None,
        token_store: TokenStore | None = None,
        concurrency: int = 64,
        timeout: Timeout | None = None,
        retry: RetryPolicy | None = None,
        retry_budget: RetryBudget | None = None,
        max_answer_bytes: int = ...,
        first_page: int | None = None,
        profile_decryptor: ProfileDecryptor | None = None,
        api_code: str | None = None,
        client_address: str | None = None,
        clock: Clock | None = None,
    ) -> None: ...
    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A client with the settings of the environment.

        ``NUDGESCRIBE_API_KEY``, ``NUDGESCRIBE_EMAIL`` and ``NUDGESCRIBE_PASSWORD`` are needed;
        ``NUDGESCRIBE_BASE_URL`` and ``NUDGESCRIBE_API_CODE`` are used if they are there.

        Args:
            options: as for ``Nudgescribe(...)``; they win over the environment.

        Raises:
            ConfigurationError: a variable is missing, empty or wrong; the error names it.
        """
