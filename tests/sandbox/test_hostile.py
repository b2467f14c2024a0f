"""Whatever comes in, the answer is one of the contract's, and never a 500."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

JSON = {"Content-Type": "application/json"}
DEEP = b'{"workspace_id": ' + b"[" * 100_000 + b"]" * 100_000 + b', "group_name": "x"}'


def body(text: str) -> bytes:
    return b'{"workspace_id": "w", "group_name": ' + text.encode("utf-8", "surrogatepass") + b"}"


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"nonsense",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"[" * 100_000,
        DEEP,
        *(
            b'{"workspace_id": ' + b"[" * depth + b"]" * depth + b', "group_name": "x"}'
            for depth in (101, 300, 500, 700, 960)
        ),
        body("NaN"),
        body("1e999"),
        body("9" * 5_000),
        body("9" * 400),
        body('"\\ud800"'),
        body('"\ud800"'),
        body('"\x00"'),
        b'{"workspace_id": "\\ud800", "group_name": "x"}',
        b'{"\\udfff": 1, "workspace_id": "w", "group_name": "x"}',
        b" " * 100_000,
        '{"workspace_id": "ä", "group_name": "x"}'.encode("latin-1"),
    ],
    ids=range(26),
)
async def test_bodies_that_are_no_json_objects_are_400(api: Any, content: bytes) -> None:
    answer = await api.send("PUT", "/v1/cg", data=content, headers=JSON)

    assert answer.status == 400
    assert api.sandbox.effects["customer_groups.create"] == 0


async def test_an_empty_body_misses_its_fields(api: Any) -> None:
    answer = await api.send("PUT", "/v1/cg", data=b"", headers=JSON)

    assert (answer.status, answer.message) == (401, "Missing Fields: workspace_id, group_name")


async def test_an_empty_body_is_no_object_even_if_no_field_is_needed(api: Any) -> None:
    assert (await api.send("POST", "/v1/campaign/all", data=b"", headers=JSON)).status == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "nonsense", ""])
async def test_another_content_type_is_400(api: Any, kind: str) -> None:
    content = json.dumps({"workspace_id": api.sandbox.workspace_id}).encode()

    for path in ("/v1/cg", "/v1/customer/check"):
        assert (await api.send("POST", path, data=content, headers={"Content-Type": kind})).status == 400


async def test_json_may_come_in_chunks_compressed_and_with_a_charset(api: Any) -> None:
    content = json.dumps({"workspace_id": api.sandbox.workspace_id}).encode()

    async def chunks() -> Any:
        for byte in content:
            yield bytes([byte])

    for options in (
        {"data": chunks(), "headers": JSON},
        {"data": content, "headers": {"Content-Type": "Application/JSON; charset=utf-8"}},
        {"data": gzip.compress(content), "headers": {**JSON, "Content-Encoding": "gzip"}},
    ):
        assert (await api.send("POST", "/v1/cg", **options)).json == []


async def test_a_body_that_is_not_compressed_as_it_says_is_400(api: Any) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}

    assert (await api.send("POST", "/v1/cg", data=b"{}", headers=headers)).status == 400


async def test_a_name_may_hold_anything_that_is_text(api: Any) -> None:
    for name in ("\x00", "'; DROP TABLE groups; --", "\u202e", "🎉" * 1_000, "\n"):
        made = await api.ok("PUT", "/v1/cg", workspace_id=api.sandbox.workspace_id, group_name=name)
        assert made["group_name"] == name
        listed = await api.ok("POST", "/v1/cg", workspace_id=api.sandbox.workspace_id)
        assert listed[-1]["group_name"] == name


async def test_numbers_beyond_64_bits_reach_no_database(api: Any) -> None:
    group = await api.group()
    campaign = await api.sandbox.create_campaign("c", group)
    for number in (2**31, 2**63, 2**64, 10**300, 1e300):
        assert await api.ok("POST", "/v1/customer", customer_group_id=group, page=number) == []
        for path, more in (
            ("/v1/messages/fetch", {"page": number}),
            ("/v1/messages/fetch", {"page": 1, "run_number": number}),
            ("/v1/messages/pages", {"run_number": number}),
            ("/v1/campaign/rerun/messages", {"run_number": number}),
        ):
            assert (await api.call("POST", path, campaign_id=campaign, **more)).status == 400


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data; boundary=b", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: nonsense;;;=\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nx"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"x" * 100_000 + b"\r\n\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=file\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--b--",
        ),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=workspace_id\r\n\r\n\xff\r\n--b--\r\n",
        ),
        (
            "multipart/form-data; boundary=b",
            (
                b'--b\r\nContent-Disposition: form-data; name="x"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n'
                b"--c\r\n\r\nx\r\n--c--\r\n--b--\r\n"
            ),
        ),
        (f"multipart/form-data; boundary={'b' * 100}", b"--b\r\n"),
        ("multipart/mixed; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
    ],
)
async def test_malformed_forms_are_refused(api: Any, kind: str, content: bytes) -> None:
    answer = await api.send("POST", "/v1/customer/check", data=content, headers={"Content-Type": kind})

    assert answer.status in {400, 401}


async def test_an_upload_that_breaks_off_leaves_nothing(api: Any) -> None:
    group = await api.group(n="number")
    host, port = api.sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/customer/check HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n"
        + f"Authorization: Bearer {api.token}\r\n\r\n".encode()
        + b"--b\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\nn\n1\n"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""

    assert await api.pages(group) == 0
    assert api.sandbox.effects["customers.check"] == 0


async def test_hundreds_at_once_are_answered_one_by_one(api: Any) -> None:
    workspace = api.sandbox.workspace_id
    made = await asyncio.gather(
        *(api.ok("PUT", "/v1/cg", workspace_id=workspace, group_name=str(n)) for n in range(200))
    )

    listed = await api.ok("POST", "/v1/cg", workspace_id=workspace)
    assert {group["customer_group_id"] for group in listed} == {group["customer_group_id"] for group in made}
    assert len(listed) == 200


async def test_one_of_many_reruns_at_once_wins(api: Any) -> None:
    group = await api.group()
    campaign = await api.sandbox.create_campaign("c", group)
    path = "/v1/campaign/rerun/initiate"

    answers = await asyncio.gather(
        *(api.call("POST", path, campaign_id=campaign, new_customer_group_id=group) for _ in range(20))
    )

    assert sorted(answer.status for answer in answers) == [200] + [400] * 19
    assert api.sandbox.effects["reruns.initiate"] == 1
