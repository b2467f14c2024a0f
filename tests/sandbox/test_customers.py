from __future__ import annotations

import csv
import io
from typing import Any

import aiohttp
import pytest

from nudgescribe_async.sandbox import SandboxError, create_sample_fields, sample_csv, sample_customers

LIST = "/v1/customer"
CHECK = "/v1/customer/check"


def csv_bytes(*rows: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


async def check(api: Any, group: str, *customers: Any) -> Any:
    return await api.call(
        "POST", CHECK, workspace_id=api.sandbox.workspace_id, customer_group_id=group, customers=list(customers)
    )


async def rows(api: Any, group: str, page: int = 1) -> Any:
    return await api.ok("POST", LIST, customer_group_id=group, page=page)


async def test_the_real_customers_go_up_and_come_back(start: Any) -> None:
    api = await start(queue_above=30_000)
    await create_sample_fields(api.sandbox)
    group = await api.group()

    receipt = (await api.upload(group, sample_csv())).json

    assert receipt == {
        "success": True,
        "accepted_count": 23_570,
        "rejected_count": 0,
        "errors": [],
        "message": "Customers uploaded successfully",
    }
    assert await api.pages(group) == 236
    expected = sample_customers()
    assert len(expected) == 23_570
    found = await api.profiles(group)
    assert [
        {**row, "purchases": str(row["purchases"]), "cds_bought": str(row["cds_bought"])} for row in found
    ] == expected
    again = (await api.upload(group, sample_csv())).json
    assert again["accepted_count"] == 23_570
    assert await api.pages(group) == 236


async def test_a_large_upload_is_queued_and_its_receipt_is_exact(start: Any) -> None:
    api = await start(queue_above=3, job_time=3_600)
    group = await api.group(external_id="string", n="number")
    content = csv_bytes(["external_id", "n"], ["a", "1"], ["b", "x"], ["c", "3"], ["d", "4"])

    receipt = (await api.upload(group, content)).json

    assert receipt["job_uid"]
    assert (receipt["accepted_count"], receipt["rejected_count"]) == (3, 1)
    assert receipt["errors"] == [{"row": 2, "field": "n", "message": "must be a decimal number"}]
    assert await api.pages(group) == 0
    await api.sandbox.drain(hurry=True)
    assert [row["external_id"] for row in await api.profiles(group)] == ["a", "c", "d"]


async def test_an_upload_at_the_limit_is_not_queued(start: Any) -> None:
    api = await start(queue_above=2, job_time=3_600)
    group = await api.group(n="number")

    assert "job_uid" not in (await check(api, group, {"n": 1}, {"n": 2})).json
    assert await api.profiles(group) == [{"n": 1}, {"n": 2}]


async def test_the_group_of_a_queued_upload_may_go(start: Any) -> None:
    api = await start(queue_above=0, job_time=3_600)
    group = await api.group(n="number")
    await check(api, group, {"n": 1})
    await api.ok("DELETE", "/v1/cg", workspace_id=api.sandbox.workspace_id, customer_group_id=group)

    await api.sandbox.drain(hurry=True)


async def test_known_customers_are_updated_and_keep_their_place(api: Any) -> None:
    group = await api.group(external_id="string", a="string", b="string")
    await check(api, group, *({"external_id": str(n), "a": "old", "b": "old"} for n in range(3)))
    before = await rows(api, group)
    await check(api, group, {"external_id": "1", "a": "new", "b": None}, {"external_id": "9", "a": "new"})

    after = await rows(api, group)
    assert [row["customer_id"] for row in after[:3]] == [row["customer_id"] for row in before]
    assert (await api.profiles(group))[1:] == [
        {"external_id": "1", "a": "new"},
        {"external_id": "2", "a": "old", "b": "old"},
        {"external_id": "9", "a": "new"},
    ]


async def test_an_identifier_counts_within_its_group(api: Any) -> None:
    one = await api.group([{"external_id": "1"}], external_id="string")
    two = await api.sandbox.create_customer_group("two", customers=[{"external_id": "1"}])

    assert (await rows(api, one))[0]["customer_id"] != (await rows(api, two))[0]["customer_id"]


async def test_the_last_row_of_an_identifier_wins(api: Any) -> None:
    group = await api.group(external_id="string", a="string", b="string")

    receipt = (await check(api, group, {"external_id": "1", "a": "x"}, {"external_id": "1", "b": "y"})).json

    assert receipt["accepted_count"] == 2
    assert await api.profiles(group) == [{"external_id": "1", "b": "y"}]


async def test_another_field_may_identify(start: Any) -> None:
    api = await start(identifier_field="number")
    group = await api.group([{"number": 7, "a": "x"}], number="number", a="string")
    await check(api, group, {"number": "7", "a": "y"})

    assert await api.profiles(group) == [{"number": 7, "a": "y"}]


async def test_without_an_identifier_every_row_is_new(api: Any) -> None:
    group = await api.group(a="string")
    for _ in range(2):
        await check(api, group, {"a": "x"})

    assert await api.profiles(group) == [{"a": "x"}] * 2


async def test_bad_rows_are_reported_and_good_ones_taken(api: Any) -> None:
    await api.sandbox.create_profile_field("id", "string", is_required=True)
    group = await api.group(n="number", d="Date:yyyy-MM-dd")
    content = csv_bytes(
        ["id", "n", "d"], ["", "x", "2024-02-30"], ["a", "", ""], ["b", "1"], [], ["c", "2", "2024-01-01"]
    )

    receipt = (await api.upload(group, content)).json

    assert (receipt["success"], receipt["accepted_count"], receipt["rejected_count"]) == (True, 2, 2)
    assert [(error["row"], error["field"]) for error in receipt["errors"]] == [(1, "id"), (1, "n"), (1, "d"), (3, None)]
    assert await api.profiles(group) == [{"id": "a"}, {"id": "c", "n": 2, "d": "2024-01-01"}]


async def test_a_required_field_must_be_in_every_json_customer(api: Any) -> None:
    await api.sandbox.create_profile_field("id", "string", is_required=True)
    group = await api.group(n="number")

    receipt = (await check(api, group, {"n": 1}, {"id": "a"}, {"id": None})).json

    assert receipt["errors"] == [
        {"row": 1, "field": "id", "message": "is required"},
        {"row": 3, "field": "id", "message": "is required"},
    ]


async def test_the_list_of_errors_ends_and_the_counts_do_not(api: Any) -> None:
    group = await api.group(n="number")

    receipt = (await api.upload(group, b"n\n" + b"x\n" * 1_500)).json

    assert len(receipt["errors"]) == 1_000
    assert receipt["rejected_count"] == 1_500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it needs a header"),
        (b"\n\n", "it needs a header"),
        (b"id,nope,neither\n1,2,3\n", "no profile fields called 'nope', 'neither'"),
        (b"id,\n1,2\n", "no profile fields called ''"),
        (b"id,id\n1,2\n", "names a field twice"),
        (b"n\n1\n", "lacks required fields: id"),
        (b"id\n\xff\n", "not encoded in UTF-8"),
        (b"id\n" + b"a\n" * 3_000 + b"\xff\n", "not encoded in UTF-8"),
        ("id\nä\n".encode("utf-16"), "not encoded in UTF-8"),
        (b'id\n"open\n', "not valid CSV"),
        (b'id\n"a"b\n', "not valid CSV"),
        (b"id\n" + b"a" * 200_000, "not valid CSV"),
    ],
)
async def test_a_file_that_is_wrong_as_a_whole_leaves_nothing(api: Any, content: bytes, message: str) -> None:
    await api.sandbox.create_profile_field("id", "string", is_required=True)
    group = await api.group(n="number")

    answer = await api.upload(group, content)

    assert answer.status == 400
    assert message in answer.message
    assert await api.pages(group) == 0
    assert await api.sandbox._now.store.read(lambda db: db.all("SELECT * FROM staged")) == []
    assert api.sandbox.effects["customers.check"] == 0


async def test_unknown_fields_in_json_refuse_the_whole(api: Any) -> None:
    group = await api.group(n="number")

    answer = await check(api, group, {"n": 1}, {"n": 1, "nope": 2})

    assert answer.message == "Bad Request: the workspace has no profile fields called 'nope'"
    assert await api.pages(group) == 0


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
async def test_csv_is_read_as_it_is_written_elsewhere(api: Any, newline: str, mark: bytes) -> None:
    group = await api.group(name="string", note="string")
    text = newline.join([" name , note", '"Doe, Jane","said ""hi""\ntwice"', "Zoë,\x00", ""])

    await api.upload(group, mark + text.encode())

    assert await api.profiles(group) == [
        {"name": "Doe, Jane", "note": 'said "hi"\ntwice'},
        {"name": "Zoë", "note": "\x00"},
    ]


async def test_a_file_larger_than_memory_is_taken(api: Any) -> None:
    group = await api.group(note="string")
    line = b"x" * 100_000 + b"\n"

    assert (await api.upload(group, b"note\n" + line * 30)).json["accepted_count"] == 30


async def test_too_large_an_upload_is_413(start: Any) -> None:
    api = await start(max_upload_bytes=20_000)
    group = await api.group(note="string")

    async def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 1_000

    large = "x" * 30_000
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'

    async def form() -> Any:
        yield part
        async for chunk in chunks():
            yield chunk

    headers_json = {"Content-Type": "application/json"}
    answers = [
        await api.upload(group, large.encode()),
        await check(api, group, {"note": large}),
        await api.send("POST", CHECK, data=form(), headers=headers),
        await api.send("POST", CHECK, data=chunks(), headers=headers_json),
    ]

    assert [answer.status for answer in answers] == [413] * 4
    assert (await api.upload(group, b"note\nx\n")).status == 200


async def test_a_form_is_held_against_the_contract(api: Any) -> None:
    group = await api.group(n="number")

    async def send(*parts: tuple[str, str]) -> Any:
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in parts:
            form.add_field(name, value)
        return await api.send("POST", CHECK, data=form)

    workspace = ("workspace_id", api.sandbox.workspace_id)
    known = [workspace, ("customer_group_id", group)]
    file = ("file", "n\n1\n")
    assert (await send(workspace, file)).message == "Missing Fields: customer_group_id"
    assert (await send(*known)).message == "Missing Fields: file"
    assert (await send(*known, file, ("more", "x"))).message == "Bad Request: more is not a field of this operation"
    assert (await send(*known, file, file)).status == 400
    assert (await send(*known, ("file", "n\n1\n"), ("workspace_id", "again"))).status == 400
    assert (await send(("workspace_id", ""), known[1], file)).status == 400
    assert (await send(("workspace_id", "x" * 20_000), known[1], file)).status == 400
    assert (await send(("workspace_id", "unknown"), known[1], file)).status == 400
    assert (await send(*known, file)).json["accepted_count"] == 1


async def test_pages_are_stable_and_complete(start: Any) -> None:
    api = await start(page_size=7)
    group = await api.group([{"n": n} for n in range(20)], n="number")

    assert await api.pages(group) == 3
    assert [row["n"] for row in await api.profiles(group)] == list(range(20))
    assert [len(await rows(api, group, page)) for page in (1, 2, 3, 4, 10**30)] == [7, 7, 6, 0, 0]


async def test_pages_follow_what_comes_and_goes(start: Any) -> None:
    api = await start(page_size=2)
    group = await api.group([{"n": n} for n in range(5)], n="number")
    first = await rows(api, group)
    gone = [row["customer_id"] for row in first]

    answer = await api.ok("DELETE", LIST, customer_group_id=group, customer_ids=[*gone, *gone, "unknown", "\x00"])

    assert answer["deleted_count"] == 2
    assert await api.pages(group) == 2
    assert [row["n"] for row in await api.profiles(group)] == [2, 3, 4]
    await check(api, group, {"n": 9}, {"n": 10})
    assert [row["n"] for row in await api.profiles(group)] == [2, 3, 4, 9, 10]
    assert await api.pages(group) == 3


async def test_an_empty_group_has_no_pages(api: Any) -> None:
    group = await api.group()

    assert await api.pages(group) == 0
    assert await rows(api, group) == []


@pytest.mark.parametrize(("page", "status"), [(0, 400), (-1, 400), (1.0, 200), (1.5, 400), ("1", 400), (True, 400)])
async def test_pages_count_from_1(api: Any, page: object, status: int) -> None:
    group = await api.group()

    assert (await api.call("POST", LIST, customer_group_id=group, page=page)).status == status


async def test_a_customer_has_what_the_reference_shows(api: Any) -> None:
    group = await api.group([{"n": 1}], n="number")

    (row,) = await rows(api, group)

    assert set(row) == {
        "customer_id",
        "account_id",
        "workspace_id",
        "customer_group_id",
        "extended_profile",
        "created_at",
        "updated_at",
        "created_by",
        "updated_by",
    }
    assert row["account_id"] == api.sandbox.account_id
    assert set(row["extended_profile"]) == {"alg", "kid", "iv", "ciphertext"}


async def test_an_update_sets_clears_and_leaves(api: Any) -> None:
    group = await api.group([{"a": "1", "b": "2", "c": "3"}], a="string", b="string", c="string")
    (row,) = await rows(api, group)
    change = {"customer_id": row["customer_id"], "extended_profile": {"a": "9", "b": None}}

    answer = await api.ok("PATCH", LIST, customer_group_id=group, customers=[change])

    assert answer["updated_count"] == 1
    assert await api.profiles(group) == [{"a": "9", "c": "3"}]


async def test_an_update_is_all_or_nothing(api: Any) -> None:
    group = await api.group([{"external_id": "1"}, {"external_id": "2"}], external_id="string", n="number")
    one, two = [row["customer_id"] for row in await rows(api, group)]

    async def update(*changes: tuple[str, Any]) -> Any:
        customers = [{"customer_id": customer, "extended_profile": profile} for customer, profile in changes]
        return await api.call("PATCH", LIST, customer_group_id=group, customers=customers)

    good = (one, {"n": 5})
    for bad in [
        ("unknown", {"n": 1}),
        (two, {"n": "x"}),
        (two, {"nope": 1}),
        (two, {"external_id": "1"}),
    ]:
        assert (await update(good, bad)).status == 400
        assert await api.profiles(group) == [{"external_id": "1"}, {"external_id": "2"}]
    assert (await update(good, (two, {"external_id": "3"}))).json["updated_count"] == 2
    await check(api, group, {"external_id": "3", "n": 7})
    assert await api.profiles(group) == [{"external_id": "1", "n": 5}, {"external_id": "3", "n": 7}]


async def test_an_update_without_an_id_misses_a_field(api: Any) -> None:
    group = await api.group()
    answer = await api.call("PATCH", LIST, customer_group_id=group, customers=[{"extended_profile": {}}])

    assert answer.message == "Missing Fields: customers[0].customer_id"


async def test_an_envelope_opens_for_its_customer_only(api: Any) -> None:
    group = await api.group([{"a": "1"}, {"a": "2"}], a="string")
    one, two = await rows(api, group)
    sealed = one["extended_profile"]

    assert len(api.sandbox.profile_key) == 32
    assert api.sandbox.decrypt(one["customer_id"], sealed) == {"a": "1"}
    for customer, envelope in [
        (two["customer_id"], sealed),
        (one["customer_id"], two["extended_profile"]),
        (one["customer_id"], {**sealed, "iv": "!"}),
        (one["customer_id"], {"kid": sealed["kid"]}),
        (one["customer_id"], {**sealed, "kid": "another"}),
        (one["customer_id"], {}),
    ]:
        with pytest.raises(SandboxError, match="envelope"):
            api.sandbox.decrypt(customer, envelope)


async def test_every_account_has_a_key_of_its_own(api: Any) -> None:
    other = await api.sandbox.add_account()
    await api.sandbox.create_profile_field("a", "string", workspace_id=other.workspace_id)
    group = await api.sandbox.create_customer_group("g", customers=[{"a": "x"}], workspace_id=other.workspace_id)
    await api.log_in(other)
    (row,) = await rows(api, group)
    mine = await api.group([{"a": "x"}], a="string")
    await api.log_in()
    (own,) = await rows(api, mine)

    assert row["account_id"] == other.account_id
    assert row["extended_profile"]["kid"] != own["extended_profile"]["kid"]
    assert api.sandbox.decrypt(row["customer_id"], row["extended_profile"]) == {"a": "x"}


async def test_customers_made_in_code_must_be_valid(api: Any) -> None:
    with pytest.raises(SandboxError, match="must be a decimal number"):
        await api.group([{"n": "x"}], n="number")
    assert await api.ok("POST", "/v1/cg", workspace_id=api.sandbox.workspace_id) == []
