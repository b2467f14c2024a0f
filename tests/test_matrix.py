"""Every operation, and every fault: what the caller gets, how often it is sent, and how often it takes effect.

What must happen is stated here, by what repeating the operation means and by what the client gets to see, and in words
of its own: nothing is taken from the package that says what to do. How often something took effect is the sandbox's
word, not the client's.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from importlib.util import find_spec
from itertools import product

import pytest
from attrs import evolve, frozen
from matrix import ATTEMPTS, ROWS, TRANSPORTS, TROUBLES, Back, Kind, Observation, Row, Trouble, observed
from operations import DOCUMENT, nodes

from nudgescribe_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DeadlineExceededError,
    MissingFieldsError,
    NotFoundError,
    NudgescribeError,
    OutcomeUnknownError,
    PayloadTooLargeError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitedError,
    RequestNotSentError,
    ResponseDecodeError,
    ServerError,
    ServerOutcomeUnknownError,
    UnprocessableEntityError,
)
from nudgescribe_async.sandbox import SandboxFault
from nudgescribe_async.testing import ProxyFault

# --- what must happen ------------------------------------------------------------------------------------------------


class Verdict(Enum):
    """What the client does about it."""

    CONTENT = auto()
    """Nothing is wrong."""

    AGAIN = auto()
    """It sends again, until it succeeds or the attempts are used up."""

    RENEWED = auto()
    """It sends again once, with another token."""

    STOP = auto()
    """It sends nothing more."""


EVERYBODY = ("safe", "idempotent", "unsafe")
REPEATABLE = ("safe", "idempotent")
VERDICTS: Mapping[tuple[Back, str], Verdict] = {
    **{(Back.ANSWER, kind): Verdict.CONTENT for kind in EVERYBODY},
    # The first time had no effect, so a second one harms nobody.
    **{(Back.NO_CONNECTION, kind): Verdict.AGAIN for kind in EVERYBODY},
    **{(Back.BUSY, kind): Verdict.AGAIN for kind in EVERYBODY},
    **{(Back.REFUSED_TOKEN, kind): Verdict.RENEWED for kind in EVERYBODY},
    # It may have had.
    **{(Back.LOST, kind): Verdict.AGAIN for kind in REPEATABLE},
    (Back.LOST, "unsafe"): Verdict.STOP,
    **{(Back.UNREADABLE, kind): Verdict.AGAIN for kind in REPEATABLE},
    (Back.UNREADABLE, "unsafe"): Verdict.STOP,
    **{(Back.FAILED, kind): Verdict.AGAIN for kind in REPEATABLE},
    (Back.FAILED, "unsafe"): Verdict.STOP,
    # A second time would end as the first.
    **{(Back.FINAL, kind): Verdict.STOP for kind in EVERYBODY},
    **{(Back.NONSENSE, kind): Verdict.STOP for kind in EVERYBODY},
    **{(Back.TOO_LATE, kind): Verdict.STOP for kind in EVERYBODY},
}
ERRORS: Mapping[Back, type[NudgescribeError]] = {
    Back.NO_CONNECTION: RequestNotSentError,
    Back.LOST: OutcomeUnknownError,
    Back.UNREADABLE: ResponseDecodeError,
    Back.NONSENSE: ResponseDecodeError,
    Back.TOO_LATE: DeadlineExceededError,
}
STATUSES: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: MissingFieldsError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: APIStatusError,
    409: ConflictError,
    413: PayloadTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitedError,
    500: ServerError,
    502: ServerError,
    503: ServerError,
    504: ServerError,
}
# After these nobody can tell whether something that changes something has done so.
OPEN = {Back.LOST, Back.FAILED, Back.UNREADABLE, Back.NONSENSE, Back.TOO_LATE}
# Twice is the same as once, and still the sandbox finds nothing to delete the second time, and says 400.
GONE_THE_SECOND_TIME = {"customer_groups.delete", "profile_fields.delete"}

LOGIN, RENEWAL = "auth.authenticate", "auth.reauthenticate"


@frozen(kw_only=True)
class Expected:
    """What must have happened in a cell."""

    error: type[NudgescribeError] | None = None
    sent: Counter[str]
    effects: Counter[str]
    operation: str = ""
    """The operation that the error names."""
    attempts: int = 0
    """Of the error."""
    status: int | None = None
    may_have_taken_effect: bool = False
    used_up: bool = False
    """Whether the error came after the last of the attempts."""


def expected(row: Row, trouble: Trouble, *, forever: bool) -> Expected:
    trouble = trouble.seen_by(row)
    if row.operation == RENEWAL:
        return renewing(row, trouble, forever=forever)
    if row.operation == LOGIN:
        return logging_in(row, trouble, forever=forever)
    if row.kind is Kind.LOGIN:
        return after_login(row, trouble, forever=forever)
    if row.kind is Kind.RENEWAL:
        return after_renewal(row, trouble, forever=forever)
    return plain(row, trouble, forever=forever)


def plain(row: Row, trouble: Trouble, *, forever: bool) -> Expected:
    """The fault befalls the operation itself."""
    changes = row.retry != "safe"
    verdict = VERDICTS[trouble.back, row.retry]
    answered = verdict is Verdict.CONTENT or (verdict is not Verdict.STOP and not forever)
    failed = {
        Verdict.CONTENT: 0,
        Verdict.STOP: 1,
        Verdict.AGAIN: ATTEMPTS if forever else 1,
        Verdict.RENEWED: 2 if forever else 1,
    }[verdict]
    sent = Counter({row.operation: failed + answered})
    effects = Counter({row.operation: changes * (failed * trouble.done + answered)})
    if verdict is Verdict.RENEWED:
        # However often the token is refused, it is renewed once; with the password only if need be.
        sent[RENEWAL] = 1
        effects[RENEWAL] = 1
        if trouble.tokens == "all":
            sent[LOGIN] = 1
            effects[RENEWAL] = 0
    if answered:
        result = Expected(sent=sent, effects=effects)
    else:
        error = STATUSES[trouble.status] if trouble.back not in ERRORS else ERRORS[trouble.back]
        if trouble.back is Back.FAILED and row.retry == "unsafe":
            error = ServerOutcomeUnknownError
        result = Expected(
            error=error,
            sent=sent,
            effects=effects,
            operation=row.operation,
            attempts=failed,
            status=trouble.status if trouble.back not in ERRORS else None,
            may_have_taken_effect=changes and trouble.back in OPEN,
            used_up=verdict is Verdict.AGAIN,
        )
    if row.operation in GONE_THE_SECOND_TIME and verdict is Verdict.AGAIN and trouble.done:
        result = evolve(result, effects=Counter({row.operation: 1}))
        # Of an answer that breaks off in its body, the status is enough for a refusal.
        if answered or trouble.in_body:
            result = evolve(
                result,
                error=BadRequestError,
                sent=Counter({row.operation: 2}),
                operation=row.operation,
                attempts=2,
                status=400,
                may_have_taken_effect=True,
                used_up=False,
            )
    return result


def logging_in(row: Row, trouble: Trouble, *, forever: bool) -> Expected:
    """As for any read, but that what is final is about the credentials, or as good as no token."""
    result = plain(row, trouble, forever=forever)
    if trouble.back is Back.FINAL:
        return evolve(result, error=AuthenticationError)
    if result.error is ResponseDecodeError:
        return evolve(result, error=AuthenticationError, used_up=False)
    return result


def renewing(row: Row, trouble: Trouble, *, forever: bool) -> Expected:
    """As for anything unsafe, but that the credentials help where the renewal does not: only without a network they do not."""
    if trouble.back is Back.REFUSED_TOKEN:
        # It does not matter what happens to the access token.
        refused = trouble.tokens == "all" or trouble.name.startswith("refuse-")
        return Expected(sent=Counter({RENEWAL: 1, LOGIN: int(refused)}), effects=Counter({RENEWAL: int(not refused)}))
    result = plain(row, trouble, forever=forever)
    if result.error is None:
        return result
    sent = result.sent + Counter({LOGIN: 1})
    if trouble.back is Back.NO_CONNECTION:
        sent[LOGIN] = ATTEMPTS
        return evolve(result, sent=sent, operation=LOGIN)
    return Expected(sent=sent, effects=result.effects)


def after_login(row: Row, trouble: Trouble, *, forever: bool) -> Expected:
    """The fault befalls the login before the call, which must never look as if it had been sent itself."""
    login = logging_in(evolve(row, operation=LOGIN, retry="safe"), trouble, forever=forever)
    if login.error is None:
        return Expected(
            sent=login.sent + Counter({row.operation: 1}),
            effects=Counter({row.operation: int(row.retry != "safe")}),
        )
    match trouble.back:
        case Back.NO_CONNECTION | Back.LOST:
            return evolve(login, error=RequestNotSentError, operation=row.operation, attempts=0, used_up=False)
        case Back.TOO_LATE:
            return evolve(login, operation=row.operation, attempts=0)
        case _:
            return login


def after_renewal(row: Row, trouble: Trouble, *, forever: bool) -> Expected:
    """The call is refused, and the fault befalls the renewal: the credentials help, and the call is sent again."""
    renewal = renewing(
        evolve(row, operation=RENEWAL, retry="unsafe", look="auth.authenticate"), trouble, forever=forever
    )
    if trouble.back is Back.TOO_LATE:
        # The time of the call is up while it waits for the token, and the refused request had no effect.
        return Expected(
            error=DeadlineExceededError,
            sent=Counter({row.operation: 1, RENEWAL: 1}),
            effects=renewal.effects,
            operation=row.operation,
            attempts=1,
        )
    return Expected(
        sent=renewal.sent + Counter({row.operation: 2}),
        effects=renewal.effects + Counter({row.operation: int(row.retry != "safe")}),
    )


# --- the matrix ------------------------------------------------------------------------------------------------------


THOROUGH = {
    "customers.list", "messages.fetch(csv)", "customer_groups.delete", "profile_fields.update", "auth.authenticate",
    "auth.reauthenticate", "customer_groups.create(login)", "customer_groups.list(renewal)",
}  # fmt: skip
"""Where a fault befalls every attempt, too, as for all that is unsafe; one of each kind shows it."""


WHOLE = "NUDGESCRIBE_TEST_MATRIX" in os.environ
"""Whether the other transports have all rows, too (``nox -s matrix``); else those that are thorough, which are of each kind."""


def cells() -> Iterator[object]:
    where = {
        transport: pytest.mark.skipif(find_spec(transport) is None, reason=f"{transport} is not installed")
        for transport in TRANSPORTS
    }
    for transport, row, trouble in product(TRANSPORTS, ROWS, TROUBLES):
        thorough = row.retry == "unsafe" or row.name in THOROUGH
        if not trouble.befalls(row) or not (transport == "aiohttp" or thorough or WHOLE):
            continue
        # All of it is run once; in debug mode, which is slower, what is thorough is enough.
        quick = thorough and transport == "aiohttp"
        marks = [where[transport]] if quick else [where[transport], pytest.mark.slow]
        # Where a second request is never sent, it does not matter what would become of it.
        once_is_enough = trouble.back in {Back.ANSWER, Back.FINAL, Back.NONSENSE, Back.TOO_LATE}
        for forever in (False,) if once_is_enough or not thorough else (False, True):
            name = f"{row.name}-{trouble.name}-{'always' if forever else 'once'}-{transport}"
            yield pytest.param(row, trouble, forever, transport, id=name, marks=marks)


@pytest.mark.parametrize(("row", "trouble", "forever", "transport"), [*cells()])
async def test_what_comes_of_a_call_in_trouble(row: Row, trouble: Trouble, forever: bool, transport: str) -> None:
    seen = await observed(row, trouble, forever=forever, transport=transport)
    wanted = expected(row, trouble, forever=forever)

    assert type(seen.error) is (type(None) if wanted.error is None else wanted.error), seen.error
    assert +seen.sent == +wanted.sent
    assert +seen.effects == +wanted.effects
    assert +seen.effects == +seen.logged_effects
    if row.retry == "unsafe":
        assert seen.effects[row.operation] <= 1  # whatever the table says
    if seen.error is None:
        assert isinstance(seen.answer, row.answer)
    else:
        assert seen.answer is None
        judge_error(seen.error, row, wanted)
    judge_the_way(seen, trouble)


def judge_error(error: NudgescribeError, row: Row, wanted: Expected) -> None:
    assert error.operation == wanted.operation
    assert f"operation {wanted.operation}" in str(error)
    assert [attempt.number for attempt in error.attempts] == [*range(1, wanted.attempts + 1)]
    assert getattr(error, "status", None) == wanted.status
    assert error.may_have_taken_effect is wanted.may_have_taken_effect
    assert error.look == (row.look if wanted.may_have_taken_effect else None)
    if wanted.may_have_taken_effect:
        assert str(row.look) in str(error)
    assert (error.not_repeated is not None) is wanted.used_up
    if wanted.used_up:
        assert f"not tried again: that was attempt {ATTEMPTS} of {ATTEMPTS}" in str(error)
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def judge_the_way(seen: Observation, trouble: Trouble) -> None:
    if trouble.fault is not None:
        assert +seen.arrived == +seen.sent
    assert all(wait >= trouble.retry_after for wait in seen.waits)
    # One connection is kept for the next call, and it ends with the client.
    assert seen.connections_too_many == 0
    assert seen.connections_at_the_end == 0


# --- the matrix is whole ---------------------------------------------------------------------------------------------


def test_the_rows_are_the_operations_of_the_contract_and_say_the_same_of_them() -> None:
    contract = {node["operationId"]: (node["x-retry"], node.get("x-look")) for _, _, node in nodes()}
    assert len(contract) == 22
    assert {row.operation: (row.retry, row.look) for row in ROWS} == contract
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert DOCUMENT["openapi"].startswith("3.1")


def test_the_troubles_are_all_the_faults_there_are() -> None:
    faults = {type(trouble.fault()) for trouble in TROUBLES if trouble.fault is not None}
    kinds = {*SandboxFault.__subclasses__(), *ProxyFault.__subclasses__()}
    # Pages that move are no failure of a call; the tests of iterators have them.
    assert {kind.__name__ for kind in kinds - faults} == {"ShiftPages"}
    assert len({trouble.name for trouble in TROUBLES}) == len(TROUBLES)
