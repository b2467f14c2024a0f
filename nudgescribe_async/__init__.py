"""The async Python SDK for the Nudgescribe API.

::

    async with Nudgescribe.from_env() as ns:
        async for customer in ns.customers.iter(customer_group_id):
            ...

A name is loaded, with the module that it comes from, when it is asked for first: ``import nudgescribe_async`` loads
nothing, and whoever wants the errors or a report alone waits for no HTTP library. Building a client loads all that its
calls and iterators need, so that none of them loads anything on the event loop.

The package brings a plugin for pytest, which would warn of a package that was imported before it: PYTEST_DONT_REWRITE.
"""

import importlib
from typing import TYPE_CHECKING

from nudgescribe_async.version import __version__

if TYPE_CHECKING:
    from nudgescribe_async.auth import Credentials, FileTokenStore, MemoryTokenStore, StoredTokens, TokenStore
    from nudgescribe_async.bulk.download import DownloadedFile, DownloadReport
    from nudgescribe_async.bulk.export import ExportPart, ExportProgress, ExportReport
    from nudgescribe_async.bulk.upload import RowProblem, UploadChunk, UploadReport, UploadSource
    from nudgescribe_async.client import Nudgescribe
    from nudgescribe_async.consistency import PageReport
    from nudgescribe_async.cursor import PageCursor
    from nudgescribe_async.endpoints.models import (
        Campaign,
        CampaignStatus,
        Customer,
        CustomerChange,
        CustomerGroup,
        DeleteReceipt,
        DownloadLink,
        MessageStatus,
        ProfileField,
        ProfileFieldType,
        PublishReceipt,
        Receipt,
        RerunComparison,
        RerunReceipt,
        RerunRecord,
        RowError,
        RunMessage,
        Tokens,
        UpdateReceipt,
        UploadReceipt,
        WorkspaceCampaigns,
    )
    from nudgescribe_async.errors import (
        APIStatusError,
        Attempt,
        AuthenticationError,
        BadRequestError,
        ClientClosedError,
        ConfigurationError,
        ConflictError,
        DeadlineExceededError,
        DownloadError,
        ExportError,
        JournalError,
        MissingFieldsError,
        NotFoundError,
        NudgescribeError,
        OutcomeUnknownError,
        PageDriftError,
        PageError,
        PayloadTooLargeError,
        PermissionDeniedError,
        ProfileError,
        QuotaExceededError,
        RateLimitedError,
        RequestNotSentError,
        RerunError,
        RerunPlanError,
        ResponseDecodeError,
        ServerError,
        ServerOutcomeUnknownError,
        TransportError,
        UnprocessableEntityError,
        UploadSourceError,
    )
    from nudgescribe_async.options import CallOptions, Priority, RetryBudget, RetryPolicy, Timeout
    from nudgescribe_async.paging import Page, PageIterator
    from nudgescribe_async.profiles import AesGcmProfiles, ProfileDecryptor
    from nudgescribe_async.rerun import RerunOutcome, RerunPlan, RerunReport, RerunRequest, RerunStep
    from nudgescribe_async.shapes import JSON
    from nudgescribe_async.transport import Headers, Request, Response, StreamBody, Transport

__all__ = [
    "JSON",
    "APIStatusError",
    "AesGcmProfiles",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "CallOptions",
    "Campaign",
    "CampaignStatus",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "Credentials",
    "Customer",
    "CustomerChange",
    "CustomerGroup",
    "DeadlineExceededError",
    "DeleteReceipt",
    "DownloadError",
    "DownloadLink",
    "DownloadReport",
    "DownloadedFile",
    "ExportError",
    "ExportPart",
    "ExportProgress",
    "ExportReport",
    "FileTokenStore",
    "Headers",
    "JournalError",
    "MemoryTokenStore",
    "MessageStatus",
    "MissingFieldsError",
    "NotFoundError",
    "Nudgescribe",
    "NudgescribeError",
    "OutcomeUnknownError",
    "Page",
    "PageCursor",
    "PageDriftError",
    "PageError",
    "PageIterator",
    "PageReport",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Priority",
    "ProfileDecryptor",
    "ProfileError",
    "ProfileField",
    "ProfileFieldType",
    "PublishReceipt",
    "QuotaExceededError",
    "RateLimitedError",
    "Receipt",
    "Request",
    "RequestNotSentError",
    "RerunComparison",
    "RerunError",
    "RerunOutcome",
    "RerunPlan",
    "RerunPlanError",
    "RerunReceipt",
    "RerunRecord",
    "RerunReport",
    "RerunRequest",
    "RerunStep",
    "Response",
    "ResponseDecodeError",
    "RetryBudget",
    "RetryPolicy",
    "RowError",
    "RowProblem",
    "RunMessage",
    "ServerError",
    "ServerOutcomeUnknownError",
    "StoredTokens",
    "StreamBody",
    "Timeout",
    "TokenStore",
    "Tokens",
    "Transport",
    "TransportError",
    "UnprocessableEntityError",
    "UpdateReceipt",
    "UploadChunk",
    "UploadReceipt",
    "UploadReport",
    "UploadSource",
    "UploadSourceError",
    "WorkspaceCampaigns",
    "__version__",
]

# Where the names come from; what type checkers read above, once more for the interpreter.
_HOMES = {
    "auth": ("Credentials", "FileTokenStore", "MemoryTokenStore", "StoredTokens", "TokenStore"),
    "bulk.download": ("DownloadedFile", "DownloadReport"),
    "bulk.export": ("ExportPart", "ExportProgress", "ExportReport"),
    "bulk.upload": ("RowProblem", "UploadChunk", "UploadReport", "UploadSource"),
    "client": ("Nudgescribe",),
    "consistency": ("PageReport",),
    "cursor": ("PageCursor",),
    "endpoints.models": (
        "Campaign",
        "CampaignStatus",
        "Customer",
        "CustomerChange",
        "CustomerGroup",
        "DeleteReceipt",
        "DownloadLink",
        "MessageStatus",
        "ProfileField",
        "ProfileFieldType",
        "PublishReceipt",
        "Receipt",
        "RerunComparison",
        "RerunReceipt",
        "RerunRecord",
        "RowError",
        "RunMessage",
        "Tokens",
        "UpdateReceipt",
        "UploadReceipt",
        "WorkspaceCampaigns",
    ),
    "errors": (
        "APIStatusError",
        "Attempt",
        "AuthenticationError",
        "BadRequestError",
        "ClientClosedError",
        "ConfigurationError",
        "ConflictError",
        "DeadlineExceededError",
        "DownloadError",
        "ExportError",
        "JournalError",
        "MissingFieldsError",
        "NotFoundError",
        "NudgescribeError",
        "OutcomeUnknownError",
        "PageDriftError",
        "PageError",
        "PayloadTooLargeError",
        "PermissionDeniedError",
        "ProfileError",
        "QuotaExceededError",
        "RateLimitedError",
        "RequestNotSentError",
        "RerunError",
        "RerunPlanError",
        "ResponseDecodeError",
        "ServerError",
        "ServerOutcomeUnknownError",
        "TransportError",
        "UnprocessableEntityError",
        "UploadSourceError",
    ),
    "options": ("CallOptions", "Priority", "RetryBudget", "RetryPolicy", "Timeout"),
    "paging": ("Page", "PageIterator"),
    "profiles": ("AesGcmProfiles", "ProfileDecryptor"),
    "rerun": ("RerunOutcome", "RerunPlan", "RerunReport", "RerunRequest", "RerunStep"),
    "shapes": ("JSON",),
    "transport": ("Headers", "Request", "Response", "StreamBody", "Transport"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
# The modules themselves are attributes as well, whether or not somebody has imported them.
_MODULES = {"events", *(home.partition(".")[0] for home in _HOMES)}


if not TYPE_CHECKING:  # with it, a type checker would take any name for one of the package's

    def __getattr__(name: str) -> object:
        if name in _HOME_OF:
            # Each time anew, in a microsecond: what a test has put in its place is found, and does not stay.
            return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        if name in _MODULES:
            for home in _HOMES:
                if home.startswith(f"{name}."):
                    importlib.import_module(f"{__name__}.{home}")
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})
