"""Messages: publishing the messages of a campaign, and fetching the files they are published to.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, overload

from nudgescribe_async.endpoint import Argument, Effect, Endpoint, Kind, RetryClass
from nudgescribe_async.endpoints.models import DownloadLink, PublishReceipt
from nudgescribe_async.shapes import JSON, Evidence

if TYPE_CHECKING:
    from nudgescribe_async.options import CallOptions
    from nudgescribe_async.session import Session

PUBLISH: Final = Endpoint(
    operation="messages.publish",
    method="POST",
    path="/v1/messages/publish",
    effect=Effect.ACTION,
    retry=RetryClass.UNSAFE,
    evidence=Evidence.REFERENCE,
    arguments=(Argument("campaign_id", Kind.TEXT),),
    context_headers=True,
    look="campaigns.list",
    answer=PublishReceipt,
)

COUNT_PAGES: Final = Endpoint(
    operation="messages.count_pages",
    method="POST",
    path="/v1/messages/pages",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("campaign_id", Kind.TEXT),
        Argument("run_number", Kind.INTEGER, required=False, minimum=1),
    ),
    context_headers=True,
    unwrap=("pages", "total_pages"),
    answer=int,
)

FETCH_CSV: Final = Endpoint(
    operation="messages.fetch",
    method="POST",
    path="/v1/messages/fetch",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("campaign_id", Kind.TEXT),
        Argument("page", Kind.INTEGER, first_page=1),
        Argument("format", Kind.TEXT, choices=("csv", "json", "url")),
        Argument("run_number", Kind.INTEGER, required=False, minimum=1),
    ),
    context_headers=True,
    answer=str,
)
FETCH_JSON: Final = Endpoint(
    operation="messages.fetch",
    method="POST",
    path="/v1/messages/fetch",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("campaign_id", Kind.TEXT),
        Argument("page", Kind.INTEGER, first_page=1),
        Argument("format", Kind.TEXT, choices=("csv", "json", "url")),
        Argument("run_number", Kind.INTEGER, required=False, minimum=1),
    ),
    context_headers=True,
    answer=list[dict[str, JSON]],
)
FETCH_URL: Final = Endpoint(
    operation="messages.fetch",
    method="POST",
    path="/v1/messages/fetch",
    effect=Effect.READ,
    retry=RetryClass.SAFE,
    evidence=Evidence.REFERENCE,
    arguments=(
        Argument("campaign_id", Kind.TEXT),
        Argument("page", Kind.INTEGER, first_page=1),
        Argument("format", Kind.TEXT, choices=("csv", "json", "url")),
        Argument("run_number", Kind.INTEGER, required=False, minimum=1),
    ),
    context_headers=True,
    answer=DownloadLink,
)


class MessagesEndpoints:
    """Publishing the messages of a campaign, and fetching the files they are published to.

    Any number of calls may run at once; the client's limit decides how many are in flight. A call that is
    cancelled gives its connection up at once, and a writing one may have taken effect by then.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def publish(self, campaign_id: str, *, options: CallOptions | None = None) -> PublishReceipt:
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
        return await self._session.call(PUBLISH, {"campaign_id": campaign_id}, options)

    async def count_pages(
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
        return await self._session.call(COUNT_PAGES, {"campaign_id": campaign_id, "run_number": run_number}, options)

    @overload
    async def fetch(
        self,
        campaign_id: str,
        page: int,
        format: Literal["csv"] = "csv",
        run_number: int | None = None,
        *,
        options: CallOptions | None = None,
    ) -> str: ...
    @overload
    async def fetch(
        self,
        campaign_id: str,
        page: int,
        format: Literal["json"],
        run_number: int | None = None,
        *,
        options: CallOptions | None = None,
    ) -> list[dict[str, JSON]]: ...
    @overload
    async def fetch(
        self,
        campaign_id: str,
        page: int,
        format: Literal["url"],
        run_number: int | None = None,
        *,
        options: CallOptions | None = None,
    ) -> DownloadLink: ...
    async def fetch(
        self,
        campaign_id: str,
        page: int,
        format: Literal["csv", "json", "url"] = "csv",
        run_number: int | None = None,
        *,
        options: CallOptions | None = None,
    ) -> str | list[dict[str, JSON]] | DownloadLink:
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
        if format == "csv":
            return await self._session.call(
                FETCH_CSV,
                {"campaign_id": campaign_id, "page": page, "format": format, "run_number": run_number},
                options,
            )
        if format == "json":
            return await self._session.call(
                FETCH_JSON,
                {"campaign_id": campaign_id, "page": page, "format": format, "run_number": run_number},
                options,
            )
        return await self._session.call(
            FETCH_URL, {"campaign_id": campaign_id, "page": page, "format": format, "run_number": run_number}, options
        )
