"""What can be done and seen from code: the part of ``Sandbox`` that is not about starting and stopping."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define, field

from nudgescribe_async.injection import check_operation
from nudgescribe_async.sandbox import accounts, campaigns, fields, groups, messages
from nudgescribe_async.sandbox.trouble import DOWNLOAD
from nudgescribe_async.sandbox.uploads import Upload
from nudgescribe_async.sandbox.values import STATES, Caller, Refusal, SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import EllipsisType

    from aiohttp import web

    from nudgescribe_async.injection import Injection
    from nudgescribe_async.sandbox.api import Api
    from nudgescribe_async.sandbox.faults import SandboxFault
    from nudgescribe_async.sandbox.jobs import Jobs
    from nudgescribe_async.sandbox.profiles import Key
    from nudgescribe_async.sandbox.store import Database, Store
    from nudgescribe_async.sandbox.tokens import Account, TokenOffice
    from nudgescribe_async.sandbox.validation import Value
    from nudgescribe_async.sandbox.values import CampaignState, ExampleData, LogRecord, SandboxCredentials

_T = TypeVar("_T")


@define(kw_only=True)
class Running:
    """What exists only while the sandbox runs."""

    store: Store
    api: Api
    jobs: Jobs
    office: TokenOffice
    keys: dict[str, Key] = field(repr=False)
    url: str
    storage_url: str
    credentials: SandboxCredentials
    example: ExampleData | None = None
    page_url: str | None = None


class _Effects(Counter[str]):
    """Counts by operation. One that there is not has no effects for ever, so it is refused."""

    def __init__(self, counts: Mapping[str, int], known: Collection[str]) -> None:
        super().__init__(counts)
        self._known = known

    def __missing__(self, operation: object) -> int:
        check_operation(operation, self._known)
        return 0

    def copy(self) -> Self:
        return type(self)(self, self._known)

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, int], Collection[str]]]:
        return type(self), (dict(self), self._known)


class Backstage:
    """The service seen from behind. ``Sandbox`` adds the way in."""

    def __init__(self) -> None:
        self._running: Running | None = None

    # --- where it is, and who may use it ------------------------------------------------------------------------

    @property
    def _now(self) -> Running:
        if self._running is None:
            raise SandboxError("The sandbox is not running: enter it with 'async with'.")
        return self._running

    @property
    def url(self) -> str:
        """The origin of the API."""
        return self._now.url

    @property
    def storage_url(self) -> str:
        """The origin of the signed URLs."""
        return self._now.storage_url

    @property
    def page_url(self) -> str | None:
        """What to open in a browser; ``None`` without a page, or without a socket."""
        return self._now.page_url

    @property
    def app(self) -> web.Application:
        """The application of the API."""
        return self._now.api.app

    @property
    def storage_app(self) -> web.Application:
        """The application of the storage."""
        return self._now.api.storage_app

    @property
    def credentials(self) -> SandboxCredentials:
        """The credentials of the first account."""
        return self._now.credentials

    @property
    def account_id(self) -> str:
        """The first account."""
        return self.credentials.account_id

    @property
    def workspace_id(self) -> str:
        """The first workspace of the first account."""
        return self.credentials.workspace_id

    @property
    def example(self) -> ExampleData:
        """The ids of the example data, of a sandbox made with ``example=True``."""
        if self._now.example is None:
            raise SandboxError("This sandbox has no example data: make it with example=True.")
        return self._now.example

    # --- what happened ------------------------------------------------------------------------------------------

    @property
    def log(self) -> tuple[LogRecord, ...]:
        """The last requests, oldest first, in the order in which they were answered, or left without an answer."""
        return tuple(self._now.api.log)

    @property
    def effects(self) -> Mapping[str, int]:
        """How often each operation changed something. An answer that got lost on its way counts.

        ``effects[operation]`` is 0 for one that has changed nothing, and a ``ValueError`` if there is no such operation.
        """
        api = self._now.api
        return _Effects(api.effects, api.trouble.operations)

    def count(self, operation: str | None, status: int | None = None) -> int:
        """How many requests for an operation were answered, with one status or any. Knows those beyond the log.

        Status 0 counts those that were left without an answer, which count nowhere else. ``"storage.download"`` stands
        for downloads from the storage, and ``None`` for all that is no operation of the contract, downloads included.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: there is no such operation in this edition, or no such status.
        """
        api = self._now.api
        if operation is not None:
            check_operation(operation, api.trouble.operations)
        if status is not None:
            _check_status(status)
        names = {None, DOWNLOAD} if operation is None else {operation}
        return sum(
            n
            for (known, answer), n in api.counts.items()
            if known in names and (answer == status if status is not None else answer != 0)
        )

    async def drain(self, *, hurry: bool = False) -> None:
        """Wait until every queued job has run; with ``hurry``, without waiting for ``job_time``."""
        await self._now.jobs.drain(hurry=hurry)

    # --- what is to go wrong -------------------------------------------------------------------------------------

    def inject(
        self,
        fault: SandboxFault,
        *,
        operation: str | None = None,
        times: int | EllipsisType | None = ...,
        skip: int = 0,
        share: float = 1.0,
        seconds: float | None = None,
    ) -> Injection[SandboxFault]:
        """Let a fault happen to requests from now on. ``docs/sandbox.md`` says what each one does.

        Args:
            fault: what is to go wrong.
            operation: only with this operation, such as ``"customers.list"``; ``"storage.download"`` stands for
                downloads from the storage. Left out: with any operation, downloads excepted.
            times: how often at most; ``None`` for ever. Left out: once, or for ever for a ``RateLimit``, of which
                refusals are counted.
            skip: how many requests are spared first.
            share: the probability with which it happens each time. ``Sandbox(fault_seed=...)`` makes it repeatable.
            seconds: how long it lasts from now on; left out: until it has happened ``times`` times.

        Returns:
            The injection: ``fired`` counts, ``remove()`` ends it.

        Raises:
            TypeError: ``fault`` is no fault, or another argument is of the wrong type.
            ValueError: there is no such operation in this edition, the fault cannot befall it, or a number cannot be
                right.
        """
        return self._now.api.trouble.inject(
            fault, operation=operation, times=times, skip=skip, share=share, seconds=seconds
        )

    @property
    def injections(self) -> tuple[Injection[SandboxFault], ...]:
        """The faults that may still happen, oldest first."""
        return self._now.api.trouble.injections

    def clear_faults(self) -> None:
        """End all faults; pages that were shifted are back in their places."""
        self._now.api.trouble.clear()

    # --- keys ---------------------------------------------------------------------------------------------------

    @property
    def profile_key(self) -> bytes:
        """The key that the profiles of the first account are encrypted with."""
        return next(iter(self._now.keys.values())).secret

    def decrypt(self, customer_id: str, extended_profile: Mapping[str, Any]) -> dict[str, Value]:
        """The profile in an envelope, of any account of this sandbox."""
        key = self._now.keys.get(str(extended_profile.get("kid")))
        if key is None:
            raise SandboxError("The envelope is not from this sandbox.")
        return key.open_profile(customer_id, extended_profile)

    # --- what the API has no operation for -----------------------------------------------------------------------

    async def add_account(self) -> SandboxCredentials:
        """Another account, with a user and a workspace of its own."""
        running = self._now
        account, workspace_id = await running.store.write(accounts.add)
        key = await running.store.read(lambda db: db.key(account.account_id))
        running.keys[key.kid] = key
        running.office.accounts[account.account_id] = account
        return accounts.credentials(account, workspace_id)

    async def create_workspace(self, name: str, *, account_id: str | None = None) -> str:
        """Another workspace; its id."""
        account = self._account(account_id)
        return await self._write(lambda db: groups.create_workspace(db, account.account_id, name))

    async def create_profile_field(
        self,
        field_name: str,
        field_type: str,
        *,
        field_format: str | None = None,
        is_required: bool = False,
        workspace_id: str | None = None,
    ) -> str:
        """A profile field, made without a request; its id."""
        body: dict[str, Any] = {"field_name": field_name, "field_type": field_type, "is_required": is_required}
        if field_format is not None:
            body["field_format"] = field_format

        def create(db: Database) -> str:
            who, workspace = self._workspace(db, workspace_id)
            return str(fields.create(db, who, {**body, "workspace_id": workspace})["profile_field_id"])

        return await self._write(create)

    async def create_customer_group(
        self,
        group_name: str,
        *,
        customers: Sequence[Mapping[str, object]] = (),
        workspace_id: str | None = None,
    ) -> str:
        """A customer group with customers in it, made without a request; its id. All must be valid, or none is taken."""

        def create(db: Database) -> str:
            who, workspace = self._workspace(db, workspace_id)
            group = groups.create(db, who, {"workspace_id": workspace, "group_name": group_name})
            group_id = str(group["customer_group_id"])
            if customers:
                body = {"workspace_id": workspace, "customer_group_id": group_id, "customers": list(customers)}
                upload = Upload(db, who, body, None)
                while upload.stage(db):
                    pass
                errors = upload.finish(db, queue=False)["errors"]
                if errors:
                    raise SandboxError(f"A customer is not valid: {errors[0]}.")
            return group_id

        return await self._write(create)

    async def create_campaign(
        self,
        name: str,
        customer_group_id: str,
        *,
        segment_by: Mapping[str, Sequence[float] | None] | None = None,
        template: str | None = None,
        status: CampaignState = "Published",
        published_at: datetime | None = None,
    ) -> str:
        """A campaign in one of its states, with its messages written; its id.

        Args:
            name: the name of the campaign.
            customer_group_id: the group that its first run is for.
            segment_by: how to divide the group: profile field to the edges of bins, or to ``None`` for a segment of
                each value. Left out: one segment of everybody.
            template: the text of all messages; ``{segment}`` stands for the segment, and any other name in braces for
                that field of the customer's profile. Left out: texts that need quoting in CSV.
            status: how far it has come.
            published_at: when it was published, for a published one. Left out: now.
        """
        if status not in STATES:
            raise ValueError(f"status must be one of {', '.join(STATES)}, not {status!r}")

        def create(db: Database) -> str:
            who = self._owner(db, "groups", "customer_group_id", customer_group_id)
            campaign_id = campaigns.create(
                db,
                who,
                name=name,
                customer_group_id=customer_group_id,
                segment_by=segment_by or {},
                template=template,
            )
            if status != campaigns.READY_FOR_REVIEW:
                campaigns.review(db, who, campaign_id, None, approved=True)
            if status == campaigns.PUBLISHED:
                messages.export(db, campaign_id, published_at or datetime.now(UTC))
            return campaign_id

        return await self._write(create)

    async def approve(self, campaign_id: str, message_ids: Sequence[str] | None = None) -> str:
        """Approve messages of the current run, all by default, once the queue is empty; the campaign's state then."""
        return await self._review(campaign_id, message_ids, approved=True)

    async def reject(self, campaign_id: str, message_ids: Sequence[str] | None = None) -> str:
        """Reject messages likewise. Of a published campaign, messages must be named: they are taken back."""
        return await self._review(campaign_id, message_ids, approved=False)

    async def set_campaign_state(self, campaign_id: str, state: str) -> None:
        """Put a campaign in any state, such as ``"Failed"``, as people at the service could.

        The reference names three states, and says nothing of failures: what a client makes of others can be tried so. Only
        the state changes; messages, files and the history stay as they are. What is queued for the campaign, the work on
        a rerun or a publication, is dropped: it stays in that state until something else moves it.
        """
        if not isinstance(cast("object", state), str):
            raise TypeError(f"state must be a text, not {type(state).__name__}")
        if not state.strip():
            raise ValueError("state must not be empty")

        def put(db: Database) -> None:
            self._owner(db, "campaigns", "campaign_id", campaign_id)
            campaigns.force_status(db, campaign_id, state)

        await self._write(put)
        self._now.jobs.wake()  # somebody may wait for what is no longer queued

    async def revoke_tokens(self, *, refresh_tokens: bool = False) -> None:
        """Refuse every access token that exists from now on, and every refresh token too if asked."""
        await self._now.api.revoke_tokens(refresh_tokens)

    async def _review(self, campaign_id: str, message_ids: Sequence[str] | None, *, approved: bool) -> str:
        await self.drain()  # the messages of a rerun are written by its job

        def review(db: Database) -> str:
            who = self._owner(db, "campaigns", "campaign_id", campaign_id)
            return campaigns.review(db, who, campaign_id, message_ids, approved=approved)

        return await self._write(review)

    async def _write(self, work: Callable[[Database], _T]) -> _T:
        try:
            return await self._now.store.write(work)
        except Refusal as refusal:
            raise SandboxError(refusal.message) from None

    def _account(self, account_id: str | None) -> Account:
        account = self._now.office.accounts.get(self.account_id if account_id is None else account_id)
        if account is None:
            raise SandboxError(f"There is no account {account_id}.")
        return account

    def _owner(self, db: Database, table: str, column: str, value: str) -> Caller:
        row = db.one(f"SELECT account_id FROM {table} WHERE {column} = ?", value)  # noqa: S608 - names from this module
        if row is None:
            raise SandboxError(f"There is no {column.removesuffix('_id').replace('_', ' ')} {value}.")
        account = self._account(row["account_id"])
        return Caller(account_id=account.account_id, user_id=account.user_id)

    def _workspace(self, db: Database, workspace_id: str | None) -> tuple[Caller, str]:
        workspace = self.workspace_id if workspace_id is None else workspace_id
        return self._owner(db, "workspaces", "workspace_id", workspace), workspace


def _check_status(status: object) -> None:
    wanted = "an HTTP status, or 0 for no answer"
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status must be {wanted}, not {type(status).__name__}")
    if status != 0 and not 100 <= status <= 599:
        raise ValueError(f"status must be {wanted}, not {status}")
