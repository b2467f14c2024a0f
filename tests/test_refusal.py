"""Whatever an error's body looks like, it becomes an error that says what the service said, and no secret."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudgescribe_async.errors import APIStatusError, BadRequestError, ServerError
from nudgescribe_async.refusal import mask, read_refusal, request_id
from nudgescribe_async.transport import Headers

MESSAGE = "The service found the request wrong (HTTP 400)"


def read(body: Any, *secrets: str, status: int = 400, headers: Mapping[str, str] | None = None) -> APIStatusError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_refusal(status, Headers(headers or {}), data, now=1_000.0, secrets=secrets)


# --- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said", "code"),
    [
        ({"success": False, "message": "Page is missing"}, "Page is missing", None),
        ({"success": False, "message": "no", "code": "E1"}, "no", "E1"),
        ({"message": "no", "code": 17}, "no", "17"),
        ({"message": "no", "error_code": "E2"}, "no", "E2"),
        ({"message": "no", "code": None}, "no", None),
        ({"message": "no", "code": {"a": 1}}, "no", None),
        ({"error": "Bad page"}, "Bad page", None),
        ({"error": {"message": "Bad page", "code": "E3"}}, "Bad page", "E3"),
        ({"error": {"message": "Bad page", "code": 3}, "code": "outer"}, "Bad page", "outer"),
        ({"error": {"detail": "deeper"}}, "deeper", None),
        ({"error": True, "message": "no"}, "no", None),
        ({"detail": "not here"}, "not here", None),
        ({"detail": ["a", "b"]}, "a; b", None),
        ({"detail": [{"loc": ["body", "page"], "msg": "field required", "type": "missing"}]}, "field required", None),
        ({"detail": [{"message": "a"}, "b", 5, None, {}]}, "a; b", None),
        ({"errors": [{"message": "a"}]}, "a", None),
        ({"title": "Forbidden", "status": 403}, "Forbidden", None),
        ({"message": "", "error": "second"}, "second", None),
        ({"message": {"x": 1}, "error": "second"}, "second", None),
        ({"message\t": "tabbed", "code\t": "E4"}, "tabbed", "E4"),
        ({" Message ": "capital"}, "capital", None),
        ("just text", "just text", None),
        (["a", ["b", ["c"]]], "a; b; c", None),
        (b"plain text", "plain text", None),
        (b"  plain\r\n\ttext  ", "plain text", None),
        (b'{"message": "cut of', '{"message": "cut of', None),
        (b"<html><head><title>502 Bad &amp; Gateway</title></head><body>x</body>", "502 Bad & Gateway", None),
        (b"<!DOCTYPE html>\n<body><h1 class='x'>Oh\n <b>no</b></h1>nginx</body>", "Oh no", None),
        (b"<HTML><BODY>Request blocked. <p>Sorry</p></BODY></HTML>", "Request blocked. Sorry", None),
        ("Größe \N{SNOWMAN}".encode(), "Größe \N{SNOWMAN}", None),
        (b"bad \xff\xfe bytes", "bad \ufffd\ufffd bytes", None),
        (b'\xef\xbb\xbf{"message": "with a mark"}', "with a mark", None),
    ],
)
def test_what_the_service_says_is_found_whatever_its_shape(body: Any, said: str, code: str | None) -> None:
    error = read(body)
    assert type(error) is BadRequestError
    assert error.message == f'{MESSAGE}: "{said}".'
    assert error.said == said
    assert error.code == code
    assert error.status == 400


@pytest.mark.parametrize(
    "body",
    [b"", b"  \n", b"null", b"5", b"true", b"[]", b"{}", b'""', b'{"success": false}', b'{"message": 5}', b'{"error": {}}', b"<html><title></title></html>"],
)  # fmt: skip
def test_where_nothing_is_said_the_error_says_so(body: bytes) -> None:
    assert read(body).message == "The service found the request wrong (HTTP 400, without an explanation)."


def test_a_code_without_words_is_kept() -> None:
    assert read({"code": "E9"}).code == "E9"


def test_the_body_is_kept_as_it_came_up_to_2000_characters() -> None:
    assert read(b'{"success": false}').body == '{"success": false}'
    assert read(b"x" * 5_000).body == "x" * 2_000
    assert read("ü".encode() * 5_000).body == "ü" * 2_000


def test_a_long_message_and_a_long_code_are_cut() -> None:
    error = read({"message": "m" * 10_000, "code": "c" * 10_000})
    assert error.message == f'{MESSAGE}: "' + "m" * 500 + '".'
    assert error.code == "c" * 100


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 1_000_000,
        b"<" * 1_000_000,
        b"<h1>" * 250_000,
        b"<title" * 160_000,
        b"&amp" * 250_000,
        b"\\u00" * 250_000,
        b"[" * 1_000_000,
        b'{"error":' * 100_000,
        b"[" * 900 + b"]" * 900,
        b'{"error":' * 300 + b"1" + b"}" * 300,
        b'{"detail":[' * 300 + b'"x"' + b"]}" * 300,
        b"0" * 1_000_000,
    ],
    ids=lambda body: f"{body[:6]!r}x{len(body)}",
)
def test_garbage_of_any_size_and_depth_is_an_error_like_any_other(body: bytes) -> None:
    error = read(body, "secret", status=503)
    assert type(error) is ServerError
    assert len(error.body) <= 2_000
    assert len(error.message) < 600


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.binary(max_size=80) | st.text("{}[]\"':,<>htmlmessage \\u0d8&;", max_size=60).map(str.encode),
    st.integers(300, 599),
)
def test_no_body_breaks_the_reader(body: bytes, status: int) -> None:
    error = read(body, "message", "se", "&", status=status)
    assert error.status == status
    assert str(status) in str(error)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["message", "error", "code", "detail", "x"]), inner)
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None, database=None)
@given(_JSON)
def test_no_json_breaks_the_reader(value: Any) -> None:
    error = read(value)
    assert error.message.startswith(MESSAGE[:-1])
    assert error.code is None or isinstance(error.code, str)


def test_a_redirect_says_why_it_is_not_followed() -> None:
    error = read(b"", status=302)
    assert type(error) is APIStatusError
    assert "redirect, which is not followed" in error.message
    assert "check base_url" in error.message


# --- secrets ---------------------------------------------------------------------------------------

TOKEN = "eyJhbGciOi" + "Abc123_-." * 100
SECRETS = ["key/with+signs==", 'pass"wörd\\ \N{GRINNING FACE}', "two  spaces\tand a tab", "<b>&'\"", TOKEN, "short"]


def _everything(error: APIStatusError) -> str:
    return "\0".join(
        [str(error), repr(error), error.body, error.code or "", error.request_id or "", repr(error.__dict__)]
    )


def _php(secret: str) -> str:
    return json.dumps(secret)[1:-1].replace("/", "\\/")


def _careful(secret: str) -> str:
    """As .NET and Go write it: whatever might mean something in HTML is escaped."""
    return "".join(item if item.isalnum() and item.isascii() else json.dumps(item)[1:-1] if ord(item) > 127 else f"\\u{ord(item):04X}" for item in secret)  # fmt: skip


WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": lambda secret: secret,
    "json": lambda secret: json.dumps(secret)[1:-1],
    "json in utf-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "html": html.escape,
    "php": _php,
    "careful": _careful,
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:10])
@pytest.mark.parametrize(
    "frame", ["%s", "bad token %s", '{"message": "bad %s", "code": "%s"}', '{"error": {"message": "%s"}}', '["%s"]', "<html><title>%s</title>%s</html>"]
)  # fmt: skip
def test_a_secret_that_the_service_echoes_is_not_kept(frame: str, secret: str, how: str) -> None:
    written = WRITTEN[how](secret)
    error = read(frame.replace("%s", written).encode(), *SECRETS)
    for text in (_everything(error), html.unescape(error.body), " ".join(error.body.split())):
        assert secret not in text
        assert written not in text
        assert " ".join(secret.split()) not in text
    assert "***" in error.message


@pytest.mark.parametrize("before", range(1_900, 2_101, 20))
@pytest.mark.parametrize("letter", ["x", "\N{GRINNING FACE}"])
def test_a_secret_at_the_end_of_what_is_kept_is_not_kept_in_part(before: int, letter: str) -> None:
    assert "Abc123" not in _everything(read((letter * before + TOKEN).encode(), TOKEN))


@pytest.mark.parametrize("times", [8, 9, 70, 71, 72, 73, 200])
def test_a_secret_that_is_echoed_many_times_is_not_kept_in_part(times: int) -> None:
    body = TOKEN * times
    assert "Abc123" not in _everything(read(body.encode(), TOKEN))
    assert "Abc123" not in _everything(read(body.encode()[: 2**16], TOKEN))  # as the session cuts it


@pytest.mark.parametrize("cut", [2**16 - 1, 2**16, 2**16 + 1])
def test_half_a_letter_before_a_cut_is_no_cover_for_half_a_secret(cut: int) -> None:
    secret = "Abc\N{GRINNING FACE}" * 50
    body = (secret * 400).encode()[:cut]
    if cut >= 2**16:
        assert "Abc" not in _everything(read(body, secret))


def test_a_secret_in_the_request_id_is_not_kept_in_part() -> None:
    for before in range(180, 201):
        found = request_id(Headers({"x-request-id": "r" * before + TOKEN}), [TOKEN])
        assert found is not None
        assert "eyJ" not in found
        assert len(found) <= 200


def test_a_secret_at_the_end_of_a_long_message_or_code_is_not_kept_in_part() -> None:
    for before in (90, 95, 99, 490, 495, 499):
        error = read({"message": "m" * before + TOKEN, "code": "c" * before + TOKEN}, TOKEN)
        assert "eyJ" not in _everything(error)


def test_a_secret_that_is_part_of_another_does_not_uncover_it() -> None:
    for secrets in (["abc", "abc-123"], ["abc-123", "abc"]):
        assert mask("the key abc-123 and abc", secrets) == "the key *** and ***"
    assert "123" not in _everything(read(b"abc-123", "abc", "abc-123"))


def test_a_text_without_secrets_is_left_as_it_is() -> None:
    text = 'a \\u0041 \\/ &amp; "quoted" \ud7ff'
    assert mask(text, ["", "nothing"]) == text
    assert mask(text, []) == text


def test_secrets_may_come_from_an_iterator() -> None:
    error = read_refusal(400, Headers({"x-request-id": "s3"}), b'{"message": "s1 s2 s3", "code": "s2"}', now=0, secrets=iter(["s1", "s2", "s3"]))  # fmt: skip
    assert error.said == "*** *** ***"
    assert (error.code, error.request_id) == ("***", "***")
    assert error.body == '{"message": "*** *** ***", "code": "***"}'


def test_what_no_log_can_take_is_replaced() -> None:
    error = read_refusal(400, Headers({"x-request-id": "caf\udce9\x1b[2J"}), b'{"message": "\\u001b[31mred"}', now=0)
    assert error.request_id == "caf\ufffd\ufffd[2J"
    assert error.said == "\ufffd[31mred"
    f"{error} {error.body}".encode()


# --- headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-Request-Id", "x-correlation-id", "X-Amzn-RequestId", "CF-Ray"])
def test_the_request_id_is_found_under_its_names(name: str) -> None:
    assert request_id(Headers({name: " r-1 "})) == "r-1"
    assert read(b"", headers={name: "r-1"}).request_id == "r-1"


def test_the_services_own_name_comes_before_that_of_a_proxy() -> None:
    assert request_id(Headers({"cf-ray": "c", "x-request-id": "r"})) == "r"
    assert request_id(Headers({"cf-ray": "c", "x-request-id": "  "})) == "c"
    assert request_id(Headers({})) is None


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2015 07:27:30 GMT"}, 30.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2015 07:27:30 -0000"}, 30.0),
        ({"retry-after": DATE, "date": DATE}, 0.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2015 08:00:00 GMT"}, 0.0),
        ({"retry-after": DATE, "date": "yesterday"}, None),  # by a clock that is years off
        ({"retry-after": DATE}, None),
        ({"retry-after": "soon", "date": DATE}, None),
    ],
)
def test_the_wait_is_counted_by_the_services_own_clock(headers: dict[str, str], seconds: float | None) -> None:
    assert read(b"", status=429, headers=headers).retry_after == seconds
