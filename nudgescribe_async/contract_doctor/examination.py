"""One examination of the service: asks, compares, and reports."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from nudgescribe_async.arguments import check_number, check_whole
from nudgescribe_async.auth import Credentials
from nudgescribe_async.client import Nudgescribe
from nudgescribe_async.clock import SystemClock
from nudgescribe_async.contract_doctor.asking import Questions
from nudgescribe_async.contract_doctor.comparing import Comparison
from nudgescribe_async.contract_doctor.contract import Contract, Pointer
from nudgescribe_async.contract_doctor.recording import RecordingTransport, ReplayingTransport
from nudgescribe_async.contract_doctor.report import Asked, ContractReport, FieldShape, standings
from nudgescribe_async.contract_doctor.watching import LOGIN, Watching
from nudgescribe_async.options import RetryPolicy, Timeout
from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from nudgescribe_async.auth import SupportsCredentials
    from nudgescribe_async.clock import Clock
    from nudgescribe_async.contract_doctor.watching import Exchange
    from nudgescribe_async.shapes import JSON
    from nudgescribe_async.transport import Transport

__all__ = ["MOST_REQUESTS", "PAUSE", "examine", "examine_recording"]

MOST_REQUESTS = 40
PAUSE = 0.2
PATIENCE = 300.0
_LONGEST_CALL = 120.0
_FIRST_ASKED = {
    "workspace_id": "customer_groups.list",
    "customer_group_id": "customers.count_pages",
    "campaign_id": "reruns.history",
}
"""The operation that asks first for what was given."""


async def examine(
    credentials: SupportsCredentials | None = None,
    *,
    base_url: str | None = None,
    transport: Transport | None = None,
    api_code: str | None = None,
    workspace_id: str | None = None,
    customer_group_id: str | None = None,
    campaign_id: str | None = None,
    record: str | os.PathLike[str] | None = None,
    max_requests: int = MOST_REQUESTS,
    pause: float = PAUSE,
    patience: float = PATIENCE,
    clock: Clock | None = None,
) -> ContractReport:
    """Log in, make harmless reads, and tell where the answers differ from the contract.

    Nothing but the login and operations that only read is sent: what is below the session lets nothing else through.
    Requests are sent one after the other, and never repeated. Cancelling leaves nothing behind but a recording as far as
    it got.

    Args:
        credentials: of the account to look at; one that may read is enough. Left out: credentials, address and api_code
            are those of the environment, as with ``Nudgescribe.from_env()``.
        base_url: the address of the service; if left out, as for ``Nudgescribe``.
        transport: sends the requests; an ``AiohttpTransport`` if left out. It is closed at the end.
        api_code: as for ``Nudgescribe``.
        workspace_id: the workspace to look at. Left out: that of the campaign, or the first that has campaigns.
        customer_group_id: the group to look at. Left out: that of the campaign, or the first that has customers.
        campaign_id: the campaign to look at. Left out: the first that is published, or else the first.
        record: a file that is made for a recording of the session; see ``RecordingTransport``.
        max_requests: so many requests are sent at most, the login included.
        pause: seconds between two requests.
        patience: seconds; once all answers together have taken longer, nothing more is asked, and the report says so. No
            request may take longer than this, nor than two minutes.
        clock: the time, for tests.

    Raises:
        AuthenticationError: the credentials were refused.
        TransportError: the service cannot be reached.
        ConfigurationError: an argument is wrong, or the file of the recording is there already.
        TypeError: ``max_requests``, ``pause`` or ``patience`` is no number.
        ValueError: ``max_requests``, ``pause`` or ``patience`` is too low.
    """
    check_whole("max_requests", max_requests, "a whole number, 1 or more", least=1)
    check_number("pause", pause, "a number of seconds, 0 or more", least=0)
    check_number("patience", patience, "a number of seconds above 0", above=0)
    make: Callable[..., Nudgescribe] = (
        Nudgescribe.from_env if credentials is None else partial(Nudgescribe, Credentials.of(credentials))
    )
    named: dict[str, Any] = {"base_url": base_url, "api_code": api_code}
    clock = clock if clock is not None else SystemClock()
    if transport is None:
        from nudgescribe_async.transport.aiohttp import AiohttpTransport  # noqa: PLC0415 - slow to load

        transport = AiohttpTransport()
    if record is not None:
        given = {"workspace_id": workspace_id, "customer_group_id": customer_group_id, "campaign_id": campaign_id}
        notes: dict[str, JSON] = {
            "max_requests": max_requests,
            "given": [name for name, value in given.items() if value is not None],
        }
        transport = RecordingTransport(transport, record, notes=notes)
    contract = await in_thread(Contract.load)
    watching = Watching(transport, contract, max_requests, pause, clock)
    comparison = Comparison(contract)
    async with make(
        transport=watching,
        timeout=Timeout(total=min(_LONGEST_CALL, patience)),
        retry=RetryPolicy(attempts=1),
        first_page=0,  # so that page 0 can be asked for
        clock=clock,
        **{name: value for name, value in named.items() if value is not None},
    ) as ns:
        questions = Questions(ns, watching, comparison, workspace_id, customer_group_id, campaign_id, patience)
        await questions.login()
        if not questions.unanswered:
            await questions.all()
    return _report(contract, watching, comparison, questions)


async def examine_recording(path: str | os.PathLike[str]) -> ContractReport:
    """The same report from a recording of an examination: offline, and at once.

    Args:
        path: of the recording.

    Raises:
        ConfigurationError: the file is no recording, or cannot be read.
    """
    replay = await in_thread(ReplayingTransport, path)
    given, most = replay.notes.get("given"), replay.notes.get("max_requests")
    named = cast("list[object]", given) if isinstance(given, list) else []
    ids: dict[str, Any] = {name: replay.first(of, name) for name, of in _FIRST_ASKED.items() if name in named}
    return await examine(
        Credentials(api_key="replayed", email="replayed@example.invalid", password="replayed"),  # noqa: S106 - opens nothing
        base_url="https://replayed.invalid",
        transport=replay,
        max_requests=most if isinstance(most, int) and most > 0 else MOST_REQUESTS,
        pause=0.0,
        **ids,
    )


def _report(contract: Contract, watching: Watching, comparison: Comparison, questions: Questions) -> ContractReport:
    findings = comparison.findings()
    comparison.settle()
    asked = [each for each in contract.operations if each.effect == "read" or each.name == LOGIN]
    return ContractReport(
        contract=contract.version,
        requests=watching.sent - questions.not_recorded,
        findings=findings,
        assumptions=standings(
            contract,
            confirmed=comparison.confirmed,
            contradicted=comparison.contradicted,
            reachable=set(_below(contract, [each.pointer for each in asked])),
        ),
        asked=tuple(
            _asked(each.name, watching.exchanges, comparison) for each in asked if _was_asked(each.name, watching)
        ),
        remarks=tuple(comparison.remarks),
        unanswered=tuple(questions.unanswered),
        skipped=tuple(questions.skipped),
        complete=not questions.cut_short and not questions.unanswered,
    )


def _was_asked(operation: str, watching: Watching) -> bool:
    return any(each.operation.name == operation for each in watching.exchanges)


def _asked(operation: str, exchanges: Sequence[Exchange], comparison: Comparison) -> Asked:
    own = [each for each in exchanges if each.operation.name == operation]
    return Asked(
        operation=operation,
        statuses=dict(sorted(Counter(each.status for each in own).items())),
        content_types=tuple(sorted({each.content_type for each in own})),
        headers=tuple(sorted({name for each in own for name in each.headers})),
        shapes=tuple(
            FieldShape(where=where, forms=dict(sorted(forms.items())))
            for (of, where), forms in comparison.shapes.items()
            if of == operation
        ),
    )


def _below(contract: Contract, pointers: Iterable[Pointer]) -> Iterable[Pointer]:
    """Everything in the contract that these lead to."""
    left, seen = [*pointers], set[Pointer]()
    while left:
        named = left.pop()
        pointer, node = contract.at(named)
        yield named
        if pointer in seen:
            continue
        seen.add(pointer)
        yield pointer
        left += _children(pointer, node)


def _children(pointer: Pointer, node: Any) -> list[Pointer]:
    found: list[Pointer] = []
    for key, item in node.items():
        here = (*pointer, key)
        if isinstance(item, dict):
            found.append(here)
        elif isinstance(item, list):
            items = cast("list[object]", item)
            found += [(*here, index) for index, each in enumerate(items) if isinstance(each, dict)]
    return found
