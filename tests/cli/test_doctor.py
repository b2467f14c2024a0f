"""The doctor finds what is wrong, and says what to do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from nudgescribe_async.cli import checks
from nudgescribe_async.endpoint import Effect, Endpoint
from nudgescribe_async.endpoints import campaigns, customer_groups, customers, messages, profile_fields, reruns
from nudgescribe_async.sandbox import BadAnswer, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from command_line import Result, Service, Shell

BEFORE = ["settings", "host name", "connection", "TLS", "login", "clock"]


def results(result: Result) -> dict[str, str]:
    return {check["name"]: check["result"] for check in result.document["checks"]}


def failed(result: Result) -> dict[str, Any]:
    [check] = [check for check in result.document["checks"] if check["result"] == "failed"]
    assert result.code == 1
    assert result.document["ok"] is False
    assert check["advice"]
    return dict(check)


def test_all_is_green_and_every_kind_of_read_is_made(settings: Service, shell: Shell) -> None:
    told = shell("doctor")
    assert (told.code, told.err) == (0, "")
    assert not any(secret in told.out for secret in settings.secrets)
    document = shell("doctor", "--json")
    assert document.code == 0
    assert document.document["ok"] is True
    assert results(document).pop("TLS") == "not run"
    assert {name for name, result in results(document).items() if result == "ok"} == {*results(document)} - {"TLS"}

    modules = (campaigns, customer_groups, customers, messages, profile_fields, reruns)
    reads = {
        value.operation
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Endpoint) and value.effect is Effect.READ
    }
    assert list(results(document))[: len(BEFORE)] == BEFORE
    assert set(list(results(document))[len(BEFORE) :]) == reads
    assert dict(settings.sandbox.effects) == {}


def test_an_account_with_nothing_in_it_is_healthy(
    start_service: Callable[..., Service], shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start_service(example=False)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    result = shell("doctor", "--json")
    assert result.code == 0
    assert {name for name, kind in results(result).items() if kind == "not run"} >= {"customers.list", "reruns.history"}

    monkeypatch.delenv("NUDGESCRIBE_WORKSPACE_ID")
    assert shell("doctor", "--json").code == 0


def test_the_first_workspace_and_a_published_campaign_are_taken_if_nobody_names_one(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUDGESCRIBE_WORKSPACE_ID")
    for campaign_id in settings.campaigns.values():
        settings.call(lambda sandbox, one=campaign_id: sandbox.set_campaign_state(one, "Ready for review"))  # type: ignore[misc]
    result = shell("doctor", "--json")
    assert result.code == 0
    assert results(result)["customers.list"] == "ok"


def test_without_a_published_file_no_link_is_asked_for(settings: Service, shell: Shell) -> None:
    settings.inject(BadAnswer(b"0", content_type="application/json"), operation="messages.count_pages")
    result = shell("doctor", "--json")
    assert (result.code, results(result)["messages.fetch"]) == (0, "not run")


def test_missing_settings_end_it_at_once(shell: Shell) -> None:
    result = shell("doctor", "--json")
    assert failed(result)["name"] == "settings"
    assert set(results(result).values()) == {"failed", "not run"}
    told = shell("doctor")
    assert told.code == 1
    assert 'host name: because "settings" failed' in told.out


def test_wrong_settings_are_a_check_that_failed(home: Path, shell: Shell) -> None:
    (home / "nudgescribe.toml").write_text("x")
    assert failed(shell("doctor", "--json"))["name"] == "settings"


def test_a_refused_login_is_found_and_the_clock_is_looked_at_all_the_same(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUDGESCRIBE_PASSWORD", "wrong")
    result = shell("doctor", "--json")
    assert failed(result)["name"] == "login"
    assert results(result)["clock"] == "ok"
    assert results(result)["campaigns.list"] == "not run"


def test_a_host_without_an_address_is_found(settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    check = failed(shell("doctor", "--json", "--base-url", "https://nowhere.example"))
    assert check["name"] == "host name"
    assert check["detail"] == "nowhere.example has no address: name or service not known."


def test_a_port_that_nobody_listens_on_is_found(settings: Service, shell: Shell) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        check = failed(shell("doctor", "--json", "--base-url", f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert check["name"] == "connection"
    assert "connection refused" in check["detail"]
    assert "HTTPS_PROXY" in check["advice"]


def test_a_host_that_says_nothing_is_given_up_on(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "PATIENCE", 0.05)

    async def silent(*_: object, **__: object) -> Any:
        await asyncio.sleep(3600)

    monkeypatch.setattr(asyncio, "open_connection", silent)
    assert "nothing came within" in failed(shell("doctor", "--json"))["detail"]


@pytest.fixture
def tls_port() -> Iterator[tuple[int, trustme.CA]]:
    """A server that speaks TLS, and hangs up."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.settimeout(5)
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                pass
            finally:
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1], authority
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


def test_a_certificate_that_nobody_vouches_for_is_found(
    settings: Service,
    shell: Shell,
    tls_port: tuple[int, trustme.CA],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, authority = tls_port
    check = failed(shell("doctor", "--json", "--base-url", f"https://127.0.0.1:{port}"))
    assert check["name"] == "TLS"
    assert "certificate" in check["detail"]
    assert "SSL_CERT_FILE" in check["advice"]

    authority.cert_pem.write_to_path(str(home / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(home / "authority.pem"))
    result = shell("doctor", "--json", "--base-url", f"https://127.0.0.1:{port}")
    assert results(result)["TLS"] == "ok"
    assert failed(result)["name"] == "login"  # it hangs up


def test_behind_a_proxy_the_way_to_the_host_is_the_proxys_business(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://user:hush@127.0.0.1:1")
    result = shell("doctor", "--json", "--base-url", "https://api.example")
    assert [results(result)[name] for name in ("host name", "connection", "TLS")] == ["not run"] * 3
    assert failed(result)["name"] == "login"
    assert "hush" not in result.out + result.err
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert results(shell("doctor", "--json"))["connection"] == "ok"  # plain http never goes through a proxy
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert results(shell("doctor", "--json", "--base-url", "https://127.0.0.1:1"))["connection"] == "failed"


@pytest.mark.parametrize(("ahead", "direction"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_a_clock_that_is_wrong_is_found(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch, ahead: float, direction: str
) -> None:
    import time

    class Wrong:
        @staticmethod
        def time() -> float:
            return time.time() + ahead

    monkeypatch.setattr(checks, "time", Wrong)
    check = failed(shell("doctor", "--json"))
    assert check["name"] == "clock"
    assert f"{direction} that of the service" in check["detail"]
    assert "3600 s" in check["detail"] or "3599 s" in check["detail"]


def test_an_answer_without_a_date_says_nothing_of_the_clock(settings: Service, shell: Shell) -> None:
    for operation in ("auth.authenticate",):
        settings.inject(
            BadAnswer(
                b'{"access_token": "x", "expires_in": 60}', content_type="application/json", headers={"Date": "soon"}
            ),
            operation=operation,
        )
    result = shell("doctor", "--json")
    assert results(result)["clock"] == "not run"


def test_a_read_that_is_refused_does_not_hide_the_others(settings: Service, shell: Shell) -> None:
    settings.inject(Status(403), operation="profile_fields.list", times=None)
    result = shell("doctor", "--json")
    assert failed(result)["name"] == "profile_fields.list"
    assert results(result)["customers.list"] == "ok"
