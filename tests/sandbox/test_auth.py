from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import jwt
import pytest

from nudgescribe_async.sandbox import tokens

FOREVER = 14 * 86_400


async def renew(api: Any, token: str) -> Any:
    return await api.send("GET", "/v1/auth", token=token)


async def works(api: Any, token: str) -> bool:
    answer = await api.send("POST", "/v1/campaign/all", json={}, token=token)
    assert answer.status in {200, 403}
    return bool(answer.status == 200)


async def test_a_login_gives_two_jwts_with_the_claims_of_the_reference(api: Any) -> None:
    answer = await api.log_in()

    assert answer.json["expires_in"] == FOREVER
    for name, kind, lifetime in (("access_token", "access", FOREVER), ("refresh_token", "refresh", 15 * 86_400)):
        claims = jwt.decode(answer.json[name], options={"verify_signature": False})
        assert claims["account_id"] == api.sandbox.account_id
        assert claims["kind"] == kind
        assert claims["exp"] - claims["iat"] == pytest.approx(lifetime)
        assert {"user_id", "role_code", "jti"} <= set(claims)


@pytest.mark.parametrize("wrong", ["api_key", "email", "password"])
@pytest.mark.parametrize("value", ["nonsense", "é", "x" * 5_000])
async def test_each_credential_counts(api: Any, wrong: str, value: str) -> None:
    answer = await api.log_in(attrs.evolve(api.sandbox.credentials, **{wrong: value}))

    assert (answer.status, answer.message) == (403, "Unauthorised")


async def test_a_login_without_a_key_is_refused(api: Any) -> None:
    credentials = api.sandbox.credentials
    body = {"email": credentials.email, "password": credentials.password}

    assert (await api.send("POST", "/v1/auth", json=body, token=None)).status == 403


async def test_a_login_without_a_password_misses_a_field(api: Any) -> None:
    answer = await api.send("POST", "/v1/auth", json={"email": "a"}, token=None, headers={"x-api-key": "k"})

    assert (answer.status, answer.message) == (401, "Missing Fields: password")


async def test_the_expiry_is_announced_only_if_wanted(start: Any) -> None:
    api = await start(announce_expiry=False)

    assert set((await api.log_in()).json) == {"access_token", "refresh_token"}


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic abc", "Bearer a.b.c", "Bearer é", "Token {token}", "{token}", "Bearer {token}x"],
)
async def test_anything_but_a_good_bearer_is_refused(api: Any, header: str) -> None:
    headers = {"Authorization": header.format(token=api.token)}

    answer = await api.send("POST", "/v1/campaign/all", json={}, token=None, headers=headers)

    assert (answer.status, answer.json["code"]) == (403, "unauthorised")


async def test_no_token_at_all_is_refused(api: Any) -> None:
    assert (await api.send("POST", "/v1/campaign/all", json={}, token=None)).status == 403


async def test_the_scheme_may_be_written_in_any_case(api: Any) -> None:
    headers = {"Authorization": f"bearer {api.token}"}

    assert (await api.send("POST", "/v1/campaign/all", json={}, token=None, headers=headers)).status == 200


async def test_tokens_of_another_maker_are_refused(api: Any) -> None:
    claims = jwt.decode(api.token, options={"verify_signature": False})

    assert not await works(api, jwt.encode(claims, "x" * 32, algorithm="HS256"))
    assert not await works(api, jwt.encode(claims, "", algorithm="none"))


async def test_neither_kind_of_token_stands_in_for_the_other(api: Any) -> None:
    assert not await works(api, api.refresh_token)
    assert (await renew(api, api.token)).status == 403


async def test_a_used_refresh_token_is_refused_for_ever(api: Any) -> None:
    first = api.refresh_token
    answer = await renew(api, first)

    assert answer.status == 200
    assert await works(api, answer.json["access_token"])
    assert [(await renew(api, first)).status for _ in range(2)] == [403, 403]
    assert (await renew(api, answer.json["refresh_token"])).status == 200


async def test_without_rotation_the_refresh_token_stays_good(start: Any) -> None:
    api = await start(rotate_refresh_tokens=False)

    for _ in range(2):
        answer = await renew(api, api.refresh_token)
        assert answer.status == 200
        assert set(answer.json) == {"access_token", "expires_in"}


async def test_tokens_expire_to_the_fraction_of_a_second(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=lambda: 1_000_000.25)
    monkeypatch.setattr(tokens, "time", clock)
    api = await start(access_token_lifetime=0.5, refresh_token_lifetime=0.75)

    assert (await api.log_in()).json["expires_in"] == 0
    clock.time = lambda: 1_000_000.74
    assert await works(api, api.token)
    clock.time = lambda: 1_000_000.75
    assert not await works(api, api.token)
    clock.time = lambda: 1_000_001.0
    assert (await renew(api, api.refresh_token)).status == 403


async def test_revoking_spares_the_refresh_tokens_unless_asked(api: Any) -> None:
    await api.sandbox.revoke_tokens()

    assert not await works(api, api.token)
    answer = await renew(api, api.refresh_token)
    assert await works(api, answer.json["access_token"])

    await api.sandbox.revoke_tokens(refresh_tokens=True)
    assert (await renew(api, answer.json["refresh_token"])).status == 403
    assert (await api.log_in()).status == 200
    assert await works(api, api.token)


async def test_a_fresh_token_is_good_even_if_the_clock_stands_still(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "time", SimpleNamespace(time=lambda: 1_000_000.0))
    api = await start()
    old = api.token

    await api.sandbox.revoke_tokens()
    await api.log_in()

    assert not await works(api, old)
    assert await works(api, api.token)


async def test_accounts_do_not_see_each_other(api: Any) -> None:
    group = await api.group()
    campaign = await api.sandbox.create_campaign("c", group)
    other = await api.sandbox.add_account()
    await api.log_in(other)

    assert await api.ok("POST", "/v1/cg", workspace_id=other.workspace_id) == []
    assert await api.ok("POST", "/v1/campaign/all") == []
    foreign = {"customer_group_id": group, "workspace_id": api.sandbox.workspace_id, "campaign_id": campaign}
    for method, path, names, more in (
        ("POST", "/v1/cg", ["workspace_id"], {}),
        ("PUT", "/v1/cg", ["workspace_id"], {"group_name": "x"}),
        ("PATCH", "/v1/cg", ["workspace_id", "customer_group_id"], {"group_name": "x"}),
        ("DELETE", "/v1/cg", ["workspace_id", "customer_group_id"], {}),
        ("POST", "/v1/customer", ["customer_group_id"], {"page": 1}),
        ("POST", "/v1/customer/pages", ["customer_group_id"], {}),
        ("DELETE", "/v1/customer", ["customer_group_id"], {"customer_ids": ["x"]}),
        ("POST", "/v1/customer/check", ["workspace_id", "customer_group_id"], {"customers": [{"a": 1}]}),
        ("POST", "/v1/messages/pages", ["campaign_id"], {}),
        ("POST", "/v1/messages/publish", ["campaign_id"], {}),
        ("POST", "/v1/messages/fetch", ["campaign_id"], {"page": 1}),
        ("POST", "/v1/campaign/rerun/history", ["campaign_id"], {}),
        ("POST", "/v1/campaign/rerun/messages", ["campaign_id"], {}),
        ("POST", "/v1/campaign/rerun/initiate", ["campaign_id"], {"new_customer_group_id": group}),
    ):
        answer = await api.call(method, path, **{name: foreign[name] for name in names}, **more)
        assert answer.status == 400, (method, path, answer.body)
        assert "there is no such" in answer.message


async def test_the_credentials_are_masked(api: Any) -> None:
    credentials = api.sandbox.credentials

    for secret in (credentials.api_key, credentials.email, credentials.password):
        assert secret not in repr(credentials)
        assert secret not in str(api.sandbox.log)
