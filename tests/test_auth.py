"""Tokens: one login for everybody, one renewal, no storms, and recovery."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from helpers import DAY, ONCE, START, Service, bearer, client, hanging, raising, settle, watch

from nudgescribe_async import (
    AuthenticationError,
    CallOptions,
    ClientClosedError,
    ConfigurationError,
    Credentials,
    MemoryTokenStore,
    MissingFieldsError,
    Nudgescribe,
    NudgescribeError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Request,
    RequestNotSentError,
    Response,
    ServerError,
    StoredTokens,
    Timeout,
)
from nudgescribe_async.events import TokenRenewalFailed, TokenRenewed
from nudgescribe_async.sandbox import Sandbox
from nudgescribe_async.testing import VirtualClock, answer

# --- against the sandbox ---------------------------------------------------------------------------


async def test_50_concurrent_first_calls_share_one_login(sandbox: Sandbox) -> None:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for _ in range(50)))
    assert sandbox.count("auth.authenticate") == 1
    assert sandbox.count("customer_groups.list", 200) == 50


@pytest.mark.parametrize("edition", [1, 3])
@pytest.mark.parametrize("refresh_tokens", [False, True], ids=["refresh", "login"])
async def test_50_concurrent_refusals_cause_one_renewal(edition: int, refresh_tokens: bool) -> None:
    async with (
        Sandbox(edition=edition, latency=0.01) as sandbox,
        Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns,
    ):
        await ns.customer_groups.list(sandbox.workspace_id)
        for again in (1, 2, 3):  # and not just the first time
            await sandbox.revoke_tokens(refresh_tokens=refresh_tokens)
            results = await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for _ in range(50)))
            assert results == [[]] * 50
            assert sandbox.count("auth.reauthenticate") == again
            assert sandbox.count("auth.authenticate") == (1 + again if refresh_tokens else 1)
    bad = 401 if edition == 1 else 403
    assert 3 <= sandbox.count("customer_groups.list", bad) <= 150


@pytest.mark.parametrize("concurrent", [True, False], ids=["concurrent", "sequential"])
async def test_60_missing_fields_are_no_storm_of_logins(sandbox: Sandbox, concurrent: bool) -> None:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        results: list[object] = []
        for size in [60] if concurrent else [1] * 60:
            calls = (ns.profile_fields.list("nowhere") for _ in range(size))
            results += await asyncio.gather(*calls, return_exceptions=True)
        assert len(results) == 60
        assert {type(result) for result in results} == {MissingFieldsError}
        assert sandbox.count("auth.authenticate") + sandbox.count("auth.reauthenticate") <= 3
        before = sandbox.count("auth.reauthenticate")
        assert before <= 2
        with pytest.raises(MissingFieldsError):
            await ns.profile_fields.list("nowhere")
        assert sandbox.count("auth.reauthenticate") == before, "the next one must not renew at all"
        await sandbox.revoke_tokens()  # 403 in this edition: no matter what 401 was found to mean
        assert await ns.customer_groups.list(sandbox.workspace_id) == []


async def test_missing_fields_among_calls_that_succeed(sandbox: Sandbox) -> None:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        for _ in range(3):
            calls = [ns.profile_fields.list("nowhere" if number % 2 else sandbox.workspace_id) for number in range(40)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [list, MissingFieldsError] * 20
    assert sandbox.count("auth.authenticate") == 1
    assert sandbox.count("auth.reauthenticate") <= 2


async def test_the_first_edition_answers_a_missing_field_with_400(sandbox: Sandbox) -> None:
    async with Sandbox(edition=1) as first, Nudgescribe(first.credentials, base_url=first.url) as ns:
        with pytest.raises(NudgescribeError, match="Invalid Workspace") as caught:
            await ns.profile_fields.list("nowhere")
        assert getattr(caught.value, "status", None) == 400
        assert first.count("auth.reauthenticate") == 0


async def test_wrong_password_is_one_login_and_no_more_until_the_pause_is_over(
    sandbox: Sandbox, clock: VirtualClock
) -> None:
    good = sandbox.credentials
    wrong = Credentials(api_key=good.api_key, email=good.email, password="wrong")
    async with Nudgescribe(wrong, base_url=sandbox.url, clock=clock) as ns:
        for logins, pause in ((1, 9.9), (2, 19.9), (3, 39.9)):
            results = await asyncio.gather(
                *(ns.customer_groups.list(sandbox.workspace_id) for _ in range(20)), return_exceptions=True
            )
            assert {type(result) for result in results} == {AuthenticationError}
            assert sandbox.count("auth.authenticate") == logins
            clock.now += pause
            with pytest.raises(AuthenticationError, match=r"HTTP 403.*password") as caught:
                await ns.customer_groups.list(sandbox.workspace_id)
            assert caught.value.status == 403
            assert caught.value.operation == "auth.authenticate"
            assert caught.value.request_id is not None
            assert sandbox.count("auth.authenticate") == logins
            clock.now += 0.2
        with pytest.raises(AuthenticationError):
            await ns.auth.authenticate()  # by hand is at once
        assert sandbox.count("auth.authenticate") == 4
    assert sandbox.count("customer_groups.list") == 0


async def test_logging_in_by_hand_is_shared_and_goes_on_after_a_renewal(sandbox: Sandbox) -> None:
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
        await asyncio.gather(*(ns.auth.authenticate() for _ in range(20)))
        assert sandbox.count("auth.authenticate") == 1
        await asyncio.gather(*(ns.auth.reauthenticate() for _ in range(20)))
        assert (sandbox.count("auth.authenticate"), sandbox.count("auth.reauthenticate")) == (1, 1)
        await asyncio.gather(ns.auth.reauthenticate(), ns.auth.authenticate(), ns.auth.authenticate())
        assert (sandbox.count("auth.authenticate"), sandbox.count("auth.reauthenticate")) == (2, 2)
        assert await ns.customer_groups.list(sandbox.workspace_id) == []


# --- refusals, scripted ----------------------------------------------------------------------------


async def test_a_refresh_token_that_was_used_already_costs_one_login_and_no_loop(clock: VirtualClock) -> None:
    service = Service()
    service.on_call = service.authorised
    async with client(service, clock=clock) as ns:
        await ns.customer_groups.list("w")
        service.good.clear()
        service.refresh_tokens.clear()
        await asyncio.gather(*(ns.customer_groups.list("w") for _ in range(10)))
    assert (service.logins, service.renewals) == (2, 1)


async def test_a_cancelled_leader_fails_nobody_else() -> None:
    service, started, go = Service(), asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        started.set()
        await go.wait()
        return service.tokens()

    service.on_login = slow
    async with client(service) as ns:
        tasks = [asyncio.create_task(ns.customer_groups.list("w")) for _ in range(10)]
        await started.wait()
        for leader in tasks[:3]:
            leader.cancel()
        await settle()
        assert all(leader.cancelled() for leader in tasks[:3])
        go.set()
        assert await asyncio.gather(*tasks[3:]) == [[]] * 7
    assert service.logins == 1


async def test_everybody_cancelled_and_the_login_still_serves_the_next() -> None:
    service, started, go = Service(), asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        started.set()
        await go.wait()
        return service.tokens()

    service.on_login = slow
    async with client(service) as ns:
        only = asyncio.create_task(ns.customer_groups.list("w"))
        await started.wait()
        only.cancel()
        await settle()
        go.set()
        await ns.customer_groups.list("w")
    assert service.logins == 1


async def test_a_403_that_survives_is_permission_denied_without_a_storm_and_revocation_heals_later(
    clock: VirtualClock,
) -> None:
    service = Service(expires_in=10 * DAY)
    service.on_call = lambda _: answer(403, {"message": "not yours"})
    async with client(service, clock=clock) as ns:
        for bought, pause in ((2, 60), (3, 120), (4, 240)):
            for _ in range(20):
                with pytest.raises(PermissionDeniedError, match="not yours"):
                    await ns.customer_groups.list("w")
            assert service.bought == bought
            clock.now += pause - 1
            with pytest.raises(PermissionDeniedError):
                await ns.customer_groups.list("w")
            assert service.bought == bought
            clock.now += 2
        service.on_call = service.authorised
        service.good.clear()
        assert await ns.customer_groups.list("w") == []
        service.good.clear()  # what was found to be about the token is healed at once from then on
        assert await ns.customer_groups.list("w") == []
    assert service.bought == 6


async def test_a_forbidden_operation_does_not_keep_the_others_from_recovering() -> None:
    service = Service(expires_in=10 * DAY)

    def respond(request: Request) -> Response:
        if request.url.endswith("publish"):
            return answer(403, {"message": "not your role"})
        return service.authorised(request)

    service.on_call = respond
    async with client(service) as ns:
        for _ in range(5):
            with pytest.raises(PermissionDeniedError, match="not your role"):
                await ns.messages.publish("c")
        assert service.bought == 2
        service.good.clear()  # and now the token is revoked
        assert await ns.customer_groups.list("w") == []
    assert service.bought == 3


async def test_where_401_was_once_about_the_token_it_is_never_given_up_for_good(clock: VirtualClock) -> None:
    """The first edition: 401 is a bad token, and perhaps a missing permission too."""
    service = Service(expires_in=10 * DAY)
    service.on_call = lambda request: service.authorised(request, 401)
    async with client(service, clock=clock) as ns:
        await ns.customer_groups.list("w")
        service.good.clear()
        await ns.customer_groups.list("w")
        assert service.bought == 2
        service.on_call = lambda _: answer(401, {"message": "not for you"})
        for _ in range(10):
            with pytest.raises(MissingFieldsError, match="not for you"):
                await ns.customer_groups.list("w")
        assert service.bought == 3
        service.on_call = lambda request: service.authorised(request, 401)
        service.good.clear()
        clock.now += 61
        assert await ns.customer_groups.list("w") == []
    assert service.bought == 4


async def test_a_first_refusal_within_the_minute_of_a_renewal_for_another_is_not_renewed_again(
    clock: VirtualClock,
) -> None:
    """The replay is cancelled, so nobody knows whether the new token helped; the next refusal tells."""
    service, replayed = Service(), asyncio.Event()
    calls: list[Request] = []

    async def call(request: Request) -> Response:
        calls.append(request)
        if len(calls) == 2:
            replayed.set()
            await asyncio.Event().wait()
        return answer(401, {"message": "missing"})

    service.on_call = call
    async with client(service, clock=clock) as ns:
        first = asyncio.create_task(ns.customer_groups.list("w"))
        await replayed.wait()
        first.cancel()
        await settle()
        for _ in range(3):
            with pytest.raises(MissingFieldsError):
                await ns.customer_groups.list("w")
    assert service.bought == 2


async def test_a_service_in_trouble_says_nothing_of_the_new_token(clock: VirtualClock) -> None:
    """401, then 503 on the replay, then 401: still a missing field, and from then on none renews."""
    service = Service()
    service.on_call = raising(answer(401, {}), answer(503, {}), answer(401, {"message": "missing"}))
    async with client(service, clock=clock) as ns:
        for _ in range(5):
            with pytest.raises(MissingFieldsError):
                await ns.customer_groups.list("w")
            clock.now += 100
        assert service.bought == 2


async def test_calls_that_waited_for_a_slot_are_sent_with_the_newest_token() -> None:
    service, entered, go = Service(), asyncio.Event(), asyncio.Event()

    async def call(request: Request) -> Response:
        if not go.is_set():
            entered.set()
            await go.wait()
        return service.authorised(request)

    service.on_call = call
    async with client(service, concurrency=1) as ns:
        tasks = [asyncio.create_task(ns.customer_groups.list("w")) for _ in range(10)]
        await entered.wait()
        await settle()
        service.good.clear()
        go.set()
        await asyncio.gather(*tasks)
    refused = [r for r in service.requests if r.url.endswith("/v1/cg") and bearer(r) == "access-MARKED-1"]
    assert len(refused) < 10
    assert service.bought == 2


async def test_a_late_refusal_of_a_token_that_was_replaced_meanwhile_renews_nothing() -> None:
    service, started, go = Service(), asyncio.Event(), asyncio.Event()

    async def call(request: Request) -> Response:
        result = service.authorised(request)
        if request.url.endswith("/all") and not go.is_set():
            started.set()
            await go.wait()
        return result

    service.on_call = call
    async with client(service) as ns:
        await ns.auth.authenticate()
        service.good.clear()
        late = asyncio.create_task(ns.campaigns.list())
        await started.wait()
        await ns.customer_groups.list("w")
        assert service.bought == 2
        go.set()
        assert await late == []
    assert service.bought == 2


async def test_a_body_that_cannot_be_sent_again_is_not_but_the_next_call_has_a_good_token(tmp_path: Any) -> None:
    service = Service()
    receipt = answer(200, {"success": True, "accepted_count": 1, "rejected_count": 0, "errors": [], "message": ""})
    service.on_call = lambda request: receipt if bearer(request) in service.good else answer(403, {"message": "no"})
    path = tmp_path / "c.csv"
    path.write_bytes(b"a\n1\n")
    async with client(service) as ns:
        await ns.auth.authenticate()
        service.good.clear()
        with path.open("rb") as file, pytest.raises(PermissionDeniedError):
            await ns.customers.check("w", "g", file=file)
        with path.open("rb") as file:
            await ns.customers.check("w", "g", file=file)
    assert service.bought == 2


# --- what becomes of a renewal that fails ----------------------------------------------------------


@pytest.mark.parametrize("failure", [OutcomeUnknownError("gone"), RequestNotSentError("nobody there")])
async def test_a_login_that_cannot_be_sent_leaves_the_call_unsent(failure: NudgescribeError) -> None:
    service = Service()
    service.on_login = raising(failure)
    async with client(service, retry=ONCE) as ns:
        results = await asyncio.gather(*(ns.reruns.initiate("c", "g") for _ in range(5)), return_exceptions=True)
    for result in results:
        assert isinstance(result, RequestNotSentError)
        assert result.operation == "reruns.initiate"
        assert "No token could be had, so nothing was sent" in str(result)
        assert type(result.__cause__) is type(failure)
        assert result.attempts == ()
    assert len({id(result) for result in results}) == 5
    assert service.logins == 1


async def test_a_login_that_takes_too_long_leaves_the_call_unsent() -> None:
    service = Service()
    service.on_login = hanging()
    async with client(service, timeout=Timeout(total=0.02)) as ns:
        with pytest.raises(RequestNotSentError, match="No token could be had"):
            await ns.reruns.initiate("c", "g", options=CallOptions(timeout=60))


async def test_a_call_that_was_refused_and_for_which_there_is_no_other_token_does_not_say_that_nothing_was_sent() -> (
    None
):
    service = Service()
    async with client(service, retry=ONCE) as ns:
        await ns.customer_groups.list("w")
        service.on_call = raising(answer(403, {}))
        service.on_renewal = service.on_login = raising(RequestNotSentError("nobody there"))
        with pytest.raises(RequestNotSentError, match="the refused call was not sent again: nobody there") as caught:
            await ns.reruns.initiate("c", "g")
    assert [attempt.status for attempt in caught.value.attempts] == [403]


async def test_a_service_in_trouble_at_login_is_named_and_asked_again_by_the_next_call(clock: VirtualClock) -> None:
    service = Service()
    service.on_login = lambda _: answer(503, {"message": "down"})
    async with client(service, clock=clock, retry=ONCE) as ns:
        for logins in (1, 2):
            with pytest.raises(ServerError, match="down") as caught:
                await ns.customer_groups.list("w")
            assert caught.value.operation == "auth.authenticate"
            assert service.logins == logins


@pytest.mark.parametrize(
    ("login", "text"),
    [
        (answer(200, {"success": False, "message": "no such user"}), "no such user"),
        (answer(200, {"tokens": []}), "holds no token that can be read"),
        (answer(body=b"<html>hello", headers={"Content-Type": "text/html"}), "holds no token that can be read"),
        (answer(200, {"access_token": "two words"}), "no header can hold"),
        (answer(200, {"access_token": ""}), "no header can hold"),
        (answer(200, {"access_token": "line\nbreak"}), "no header can hold"),
        (answer(302, {}, headers={"Location": "https://evil.example/"}), "Check base_url"),
        (answer(404, {}), "Check base_url"),
        (answer(400, {"message": "who"}), "Check the API key"),
    ],
)
async def test_a_login_without_a_usable_token_is_an_authentication_error(
    login: Response, text: str, clock: VirtualClock
) -> None:
    service = Service()
    service.on_login = lambda _: login
    async with client(service, clock=clock) as ns:
        with pytest.raises(AuthenticationError, match=text):
            await ns.customer_groups.list("w")
    unreadable = login.headers["Content-Type"] == "text/html"
    assert len(service.requests) == (4 if unreadable else 1)


async def test_a_refresh_that_fails_in_any_way_is_settled_by_a_login(clock: VirtualClock) -> None:
    failures: list[Exception | Response] = [
        OutcomeUnknownError("lost"),
        answer(500, {}),
        answer(200, {"odd": 1}),
        answer(200, {"access_token": "bad token"}),
        answer(302, {}, headers={"Location": "https://evil.example/"}),
    ]
    service = Service()
    async with client(service, clock=clock) as ns:
        events = watch(ns)
        await ns.customer_groups.list("w")
        for logins, failure in enumerate(failures, start=2):
            service.on_renewal = raising(failure)
            clock.now += 1_000
            await ns.customer_groups.list("w")
            assert service.logins == logins
    assert [e.source for e in events if isinstance(e, TokenRenewalFailed)] == ["refresh"] * 5


async def test_a_refresh_token_that_has_ended_is_not_tried(clock: VirtualClock) -> None:
    service = Service()
    async with client(service, clock=clock) as ns:
        await ns.customer_groups.list("w")
        clock.now += 16 * DAY
        await ns.customer_groups.list("w")
    assert (service.logins, service.renewals) == (2, 0)


async def test_an_answer_without_a_refresh_token_keeps_the_old_one_or_has_none(clock: VirtualClock) -> None:
    service = Service(refresh_token=None)
    service.on_login = lambda _: answer(200, {"access_token": "a1", "refresh_token": "r1", "expires_in": 1_000})
    service.on_renewal = lambda _: answer(200, {"access_token": "a2", "expires_in": 1_000})
    async with client(service, clock=clock) as ns:
        for _ in range(3):
            await ns.customer_groups.list("w")
            clock.now += 1_000
        tokens = await ns.auth.reauthenticate()
        assert tokens.refresh_token == "r1"
    assert (service.logins, service.renewals) == (1, 3)
    service.on_login = lambda _: answer(200, {"access_token": "a1", "expires_in": 1_000})
    async with client(service, clock=clock) as ns:
        for _ in range(2):
            await ns.customer_groups.list("w")
            clock.now += 1_000
    assert (service.logins, service.renewals) == (3, 3)


# --- when ------------------------------------------------------------------------------------------


def jwt(**claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl"


async def lifetime(clock: VirtualClock, token: str, **fields: object) -> float:
    service = Service()
    service.on_login = lambda _: answer(200, {"access_token": token, **fields})
    async with client(service, clock=clock) as ns:
        events = watch(ns)
        await ns.auth.authenticate()
    (renewed,) = [event for event in events if isinstance(event, TokenRenewed)]
    return renewed.expires_after


@pytest.mark.parametrize("wrong_by", [0.0, -3e8, 3e8])
@pytest.mark.parametrize(
    ("token", "fields", "expected"),
    [
        ("opaque", {"expires_in": 77}, 77),
        ("opaque", {}, 14 * DAY),
        ("opaque", {"expires_in": 0}, 14 * DAY),
        ("opaque", {"expires_in": -5}, 14 * DAY),
        ("opaque", {"expires_in": None}, 14 * DAY),
        ("opaque", {"expires_in": 2**60}, 2**60),
        (jwt(iat=START, exp=START + 90), {}, 90),
        (jwt(iat=START, exp=START + 90), {"expires_in": 77}, 77),
        (jwt(iat=START, exp=START + 90), {"expires_in": 0}, 90),
        (jwt(iat=START, exp=START - 90), {}, 14 * DAY),
        (jwt(iat=START), {}, 14 * DAY),
        (jwt(iat=START, exp="soon"), {}, 14 * DAY),
        (jwt(iat=START, exp=None), {}, 14 * DAY),
        (jwt(iat=None, exp=START + 90), {}, 14 * DAY),
        (jwt(iat=START, exp=10**400), {}, 14 * DAY),
        (jwt(iat=START, exp=float("inf")), {}, 14 * DAY),
        (jwt(iat=START, exp=float("nan")), {}, 14 * DAY),
        (jwt(iat=START, exp=[]), {}, 14 * DAY),
        ("a.b", {}, 14 * DAY),
        ("a.!!!.c", {}, 14 * DAY),
        ("a.bm8.c", {}, 14 * DAY),
        (f"a.{base64.urlsafe_b64encode(b'[1]').decode()}.c", {}, 14 * DAY),
        (f"a.{base64.urlsafe_b64encode(b'[' * 100_000).decode()}.c", {}, 14 * DAY),
        (f"a.{base64.urlsafe_b64encode(bytes([255, 254])).decode()}.c", {}, 14 * DAY),
    ],
)
async def test_how_long_a_token_is_trusted(
    clock: VirtualClock, wrong_by: float, token: str, fields: dict[str, Any], expected: float
) -> None:
    clock.wrong_by = wrong_by
    assert await lifetime(clock, token, **fields) == pytest.approx(expected)


async def test_a_jwt_without_iat_counts_from_now(clock: VirtualClock) -> None:
    assert await lifetime(clock, jwt(exp=START + 90)) == pytest.approx(90)


@pytest.mark.parametrize("announce", [True, False], ids=["expires_in", "exp"])
async def test_the_sandbox_s_tokens_are_renewed_before_they_expire(clock: VirtualClock, announce: bool) -> None:
    async with (
        Sandbox(access_token_lifetime=1_000, announce_expiry=announce) as sandbox,
        Nudgescribe(sandbox.credentials, base_url=sandbox.url, clock=clock) as ns,
    ):
        await ns.customer_groups.list(sandbox.workspace_id)
        clock.now += 700
        await ns.customer_groups.list(sandbox.workspace_id)
        assert sandbox.count("auth.reauthenticate") == 0
        clock.now += 200
        await ns.customer_groups.list(sandbox.workspace_id)  # starts a renewal behind it
        await ns.auth.reauthenticate()
        assert sandbox.count("auth.reauthenticate") == 1
        clock.now += 990
        await ns.customer_groups.list(sandbox.workspace_id)
        assert sandbox.count("auth.reauthenticate") == 2
    assert sandbox.count("auth.authenticate") == 1
    assert sandbox.count("customer_groups.list", 403) == 0


async def test_an_ageing_token_is_used_while_one_renewal_runs_behind_it(clock: VirtualClock) -> None:
    service, go = Service(), asyncio.Event()
    service.on_call = lambda _: answer(200, [])

    async def slow(request: Request) -> Response:
        await go.wait()
        return service.renew(request)

    service.on_renewal = slow
    async with client(service, clock=clock) as ns:
        await ns.customer_groups.list("w")
        clock.now += 840  # the last fifth begins between 800 and 850
        clock.now += 20
        await asyncio.gather(*(ns.customer_groups.list("w") for _ in range(30)))
        assert {bearer(r) for r in service.requests if r.url.endswith("/cg")} == {"access-MARKED-1"}
        assert service.renewals == 1
        go.set()
        await settle()
        await ns.customer_groups.list("w")
        assert bearer(service.requests[-1]) == "access-MARKED-2"
    assert service.bought == 2


async def test_a_failing_background_renewal_harms_no_call_and_backs_off(clock: VirtualClock) -> None:
    service = Service(expires_in=10_000)
    async with client(service, clock=clock, retry=ONCE) as ns:
        await ns.customer_groups.list("w")
        service.on_login = service.on_renewal = raising(RequestNotSentError("down"))
        clock.now += 8_600
        for renewals, pause in ((1, 5), (2, 10), (3, 20), (4, 40)):
            for _ in range(5):
                assert await ns.customer_groups.list("w") == []
                await settle()
            assert service.renewals == renewals
            clock.now += pause - 0.1
            await ns.customer_groups.list("w")
            await settle()
            assert service.renewals == renewals
            clock.now += 0.2
        service.on_login, service.on_renewal = (lambda _: service.tokens()), service.renew
        await ns.customer_groups.list("w")
        await settle()
        await ns.customer_groups.list("w")
        assert bearer(service.requests[-1]) in service.good


async def test_a_background_renewal_does_not_send_refused_credentials_again_in_the_pause(clock: VirtualClock) -> None:
    service = Service(expires_in=10_000)
    async with client(service, clock=clock, retry=ONCE) as ns:
        await ns.customer_groups.list("w")
        service.on_login = service.on_renewal = lambda _: answer(403, {"message": "locked"})
        clock.now += 8_600
        await ns.customer_groups.list("w")
        await settle()
        assert service.logins == 2
        clock.now += 7  # the pause of the renewal is over (5 s), that of the credentials is not (10 s)
        await ns.customer_groups.list("w")
        await settle()
        assert service.logins == 2
        clock.now += 4
        await ns.customer_groups.list("w")
        await settle()
        assert service.logins == 3


async def test_with_an_expired_token_callers_wait(clock: VirtualClock) -> None:
    service = Service()
    service.on_call = service.authorised
    async with client(service, clock=clock) as ns:
        await ns.customer_groups.list("w")
        clock.now += 985  # within the margin before the end
        service.good.clear()
        await asyncio.gather(*(ns.customer_groups.list("w") for _ in range(30)))
    assert (service.logins, service.renewals) == (1, 1)
    assert sum(r.url.endswith("/cg") for r in service.requests) == 31


async def test_a_wall_clock_that_jumps_changes_nothing(clock: VirtualClock) -> None:
    service = Service()
    async with client(service, clock=clock) as ns:
        for jump in (-1e9, 2e9, -5e8):
            await ns.customer_groups.list("w")
            clock.wrong_by += jump
        await ns.customer_groups.list("w")
    assert service.bought == 1


# --- stores ----------------------------------------------------------------------------------------


async def test_clients_that_share_a_memory_store_share_tokens(sandbox: Sandbox, clock: VirtualClock) -> None:
    store = MemoryTokenStore()
    options = {"base_url": sandbox.url, "token_store": store, "clock": clock}
    async with (
        Nudgescribe(sandbox.credentials, **options) as one,  # type: ignore[arg-type]
        Nudgescribe(sandbox.credentials, **options) as two,  # type: ignore[arg-type]
    ):
        await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for ns in (one, two) for _ in range(10)))
        assert sandbox.count("auth.authenticate") == 1
        await sandbox.revoke_tokens()
        await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for ns in (one, two) for _ in range(10)))
        assert (sandbox.count("auth.authenticate"), sandbox.count("auth.reauthenticate")) == (1, 1)
        clock.now += 14 * DAY
        await asyncio.gather(*(ns.customer_groups.list(sandbox.workspace_id) for ns in (one, two) for _ in range(10)))
        assert (sandbox.count("auth.authenticate"), sandbox.count("auth.reauthenticate")) == (1, 2)
    assert sandbox.count("auth.reauthenticate", 403) == 0


async def test_tokens_of_another_account_or_service_are_not_used(sandbox: Sandbox) -> None:
    store = MemoryTokenStore()
    second = await sandbox.add_account()
    async with Sandbox() as elsewhere:
        for credentials, url in (
            (sandbox.credentials, sandbox.url),
            (second, sandbox.url),
            (sandbox.credentials, f"{sandbox.url}/"),
        ):
            async with Nudgescribe(credentials, base_url=url, token_store=store) as ns:
                assert await ns.customer_groups.list(credentials.workspace_id) == []
        assert sandbox.count("auth.authenticate") == 2
        async with Nudgescribe(sandbox.credentials, base_url=elsewhere.url, token_store=store) as ns:
            with pytest.raises(AuthenticationError):
                await ns.customer_groups.list("w")
        assert elsewhere.count("auth.authenticate") == 1
        assert elsewhere.count("customer_groups.list") == 0


async def test_a_store_that_cannot_be_written_is_told_of_and_costs_no_call() -> None:
    class ReadOnly(MemoryTokenStore):
        async def save(self, fingerprint: str, tokens: StoredTokens) -> None:  # noqa: ARG002
            raise ConfigurationError("the disk is full")

    service = Service()
    async with client(service, token_store=ReadOnly()) as ns:
        events = watch(ns)
        await ns.customer_groups.list("w")
        await ns.customer_groups.list("w")
    assert service.logins == 1
    assert [e.error for e in events if isinstance(e, TokenRenewalFailed)] == ["the disk is full"]


async def test_a_token_refused_by_the_service_is_not_taken_from_the_store_again() -> None:
    store = MemoryTokenStore()
    service = Service()
    service.on_call = service.authorised
    async with client(service, token_store=store) as one, client(service, token_store=store) as two:
        await one.customer_groups.list("w")
        await two.customer_groups.list("w")
        assert service.logins == 1
        service.good.clear()
        await two.customer_groups.list("w")
        await one.customer_groups.list("w")
    assert (service.logins, service.renewals) == (1, 1)


async def test_a_stored_token_that_is_ageing_is_used_and_renewed_behind(clock: VirtualClock) -> None:
    store = MemoryTokenStore()
    service = Service()
    async with client(service, token_store=store, clock=clock) as ns:
        await ns.customer_groups.list("w")
    clock.now += 900
    async with client(service, token_store=store, clock=clock) as ns:
        await ns.customer_groups.list("w")
        await ns.customer_groups.list("w")
        await settle()
        assert (service.logins, service.renewals) == (1, 1)
    clock.now += 2_000
    async with client(service, token_store=store, clock=clock) as ns:
        await ns.customer_groups.list("w")
    assert (service.logins, service.renewals) == (1, 2)


async def test_closing_ends_a_hanging_login_and_who_waits_for_it_by_hand() -> None:
    service, started = Service(), asyncio.Event()
    service.on_login = hanging(started)
    ns = client(service)
    call = asyncio.create_task(ns.customer_groups.list("w"))
    by_hand = asyncio.create_task(ns.auth.authenticate())
    await started.wait()
    await ns.aclose(grace=0)
    with pytest.raises(ClientClosedError, match="closed while the call was waiting for a token"):
        await call
    with pytest.raises(ClientClosedError, match="closed while the call waited for a token"):
        await by_hand


async def test_closing_while_the_store_is_locked_by_somebody_else() -> None:
    store = MemoryTokenStore()
    service = Service()
    ns = client(service, token_store=store)
    async with store.lock():
        by_hand = asyncio.create_task(ns.auth.authenticate())
        await settle()
        await ns.aclose(grace=0)
        with pytest.raises(ClientClosedError):
            await by_hand
    assert service.logins == 0
    with pytest.raises(ClientClosedError):
        await ns.auth.reauthenticate()


# --- credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["api_key", "email", "password"])
@pytest.mark.parametrize("value", ["", "  ", "a\nb", "a\x7f", "\ud800", None, 5, b"bytes"])
def test_wrong_credentials_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Credentials(**({"api_key": "a", "email": "e", "password": "p"} | {name: value}))  # type: ignore[arg-type]


def test_an_api_key_must_fit_a_header() -> None:
    with pytest.raises(ConfigurationError, match=r"api_key.*ASCII"):
        Credentials(api_key="ключ", email="e", password="p")
    assert Credentials(api_key="k", email="é@example.org", password="пароль").password == "пароль"


ENVIRONMENT = {"NUDGESCRIBE_API_KEY": "k", "NUDGESCRIBE_EMAIL": "e", "NUDGESCRIBE_PASSWORD": "p"}


@pytest.mark.parametrize("variable", ENVIRONMENT)
@pytest.mark.parametrize("value", [None, "", " ", "line\n"])
def test_from_env_names_the_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None) -> None:
    for name, good in ENVIRONMENT.items():
        monkeypatch.setenv(name, good)
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    make: Callable[[], object]
    for make in (Credentials.from_env, Nudgescribe.from_env):
        with pytest.raises(ConfigurationError, match=variable) as caught:
            make()
        assert all(name not in str(caught.value) for name in ENVIRONMENT if name != variable)


def test_from_env_with_a_mapping() -> None:
    assert Credentials.from_env(ENVIRONMENT) == Credentials(api_key="k", email="e", password="p")
    with pytest.raises(ConfigurationError, match="NUDGESCRIBE_API_KEY, NUDGESCRIBE_EMAIL, NUDGESCRIBE_PASSWORD"):
        Credentials.from_env({})


def test_credentials_show_and_pickle_nothing() -> None:
    credentials = Credentials(api_key="AAA", email="BBB", password="CCC")
    assert repr(credentials) == "Credentials(api_key=***, email=***, password=***)"
    with pytest.raises(TypeError, match="holds a secret"):
        pickle.dumps(credentials)
    assert Credentials.of(credentials) is credentials
    for wrong in (None, object(), "text"):
        with pytest.raises(ConfigurationError, match="no api_key"):
            Credentials.of(wrong)  # type: ignore[arg-type]


async def test_events_of_a_failed_renewal_hold_no_words_of_the_service(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    service = Service()
    service.on_login = lambda _: answer(403, {"message": "Mr Miller of 12 Elm Street is locked"})
    async with client(service) as ns:
        events = watch(ns)
        with pytest.raises(AuthenticationError, match="Mr Miller"):
            await ns.customer_groups.list("w")
    assert [e.error for e in events if isinstance(e, TokenRenewalFailed)] == [
        "These credentials may not do this (HTTP 403)"
    ]
    assert "Miller" not in caplog.text
