"""What the page shows, to whom, and that the service does not notice."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from page_markup import Markup

from nudgescribe_async.sandbox import BadAnswer, Delay, LoseAnswer, LoseRequest, RateLimit, Sandbox, Status
from nudgescribe_async.sandbox.page.masking import body_text, mask, shortened, visible, ways_to_write

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9"}
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"


class Browser:
    """Asks for pages as a browser does, and reads them."""

    def __init__(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.http = http

    async def open(self, path: str = "/", status: int = 200) -> Markup:
        async with self.http.get(path) as answer:
            text = await answer.text()
            assert answer.status == status, text
            assert answer.content_type == "text/html"
            return Markup(text)

    async def token(self) -> str:
        return str((await self.open()).all("input", name="token")[0]["value"])


@pytest.fixture
async def browse() -> AsyncIterator[Callable[[Sandbox], Browser]]:
    sessions: list[aiohttp.ClientSession] = []

    def begin(sandbox: Sandbox) -> Browser:
        sessions.append(aiohttp.ClientSession(sandbox.url, headers=HTML))
        return Browser(sandbox, sessions[-1])

    yield begin
    for session in sessions:
        await session.close()


async def raw(api: Any, method: str, path: str, **body: object) -> int:
    """The status of an answer that need not be one of the contract's; 0 if there is none."""
    headers = {"Authorization": f"Bearer {api.token}"}
    try:
        async with api.http.request(method, path, json=body, headers=headers) as answer:
            return int(answer.status)
    except aiohttp.ServerDisconnectedError:
        return 0


async def evil(api: Any) -> tuple[str, str]:
    """A group and a campaign in which every name and value is hostile."""
    sandbox = api.sandbox
    await sandbox.create_workspace(EVIL)
    await sandbox.create_profile_field("external_id", "string")
    await sandbox.create_profile_field(EVIL, "string")
    group = await sandbox.create_customer_group(EVIL, customers=[{"external_id": EVIL, EVIL: EVIL + "\u202e"}])
    campaign = await sandbox.create_campaign(EVIL, group, segment_by={EVIL: None}, template=EVIL + "{segment}")
    await sandbox.set_campaign_state(campaign, EVIL)
    return group, campaign


# --- what it shows ----------------------------------------------------------------------------------------------------


async def test_the_overview_shows_what_there_is(start: Any, browse: Any) -> None:
    api = await start(example=True, job_time=3_600)
    await api.ok("POST", "/v1/messages/publish", campaign_id=api.sandbox.example.campaigns["Spring sale"])

    page = await browse(api.sandbox).open()

    example = api.sandbox.example
    moments = [row[2] for row in page.table("Groups, oldest first")]
    assert page.table("Groups, oldest first") == [
        ["January 1997", "467", moments[0], example.customer_groups["January 1997"]],
        ["Returning customers", "247", moments[1], example.customer_groups["Returning customers"]],
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", moment) for moment in moments)
    assert [row[:4] for row in page.table("Campaigns, oldest first")] == [
        ["Welcome back", "Published", "1", "January 1997"],
        ["Spring sale", "Ready to publish being published", "1", "January 1997"],
        ["Thank you", "Ready for review", "1", "Returning customers"],
    ]
    assert [row[:4] for row in page.table("What is known of each customer")][1:] == [
        ["first_purchase", "Date", "yyyy-MM-dd", "no"],
        ["last_purchase", "Date", "yyyy-MM-dd", "no"],
        ["purchases", "number", "", "no"],
        ["cds_bought", "number", "", "no"],
        ["total_spend", "currency", "USD", "no"],
    ]
    assert [row[:2] for row in page.table("Queued jobs")] == [["publish", "Spring sale"]]
    assert page.table("Workspaces") == [["Default workspace", api.sandbox.workspace_id, api.sandbox.account_id]]
    assert ["messages.publish", "1", "1", "0", "0", "0", "1"] in page.table("Requests by operation")
    log = page.table("The last requests, newest first")
    assert [row[2] for row in log] == ["200", "200"]
    assert log[0][1].startswith("messages.publish Request2, took ")
    assert log[0][3] == "changed"
    assert "1 Published 1 Ready for review 1 Ready to publish" in page.text


async def test_an_empty_sandbox_says_so(api: Any, browse: Any) -> None:
    page = await browse(api.sandbox).open()

    for sentence in ("There is no customer group yet", "There is no campaign yet", "There is no profile field yet"):
        assert sentence in page.text
    assert "Nothing is queued." in page.text
    assert "Nothing goes wrong at the moment." in page.text


async def test_customers_are_shown_page_by_page_and_decrypted(start: Any, browse: Any) -> None:
    api = await start(example=True)
    group = api.sandbox.example.customer_groups["January 1997"]
    browser = browse(api.sandbox)
    known = {profile["external_id"]: profile for profile in await api.profiles(group)}

    seen: list[list[str]] = []
    for number in range(1, 11):
        page = await browser.open(f"/_sandbox/groups/{group}?page={number}")
        seen += page.table("Customers in the order")
        assert f"of 467 Previous page {number} of 10" in page.text or number == 1
        assert "This is test data" in page.text

    assert [row[1] for row in seen] == list(known)
    assert len({row[-1] for row in seen}) == 467
    assert [row[0] for row in seen] == [str(number) for number in range(1, 468)]
    assert all(row[2] == known[row[1]]["first_purchase"] and row[4] == str(known[row[1]]["purchases"]) for row in seen)
    beyond = await browser.open(f"/_sandbox/groups/{group}?page=999999999")
    assert beyond.table("Customers in the order") == seen[450:]
    for nonsense in ("0", "-1", "x", "1" * 5_000, "%00"):
        odd = await browser.open(f"/_sandbox/groups/{group}?page={nonsense}")
        assert odd.table("Customers in the order") == seen[:50]


async def test_a_group_without_customers_and_a_customer_without_values(api: Any, browse: Any) -> None:
    group = await api.group([{"a": "1"}, {}], a="string")
    empty = await api.sandbox.create_customer_group("empty")
    browser = browse(api.sandbox)

    page = await browser.open(f"/_sandbox/groups/{group}")
    assert [row[1] for row in page.table("Customers in the order")] == ["1", "none"]
    assert "The group is empty." in (await browser.open(f"/_sandbox/groups/{empty}")).text


async def test_a_campaign_shows_its_runs_messages_and_files(start: Any, browse: Any) -> None:
    api = await start(example=True, rows_per_file=200)
    example = api.sandbox.example
    campaign = example.campaigns["Welcome back"]
    body = {"campaign_id": campaign, "new_customer_group_id": example.customer_groups["Returning customers"]}
    await api.ok("POST", "/v1/campaign/rerun/initiate", **body)
    await api.sandbox.approve(campaign)
    await api.ok("POST", "/v1/messages/publish", campaign_id=campaign)
    await api.sandbox.drain()
    browser = browse(api.sandbox)

    page = await browser.open(f"/_sandbox/campaigns/{campaign}")

    assert [row[:7] for row in page.table("Runs, newest first")] == [
        ["Run 2", "Returning customers", "3", "2", "1", "1", "3"],
        ["Run 1", "January 1997", "3", "", "", "", "0"],
    ]
    active = page.table("Messages that are not archived")
    archived = page.table("Messages of earlier runs")
    assert [(row[0], row[1], row[2]) for row in active] == [
        ("purchases: 2 to below 5", "2", "Published"),
        ("purchases: 5 to below 10", "2", "Published"),
        ("purchases: 10 and above", "2", "Published"),
    ]
    assert {row[1] for row in archived} == {"1"}
    assert [row[:3] for row in page.table("Published files")] == [
        ["Run 2, page 1", "2", "200"],
        ["Run 2, page 2", "2", "47"],
        ["Run 1, page 1", "1", "200"],
        ["Run 1, page 2", "1", "200"],
        ["Run 1, page 3", "1", "67"],
    ]
    only = await browser.open(f"/_sandbox/campaigns/{campaign}?run=1")
    assert "There are no active messages." in only.text
    assert only.table("Messages of earlier runs") == archived
    assert "Only messages of run 1" in only.text


async def test_a_file_shows_the_rows_that_a_client_gets(start: Any, browse: Any) -> None:
    api = await start(example=True)
    campaign = api.sandbox.example.campaigns["Welcome back"]
    rows = await api.ok("POST", "/v1/messages/fetch", campaign_id=campaign, page=1, format="json")
    browser = browse(api.sandbox)
    (link,) = (
        str(found["href"])
        for found in (await browser.open(f"/_sandbox/campaigns/{campaign}")).all("a")
        if str(found.get("id")).startswith("file-")
    )

    seen: list[list[str]] = []
    for number in range(1, 11):
        seen += (await browser.open(f"{link}?page={number}")).table("The file as it was published")

    assert seen == [
        [str(number), *(" ".join(str(value).split()) for value in row.values())] for number, row in enumerate(rows, 1)
    ]


async def test_long_lists_are_cut_into_pages(api: Any, browse: Any) -> None:
    group = await api.group()
    names = [f"campaign {number:02}" for number in range(60)]
    for name in names:
        await api.sandbox.create_campaign(name, group)
    browser = browse(api.sandbox)

    seen = [
        row[0]
        for number in (1, 2, 3)
        for row in (await browser.open(f"/?campaigns={number}&groups=1")).table("Campaigns, oldest")
    ]

    assert seen == names
    page = await browser.open("/?campaigns=2")
    assert page.one("a", id="campaigns-next")["href"] == "?campaigns=3#campaigns"
    assert "26 to 50 of 60" in page.text


async def test_queued_jobs_say_what_they_are_about(start: Any, browse: Any) -> None:
    api = await start(queue_above=0, job_time=3_600)
    group = await api.group(n="number")
    gone = await api.sandbox.create_customer_group("gone")
    campaign = await api.sandbox.create_campaign("c", group)
    for chosen in (group, gone):
        await api.ok(
            "POST",
            "/v1/customer/check",
            workspace_id=api.sandbox.workspace_id,
            customer_group_id=chosen,
            customers=[{"n": 1}],
        )
    await api.ok("DELETE", "/v1/cg", workspace_id=api.sandbox.workspace_id, customer_group_id=gone)
    body = {"campaign_id": campaign, "new_customer_group_id": group}
    assert (await api.call("POST", "/v1/campaign/rerun/initiate", **body)).status == 200

    rows = (await browse(api.sandbox).open()).table("Queued jobs")

    assert [row[:2] for row in rows] == [["upload", "group"], ["upload", ""], ["rerun", "c"]]


async def test_all_accounts_and_workspaces_are_shown(api: Any, browse: Any) -> None:
    other = await api.sandbox.add_account()
    group = await api.sandbox.create_customer_group("theirs", workspace_id=other.workspace_id)
    await api.sandbox.create_profile_field("f", "string", workspace_id=other.workspace_id)
    await api.group()

    page = await browse(api.sandbox).open()

    assert [row[2] for row in page.table("Workspaces")] == [api.sandbox.account_id, other.account_id]
    assert [row[:2] for row in page.table("Groups")] == [
        ["theirs", "Default workspace"],
        ["group", "Default workspace"],
    ]
    assert page.table("What is known")[0][:2] == ["f", "Default workspace"]
    assert "theirs" in (await browse(api.sandbox).open(f"/_sandbox/groups/{group}")).text


@pytest.mark.parametrize("path", ["groups/x", "campaigns/x", "files/x", "nothing", "", "static/../site.py", "static/x"])
async def test_what_there_is_not_is_404_and_a_page(api: Any, browse: Any, path: str) -> None:
    page = await browse(api.sandbox).open(f"/_sandbox/{path}", status=404)

    assert "Go to the overview" in page.text
    assert "data-events" not in page.one("body")  # there is nothing to follow


# --- the log ----------------------------------------------------------------------------------------------------------


async def test_the_log_tells_what_went_wrong(api: Any, browse: Any) -> None:
    sandbox = api.sandbox
    sandbox.inject(Status(503), operation="customer_groups.list")
    sandbox.inject(LoseAnswer(), operation="customer_groups.create")
    sandbox.inject(Delay(0), operation="customer_groups.create")
    assert await raw(api, "POST", "/v1/cg", workspace_id=sandbox.workspace_id) == 503
    sandbox.inject(LoseRequest(), operation="campaigns.list", times=None)
    assert await raw(api, "PUT", "/v1/cg", workspace_id=sandbox.workspace_id, group_name="g") in {0, 200}
    assert await raw(api, "POST", "/v1/campaign/all") == 0
    assert await raw(api, "POST", "/v1/cg") == 401
    page = await browse(sandbox).open("/_sandbox/log")

    rows = [(row[1].partition(" Request")[0], row[2], row[3]) for row in page.table("Requests, newest first")]

    assert rows[0] == ("customer_groups.list", "401 refused", "")
    assert rows[-2:] == [("customer_groups.list", "503 failed", "fault: Status"), ("auth.authenticate", "200", "")]
    assert ("customer_groups.create", "no answer", "fault: Delay+LoseAnswer changed") in rows
    assert ("campaigns.list", "no answer", "fault: LoseRequest") in rows
    assert len(rows) == len(sandbox.log)


async def test_the_log_can_be_searched_and_paged(api: Any, browse: Any) -> None:
    for number in range(230):
        path = "/v1/campaign/all" if number % 2 else "/v1/cg"
        await api.call("POST", path, **({} if number % 2 else {"workspace_id": api.sandbox.workspace_id}))
    await api.call("PUT", "/v1/cg", workspace_id=api.sandbox.workspace_id, group_name="g")
    api.sandbox.inject(Status(500))
    assert await raw(api, "POST", "/v1/campaign/all") == 500
    browser = browse(api.sandbox)

    async def listed(query: str) -> tuple[list[str], Markup]:
        page = await browser.open(f"/_sandbox/log?{query}")
        return [row[1].partition(" ")[0] for row in page.table("Requests, newest first")], page

    seen: list[str] = []
    query = ""
    while True:
        names, page = await listed(query)
        seen += names
        older = [str(link["href"]) for link in page.all("a") if "before=" in str(link["href"])]
        if not older:
            break
        query = older[-1].lstrip("?")
    assert len(seen) == 233
    assert (await listed("operation=customer_groups.create"))[0] == ["customer_groups.create"]
    assert (await listed("outcome=failed"))[0] == ["campaigns.list"]
    assert (await listed("outcome=faults"))[0] == ["campaigns.list"]
    assert (await listed("outcome=changes"))[0] == ["customer_groups.create"]
    assert (await listed("outcome=faults&operation=customers.list"))[0] == []
    assert len((await listed("outcome=nonsense&before=10"))[0]) == 9
    assert (await listed("before=1"))[0] == []


async def test_a_long_body_is_shortened(api: Any, browse: Any) -> None:
    name = "x" * 50_000
    await api.call("PUT", "/v1/cg", workspace_id=api.sandbox.workspace_id, group_name=name)
    many = [{"a": str(number)} for number in range(3_000)]
    await api.call("POST", "/v1/customer/check", workspace_id="w", customer_group_id="g", customers=many)

    page = await browse(api.sandbox).open()

    assert page.text.count("The body is shortened.") == 2
    assert len(page.text) < 20_000
    assert "x" * 200 not in page.table("Groups")[0][0]


async def test_long_values_messages_and_names_are_shortened(api: Any, browse: Any) -> None:
    group = await api.group([{"a": "v" * 5_000}], a="string")
    campaign = await api.sandbox.create_campaign("n" * 5_000, group, segment_by={"a": None}, template="t" * 5_000)
    browser = browse(api.sandbox)

    assert "v" * 1_000 + "\u2026" in (await browser.open(f"/_sandbox/groups/{group}")).text
    page = await browser.open(f"/_sandbox/campaigns/{campaign}")
    assert "t" * 1_000 + "\u2026" in page.text
    assert "n" * 120 + "\u2026" in page.text
    assert len(page.text) < 5_000


async def test_downloads_are_in_the_log_without_their_signature(start: Any, browse: Any) -> None:
    api = await start(example=True)
    campaign = api.sandbox.example.campaigns["Welcome back"]
    link = (await api.ok("POST", "/v1/messages/fetch", campaign_id=campaign, page=1, format="url"))["url"]
    async with aiohttp.ClientSession() as http, http.get(link) as answer:
        assert answer.status == 200
    signature = link.rpartition("=")[2]

    browser = browse(api.sandbox)
    async with browser.http.get("/") as answer:
        text = await answer.text()

    assert "download /files/" in Markup(text).text
    assert signature not in text


# --- nothing hostile, nothing secret ----------------------------------------------------------------------------------


async def test_hostile_names_are_texts(api: Any, browse: Any) -> None:
    group, campaign = await evil(api)
    await api.call("POST", "/v1/cg", **{EVIL: EVIL, "workspace_id": EVIL})
    await api.send("GET", "/v1/%3Cscript%3Ealert(1)%3C/script%3E%22%3E%ff%00", token=None)
    api.sandbox.inject(Status(503, headers={"x-evil": "<b>"}, body=EVIL.encode()))
    await api.sandbox.approve(campaign)
    browser = browse(api.sandbox)
    pages = [
        await browser.open(path)
        for path in ("/", f"/_sandbox/groups/{group}", f"/_sandbox/campaigns/{campaign}", "/_sandbox/log")
    ]

    for page in pages:
        assert "<script>alert(" in page.text
        assert page.all("script") == [{"src": "/_sandbox/static/page.js", "defer": None}]
        assert page.all("img") == [{"src": "/_sandbox/static/icon.svg", "alt": "", "width": "24", "height": "24"}]
        assert not [name for _, found in page.elements for name in found if name.startswith(("on", "style"))]
    assert EVIL in pages[0].text
    assert EVIL + "\\u202e" in pages[1].text
    assert '/v1/<script>alert(1)</script>">' in pages[0].text
    assert not any("\u202e" in page.text or "\x00" in page.text for page in pages)


async def test_published_files_of_hostile_texts_are_texts(api: Any, browse: Any) -> None:
    await api.sandbox.create_profile_field("external_id", "string")
    group = await api.sandbox.create_customer_group("g", customers=[{"external_id": EVIL}])
    campaign = await api.sandbox.create_campaign(EVIL, group, template=EVIL, status="Published")
    browser = browse(api.sandbox)
    (link,) = (
        str(found["href"])
        for found in (await browser.open(f"/_sandbox/campaigns/{campaign}")).all("a")
        if "/files/" in str(found["href"])
    )

    page = await browser.open(link)

    assert page.table("The file as it was published")[0][2:] == [EVIL, "everyone", EVIL]
    assert len(page.all("script")) == 1


async def test_no_secret_is_ever_shown(api: Any, browse: Any) -> None:
    sandbox = api.sandbox
    given = sandbox.credentials
    secrets = [given.api_key, given.password, given.email, api.token, api.refresh_token, sandbox.profile_key.hex()]
    context = json.dumps({"api_access": True, "api_code": "the-code-1234"})
    await api.send("GET", "/v1/auth", token=api.refresh_token, headers={"x-auth-context": context})
    # Where none belongs: in paths, and in fields of other names.
    for place in secrets[:5]:
        await api.call("POST", f"/v1/{place}")
        await api.call("POST", "/v1/cg", workspace_id=f"Bearer {place}", nested=[{"note": f"see {place}"}])
    await api.call("POST", "/v1/cg", **{"x-auth-context": context, "workspace_id": "?X-Amz-Signature=abcdef99&b=1"})
    group = await api.group()
    browser = browse(sandbox)

    shown = ""
    for path in ("/", "/_sandbox/log", f"/_sandbox/groups/{group}"):
        async with browser.http.get(path) as answer:
            shown += await answer.text() + str(answer.headers)

    for secret in [*secrets, "the-code-1234", "abcdef99"]:
        assert secret not in shown
        assert len(secret) < 20 or secret[5:] not in shown
    assert (
        '"password": "***"' in Markup(shown[: shown.index("</html>") + 8]).text
        or "&#34;password&#34;: &#34;***&#34;" in shown
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain /v1/cg", "plain /v1/cg"),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
        ("BEARER%20abc", "BEARER ***"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl!", "***!"),
        ("/f?expires=1&signature=abc&x=1", "/f?expires=1&signature=***&x=1"),
        ("?X-Amz-Security-Token=abc#f", "?X-Amz-Security-Token=***#f"),
        ("key nsk_0123456789abcdef", "key ***"),
        ("it is hunter2, twice hunter2", "it is ***, twice ***"),
    ],
)
def test_secrets_are_known_by_their_shape(text: str, shown: str) -> None:
    assert mask(text, ["hunter2"]) == shown


def test_invisible_letters_are_written_out() -> None:
    assert visible("a\u202eb\x00c\x1b[0m\ud800\n\tü\u2028") == "a\\u202eb\\u0000c\\u001b[0m\\ud800\n\tü\\u2028"
    assert shortened("abcdef", 3) == "abc\u2026"
    assert shortened("abc", 3) == "abc"


def test_a_body_is_masked_by_the_names_in_it_and_cut() -> None:
    secret = {"xAuthContext": {"a": 1}, "newPassword": "n", "client_secret": [1], "X-Amz-Signature": "s"}
    body = {**secret, "list": [{"session_token": "s"}, "b", [], {}], "tokens": 5, "a": [True, None, 1.5, '\n"']}
    shown = {**dict.fromkeys(secret, "***"), **body, "list": [{"session_token": "***"}, "b", [], {}]}
    shown |= dict.fromkeys(secret, "***")

    text, whole = body_text(body, 1_000)

    assert whole
    assert text == json.dumps(shown, indent=2)
    cut, whole = body_text(["x" * 10] * 1_000_000, 100)
    assert not whole
    assert len(cut) < 200


# --- the service does not notice --------------------------------------------------------------------------------------


async def test_looking_counts_nowhere_and_nothing_befalls_it(start: Any, browse: Any) -> None:
    api = await start(example=True, latency=0.001)
    sandbox = api.sandbox
    before = sandbox.log, dict(sandbox.effects), sandbox.count(None)
    limit = sandbox.inject(RateLimit(1, 3_600))
    injections = [sandbox.inject(fault, times=None) for fault in (Status(503), LoseRequest(), Delay(3_600))]
    browser = browse(sandbox)
    for path in (
        "/",
        f"/_sandbox/groups/{sandbox.example.customer_groups['January 1997']}",
        f"/_sandbox/campaigns/{sandbox.example.campaigns['Welcome back']}",
        "/_sandbox/log",
        "/_sandbox/static/page.js",
        "/_sandbox/nothing",
    ):
        async with browser.http.get(path) as answer:
            assert answer.status == (404 if path.endswith("nothing") else 200)
            assert answer.headers["x-request-id"]

    assert (sandbox.log, dict(sandbox.effects), sandbox.count(None)) == before
    assert [injection.fired for injection in (limit, *injections)] == [0, 0, 0, 0]
    assert sandbox._now.api.waiting == 0


async def test_the_root_belongs_to_the_service_for_all_but_browsers(api: Any) -> None:
    for headers in ({}, {"Accept": "application/json"}, {"Accept": "*/*"}):
        answer = await api.send("GET", "/", token=None, headers=headers)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    for method in ("POST", "HEAD", "OPTIONS"):
        answer = await api.send(method, "/", token=None, headers=HTML)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    answer = await api.send("GET", "/v1/nothing", token=None, headers=HTML)
    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/json")
    assert len(api.sandbox.log) == 8


async def test_a_sandbox_without_a_page_has_none_of_its_paths(start: Any) -> None:
    api = await start(page=False)

    assert api.sandbox.page_url is None
    answer = await api.send("GET", "/", token=None, headers=HTML)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    for path in ("/_sandbox/log", "/_sandbox/events", "/_sandbox/static/page.js", "/_sandbox"):
        answer = await api.send("GET", path, token=None, headers=HTML)
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    with pytest.raises(TypeError, match="page must be True or False, not str"):
        Sandbox(page="no")  # type: ignore[arg-type]


async def test_the_sandbox_says_where_its_page_is(api: Any) -> None:
    assert api.sandbox.page_url == api.sandbox.url + "/"
    async with Sandbox(listen=False) as sandbox:
        assert sandbox.page_url is None


async def test_a_sandbox_that_opens_no_socket_has_its_page_all_the_same() -> None:
    from aiohttp.test_utils import TestClient, TestServer

    async with (
        Sandbox(listen=False) as sandbox,
        TestClient(TestServer(sandbox.app)) as client,
        client.get("/", headers={**HTML, "Host": "api.sandbox.invalid"}) as answer,
    ):
        assert answer.status == 200


async def test_without_jinja_the_page_says_what_to_do_and_the_service_works(
    api: Any, browse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "nudgescribe_async.sandbox.page.looks", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)

    async with browse(api.sandbox).http.get("/") as answer:
        assert answer.status == 501
        assert 'pip install "nudgescribe_async[sandbox]"' in await answer.text()
    assert (await api.call("POST", "/v1/campaign/all")).status == 200


async def test_nobody_loads_the_templates_for_a_sandbox_that_nobody_looks_at() -> None:
    code = (
        "import sys, asyncio\n"
        "from nudgescribe_async.sandbox import Sandbox\n"
        "async def main():\n"
        "    async with Sandbox(): pass\n"
        "asyncio.run(main())\n"
        "sys.exit('jinja2' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0


async def test_a_page_that_fails_says_so(
    api: Any, browse: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("nudgescribe_async.sandbox.page.views.workspaces", fail)
    page = await browse(api.sandbox).open(status=500)

    assert "The page failed" in page.text
    assert "on purpose" not in page.text
    assert "on purpose" in caplog.text


async def test_a_group_is_counted_while_the_service_goes_on(api: Any, browse: Any) -> None:
    """No piece of work for the page holds more than one count: requests of the service come in between."""
    for number in range(5):
        await api.sandbox.create_customer_group(str(number))
    seen: list[str] = []
    store = api.sandbox._now.store
    read = store.read

    async def noted(work: Any) -> Any:
        seen.append(getattr(getattr(work, "func", work), "__qualname__", "?"))
        return await read(work)

    store.read = noted
    await browse(api.sandbox).open()

    assert seen.count("customer_count") == 5


# --- for everybody ----------------------------------------------------------------------------------------------------


async def test_pages_can_be_read_without_eyes(start: Any, browse: Any) -> None:
    api = await start(example=True)
    sandbox = api.sandbox
    sandbox.inject(Status(503), times=2)
    browser = browse(sandbox)
    assert await raw(api, "POST", "/v1/campaign/all") == 503
    campaign = await browser.open(f"/_sandbox/campaigns/{sandbox.example.campaigns['Welcome back']}")
    file = next(str(found["href"]) for found in campaign.all("a") if "/files/" in str(found["href"]))
    pages = [
        campaign,
        await browser.open(),
        await browser.open(f"/_sandbox/groups/{sandbox.example.customer_groups['January 1997']}"),
        await browser.open(file),
        await browser.open("/_sandbox/log"),
        await browser.open("/_sandbox/nothing", status=404),
    ]

    titles = set()
    for page in pages:
        assert page.one("html")["lang"] == "en"
        assert len(page.all("main")) == len(page.all("h1")) == len(page.all("header")) == 1
        levels = [int(tag[1]) for tag, _ in page.elements if tag in {"h1", "h2", "h3", "h4"}]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        ids = [found["id"] for _, found in page.elements if "id" in found]
        assert len(ids) == len(set(ids))
        labelled = {found["for"] for found in page.all("label")}
        for tag in ("input", "select", "textarea"):
            for found in page.all(tag):
                assert found.get("type") == "hidden" or found["id"] in labelled
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert {found[name] for _, found in page.elements if name in found} <= set(ids)
        for found in page.all("a"):
            target = str(found["href"])
            assert not target.startswith("#") or target[1:] in ids
        assert len(page.all("caption")) == len(page.all("table")) == len(page.tables)
        assert all(found.get("scope") in {"col", "row"} for found in page.all("th"))
        assert all("aria-label" in found for found in page.all("nav"))
        assert all(found.get("tabindex") in {None, "0", "-1"} for _, found in page.elements)
        assert page.elements[[tag for tag, _ in page.elements].index("body") + 1] == (
            "a",
            {"class": "skip", "href": "#main"},
        )
        titles.add(page.text.partition(" · ")[0])
    assert len(titles) == len(pages)


async def test_times_say_what_they_are(api: Any, browse: Any) -> None:
    page = await browse(api.sandbox).open()

    moment = datetime.fromisoformat(str(page.all("time")[-1]["datetime"]))
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert "Times are UTC." in page.text


# --- what was found by attacking it -----------------------------------------------------------------------------------


async def test_own_secrets_are_masked_wherever_they_stand(api: Any, browse: Any) -> None:
    """In names, values and messages too, at the edge of what is shortened, and in what a URL or Base64 makes of them."""
    sandbox = api.sandbox
    given = sandbox.credentials
    secrets = [given.api_key, given.password, given.email]
    await sandbox.create_workspace(given.email)
    group = await api.group([{"a": f"{'v' * 980}{given.api_key}", "b": given.password}], a="string", b="string")
    await sandbox.create_customer_group(f"{'x' * 100}{given.api_key}")
    await sandbox.create_customer_group(given.password)
    campaign = await sandbox.create_campaign(given.email, group, template=f"Dear {given.api_key}", status="Published")
    await api.send("GET", f"/v1/{quote(quote(given.email, safe=''), safe='')}", token=None)
    for before in range(3):
        code = base64.b64encode(b"x" * before + f"{given.email}:{given.password}".encode()).decode()
        await api.send("GET", f"/v1/{code}", token=None)
        await api.call("POST", "/v1/cg", note=f"Basic {code}")
    sandbox.inject(BadAnswer(b"", content_type=f"text/{given.password}"), times=None, operation="campaigns.list")
    browser = browse(sandbox)
    pages = ["/", f"/?groups={given.password}", f"/_sandbox/groups/{group}", f"/_sandbox/campaigns/{campaign}"]
    page = await browser.open(pages[-1])
    pages += [str(found["href"]) for found in page.all("a") if "/_sandbox/files/" in str(found["href"])]
    pages += ["/_sandbox/log", f"/_sandbox/log?operation={given.api_key}&before=2"]

    shown = ""
    for path in pages:
        async with browser.http.get(path) as answer:
            assert answer.status == 200
            shown += await answer.text()

    assert len(pages) == 7
    for secret in secrets:
        for part in (secret, secret[:12], secret[-12:], quote(secret, safe="")):
            assert part not in shown, part
    codes = [base64.b64encode(f"{given.email}:{given.password}".encode()[start:]).decode() for start in range(3)]
    assert not [code for code in codes for end in range(12, len(code)) if code[end - 12 : end] in shown]


def test_a_secret_is_known_in_base64_wherever_it_begins_there() -> None:
    for secret in ("nsk_0123456789abcdef", "a?>~\u00fe\u00ff-hunter"):
        known = ways_to_write(secret)
        for before in range(4):
            for after in range(4):
                for encode in (base64.b64encode, base64.urlsafe_b64encode):
                    text = encode(b"<" * before + secret.encode() + b">" * after).decode()
                    assert len(mask(text, known).replace("***", "")) <= (before + after + 2) * 4 / 3 + 4


@pytest.mark.parametrize("letter", ["\u061c", "\u200b", "\ufeff", "\u00ad", "\U000e0041", "\u2060", "\u2066", "\x7f"])
def test_letters_that_nobody_sees_are_written_out(letter: str) -> None:
    assert visible(f"a{letter}b") == f"a\\u{ord(letter):04x}b"


def test_joiners_are_left_where_they_are() -> None:
    for text in ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f469\u200d\U0001f680"):
        assert visible(text) == text


async def test_a_page_that_fails_tells_the_log_of_the_process_no_secret(
    api: Any, browse: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("nudgescribe_async.sandbox.page.views.group", fail)
    password = api.sandbox.credentials.password
    await browse(api.sandbox).open(f"/_sandbox/groups/{password}%0aCRITICAL:root:forged", status=500)

    (record,) = [record for record in caplog.records if record.name.endswith("page.site")]
    assert record.getMessage().endswith("/_sandbox/groups/***\\u000aCRITICAL:root:forged")
    assert password not in caplog.text


async def test_faults_from_code_are_shown_however_large_their_numbers(api: Any, browse: Any) -> None:
    api.sandbox.inject(Status(503), times=10**5_000, skip=10**5_000, operation="campaigns.list")

    row = (await browse(api.sandbox).open()).table("What may still go wrong")[0]

    assert row[2] == "2**63 or more times, after 2**63 or more that are spared"


async def test_groups_are_counted_again_only_after_a_change(api: Any, browse: Any) -> None:
    """A job that reads a large group makes the page look again and again: that must not cost a count each time."""
    group = await api.group([{"external_id": "1"}], external_id="string")
    await api.sandbox.create_customer_group("another")
    browser = browse(api.sandbox)
    queries: list[str] = []
    await browser.open()
    await api.sandbox._now.store.read(lambda db: db._sql.set_trace_callback(queries.append))

    for _ in range(3):
        await api.call("POST", "/v1/customer", customer_group_id=group, page=1)
        await browser.open()
    page = await browser.open()
    counts = [query for query in queries if "count(*)" in query and "FROM customers" in query]
    assert (counts, page.table("Groups")[0][1]) == ([], "1")

    (customer,) = await api.ok("POST", "/v1/customer", customer_group_id=group, page=1)
    await api.ok("DELETE", "/v1/customer", customer_group_id=group, customer_ids=[customer["customer_id"]])
    page = await browser.open()
    assert page.table("Groups")[0][1] == "0"
    await api.sandbox._now.store.read(lambda db: db._sql.set_trace_callback(None))


async def test_the_service_has_its_turn_between_two_rows_of_the_log(
    api: Any, browse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        await api.call("POST", "/v1/cg", workspace_id="w")
    seen: list[str] = []

    def noted(body: object, limit: int) -> tuple[str, bool]:
        seen.append("row")
        return body_text(body, limit)

    async def serve() -> None:
        while True:
            seen.append("turn")
            await asyncio.sleep(0)

    monkeypatch.setattr("nudgescribe_async.sandbox.page.record.body_text", noted)
    service = asyncio.create_task(serve())
    browser = browse(api.sandbox)
    await browser.open("/_sandbox/log")
    await browser.open()
    service.cancel()

    assert seen.count("row") == len(api.sandbox.log)  # and not again for the second page
    assert ("row", "row") not in set(pairwise(seen))


def test_a_large_body_costs_no_more_than_what_is_shown_of_it() -> None:
    class Names(dict[str, object]):
        read = 0

        def items(self) -> Any:
            for item in super().items():
                Names.read += 1
                yield item

    cut, whole = body_text([Names({str(number): number for number in range(10_000)})], 100)

    assert (len(cut) < 200, whole, Names.read < 50) == (True, False, True)


async def test_messages_are_sorted_without_their_texts(start: Any, browse: Any) -> None:
    api = await start(example=True)
    queries: list[str] = []
    await api.sandbox._now.store.read(lambda db: db._sql.set_trace_callback(queries.append))
    page = await browse(api.sandbox).open(f"/_sandbox/campaigns/{api.sandbox.example.campaigns['Welcome back']}")
    await api.sandbox._now.store.read(lambda db: db._sql.set_trace_callback(None))

    sorting = [query for query in queries if "FROM messages" in query and "OFFSET" in query]
    assert [query.partition(" FROM ")[0] for query in sorting] == ["SELECT position"] * 2
    assert len(page.table("Messages that are not archived")) > 1


async def test_an_application_that_outlives_its_sandbox_says_that_it_has_stopped(
    browse: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Sandbox(listen=False) as sandbox:
        server = TestServer(sandbox.app)
        await server.start_server()
    async with aiohttp.ClientSession(str(server.make_url("/")), headers=HTML) as http:
        for path in ("/", "/_sandbox/log", "/_sandbox/groups/x", "/_sandbox/events"):
            async with http.get(path) as answer:
                assert answer.status == 503
                assert "The sandbox has stopped." in await answer.text()
    await server.close()
    assert caplog.records == []
