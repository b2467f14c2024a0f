"""Each planted difference is found, and nothing else; on the sandbox as it is, nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from nudgescribe_async.contract_doctor import Difference, examine, examine_recording
from nudgescribe_async.sandbox import Sandbox

CUSTOMERS, PAGES = "/v1/customer", "/v1/customer/pages"
GROUPS, FIELDS, CAMPAIGNS = "/v1/cg", "/v1/cpf", "/v1/campaign/all"
HISTORY, MESSAGES = "/v1/campaign/rerun/history", "/v1/campaign/rerun/messages"
FILES, FETCH, LOGIN = "/v1/messages/pages", "/v1/messages/fetch", "/v1/auth"

After = Callable[[str, dict[str, Any], Any], None]


def on(path: str, change: Callable[[Any], Any], status: int = 200) -> After:
    """Another JSON for the answers of an operation."""

    def after(at: str, asked: dict[str, Any], answer: Any) -> None:
        if at == path and answer.status == status and answer.json is not None:
            answer.json = change(answer.json)

    return after


def each(path: str, change: Callable[[dict[str, Any]], Any]) -> After:
    """Another shape of each item of a list."""

    def changed(items: Any) -> Any:
        for item in items:
            change(item)
        return items

    return on(path, changed)


def each_campaign(change: Callable[[dict[str, Any]], Any]) -> After:
    return each(CAMPAIGNS, lambda place: [change(campaign) for campaign in place["campaigns"]])


def refuse(path: str, status: int) -> After:
    def after(at: str, asked: dict[str, Any], answer: Any) -> None:
        if at == path:
            answer.status, answer.json = status, {"success": False, "message": "no", "code": "no"}

    return after


def content_type(path: str, kind: str, only: str | None = None) -> After:
    def after(at: str, asked: dict[str, Any], answer: Any) -> None:
        if at == path and answer.status == 200 and asked.get("format") == only:
            answer.headers["Content-Type"] = kind

    return after


def html(at: str, asked: dict[str, Any], answer: Any) -> None:
    if at == FIELDS:
        answer.json, answer.data = None, b"<html><body>Have a nice day</body></html>"


def nothing(at: str, asked: dict[str, Any], answer: Any) -> None:
    if at == FIELDS:
        answer.json, answer.data = None, b""


def shorter(at: str, asked: dict[str, Any], answer: Any) -> None:
    if at == CUSTOMERS and answer.status == 200 and asked["page"] % 2 == 0:
        answer.json = answer.json[:50]


def always_the_first(at: str, asked: dict[str, Any]) -> None:
    if at == CUSTOMERS:
        asked["page"] = 1


def without_window(at: str, asked: dict[str, Any]) -> None:
    if at == CAMPAIGNS:
        asked.pop("published_from", None)


def epoch(text: str) -> float:
    return int(datetime.fromisoformat(text).timestamp())


def second_run(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*items, items[0] | {"run_number": 2, "rerun_id": "11111111-2222-4333-8444-555555555555"}]


def json_file(at: str, asked: dict[str, Any], answer: Any) -> None:
    if at == FETCH and answer.status == 200 and asked.get("format") == "csv":
        answer.json, answer.headers["Content-Type"] = {"rows": []}, "text/csv"


def plainly(at: str, asked: dict[str, Any], answer: Any) -> None:
    if (at, answer.status) == (FETCH, 400):
        answer.json, answer.data = None, b"No."


@frozen
class Case:
    """A difference, and what has to be found."""

    after: After | None = None
    expected: frozenset[tuple[Difference, str, str]] = frozenset()
    before: Any = None
    settings: Any = None
    alone: bool = False


def case(*expected: tuple[Difference, str, str], **options: Any) -> Case:
    return Case(expected=frozenset(expected), **options)


PLANTED: dict[str, Case] = {
    "a new field": case(
        (Difference.NEW_FIELD, "customers.list", "$[].loyalty_tier"),
        after=each(CUSTOMERS, lambda item: item.update(loyalty_tier="gold")),
    ),
    "a new field whose name could be an id": case(
        (Difference.NEW_FIELD, "profile_fields.list", "$[].*"),
        after=each(FIELDS, lambda item: item.update({"4711-0815": 1})),
    ),
    "a required field is missing": case(
        (Difference.MISSING_FIELD, "customer_groups.list", "$[].group_name"),
        after=each(GROUPS, lambda item: item.pop("group_name")),
    ),
    "an optional field never comes": case(
        (Difference.MISSING_FIELD, "campaigns.list", "$[].campaigns[].campaign_name"),
        after=each_campaign(lambda item: item.pop("campaign_name")),
    ),
    "a number as text": case(
        (Difference.WRONG_TYPE, "campaigns.list", "$[].campaigns[].run_number"),
        after=each_campaign(lambda item: item.update(run_number=str(item["run_number"]))),
    ),
    "a number of pages as text": case(
        (Difference.WRONG_TYPE, "customers.count_pages", "$.pages"),
        after=on(PAGES, lambda found: {"pages": str(found["pages"])}),
        alone=True,
    ),
    "null where there has to be something": case(
        (Difference.UNEXPECTED_NULL, "profile_fields.list", "$[].field_name"),
        after=each(FIELDS, lambda item: item.update(field_name=None)),
    ),
    "moments in seconds": case(
        (Difference.WRONG_TYPE, "reruns.messages", "$[].created_at"),
        after=each(MESSAGES, lambda item: item.update(created_at=epoch(item["created_at"]))),
    ),
    "moments without milliseconds": case(
        (Difference.OTHER_FORMAT, "customers.list", "$[].updated_at"),
        after=each(CUSTOMERS, lambda item: item.update(updated_at="2026-01-31T12:00:00Z")),
    ),
    "moments that are none": case(
        (Difference.OTHER_FORMAT, "profile_fields.list", "$[].updated_at"),
        after=each(FIELDS, lambda item: item.update(updated_at="yesterday")),
    ),
    "a state that nobody knows": case(
        (Difference.UNKNOWN_VALUE, "reruns.messages", "$[].review_status"),
        after=each(MESSAGES, lambda item: item.update(review_status="Archived")),
    ),
    "a status that is not listed": case(
        (Difference.UNLISTED_STATUS, "customer_groups.list", "status"), after=refuse(GROUPS, 418), alone=True
    ),
    "an operation that is gone": case(
        (Difference.MISSING_OPERATION, "reruns.history", "status"), after=refuse(HISTORY, 404), alone=True
    ),
    "pages count from 0": case(
        (Difference.PAGE_BASE, "customers.list", "(page)"),
        (Difference.PAGE_BASE, "messages.fetch", "(page)"),
        settings={"first_page": 0},
    ),
    "pages of several sizes": case((Difference.PAGE_SIZE, "customers.list", "(page)"), after=shorter),
    "fewer pages than counted": case(
        (Difference.PAGE_COUNT, "customers.list", "(page)"),
        after=on(PAGES, lambda found: {"pages": found["pages"] + 2}),
    ),
    "more pages than counted": case(
        (Difference.PAGE_COUNT, "messages.fetch", "(page)"),
        after=on(FILES, lambda found: {"pages": found["pages"] - 2}),
    ),
    "the number of the page is ignored": case(
        (Difference.PAGES_REPEATED, "customers.list", "(page)"), before=always_the_first, alone=True
    ),
    "a window that is ignored": case(
        (Difference.IGNORED_ARGUMENT, "campaigns.list", "(published_from)"), before=without_window
    ),
    "an object in an envelope": case(
        (Difference.ENVELOPE, "messages.fetch", "$"),
        after=on(FETCH, lambda found: {"data": found} if isinstance(found, dict) else found),
        alone=True,
    ),
    "an object in a list": case(
        (Difference.ENVELOPE, "auth.authenticate", "$"), after=on(LOGIN, lambda found: [found]), alone=True
    ),
    "an object of something else": case(
        (Difference.ENVELOPE, "reruns.messages", "$[]"),
        after=on(MESSAGES, lambda items: [{"a": 1} for _ in items]),
        alone=True,
    ),
    "another name for the number of pages": case(
        (Difference.MISSING_FIELD, "messages.count_pages", "$"),
        after=on(FILES, lambda found: {"files": found["pages"]}),
        alone=True,
    ),
    "pages below zero": case(
        (Difference.OTHER_FORMAT, "messages.count_pages", "$"), after=on(FILES, lambda _: -1), alone=True
    ),
    "text/plain": case(
        (Difference.CONTENT_TYPE, "customers.count_pages", "content-type"), after=content_type(PAGES, "text/plain")
    ),
    "a file of another kind": case(
        (Difference.CONTENT_TYPE, "messages.fetch", "content-type"),
        after=content_type(FETCH, "application/octet-stream", "csv"),
    ),
    "a file that is JSON": case((Difference.ENVELOPE, "messages.fetch", "$"), after=json_file, alone=True),
    "HTML": case((Difference.NOT_JSON, "profile_fields.list", "$"), after=html, alone=True),
    "nothing": case((Difference.NOT_JSON, "profile_fields.list", "$"), after=nothing, alone=True),
    "a link that is a text": case(
        (Difference.WRONG_TYPE, "messages.fetch", "$"),
        after=on(FETCH, lambda found: found["url"] if isinstance(found, dict) else found),
        alone=True,
    ),
    "a refusal in plain words": case((Difference.NOT_JSON, "messages.fetch", "refusal"), after=plainly, alone=True),
    "keys with white space": case(
        (Difference.SPELLING, "customer_groups.list", "$[].created_at"),
        after=each(GROUPS, lambda item: item.update({"created_at\t": item.pop("created_at")})),
    ),
    "an opaque token": case(
        (Difference.OTHER_FORMAT, "auth.authenticate", "$.refresh_token"),
        after=on(LOGIN, lambda found: found | {"refresh_token": "opaque"}),
    ),
    "a list in an envelope": case(
        (Difference.ENVELOPE, "customer_groups.list", "$"),
        after=on(GROUPS, lambda items: {"data": items, "total": len(items)}),
    ),
    "the oldest run first": case((Difference.ORDER, "reruns.history", "$"), after=on(HISTORY, second_run)),
}


def found(report: Any) -> set[tuple[Difference, str, str]]:
    return {(each.kind, each.operation, each.where) for each in report.findings}


def planted(tool: Any, one: Case) -> Any:
    return tool.plant(*filter(None, [one.after]), **({"before": one.before} if one.before else {}))


def test_there_are_more_than_fifteen() -> None:
    assert len(PLANTED) > 15
    assert {kind for one in PLANTED.values() for kind, _, _ in one.expected} == {*Difference}


@pytest.mark.parametrize("name", PLANTED)
async def test_it_is_found_and_nothing_else_live_and_in_a_recording(tool: Any, tmp_path: Path, name: str) -> None:
    one, recording = PLANTED[name], tmp_path / "session.jsonl"
    report = await tool.examine(planted(tool, one), settings=one.settings, record=recording)
    assert found(report) == one.expected, str(report)
    assert not report.conforms
    assert all(str(each) in str(report) for each in report.findings)
    assert await examine_recording(recording) == report


async def test_all_of_them_at_once(tool: Any) -> None:
    together = [one for one in PLANTED.values() if not one.alone]
    settings = {name: value for one in together for name, value in (one.settings or {}).items()}
    report = await tool.examine(*(planted(tool, one) for one in together), settings=settings, max_requests=60)
    expected = set[Any]().union(*(one.expected for one in together))
    assert len(expected) > 15
    assert found(report) == expected, str(report)


@pytest.mark.parametrize("settings", [{}, {"rows_per_file": 100}, {"page_size": 1_000}, {"page_size": 50}])
async def test_the_sandbox_as_it_is_conforms(settings: dict[str, Any]) -> None:
    async with Sandbox(example=True, **settings) as sandbox:
        report = await examine(sandbox.credentials, base_url=sandbox.url, pause=0.0)
        assert report.conforms, str(report)
        assert report.complete
        assert not sandbox.effects
    assert len(report.confirmed) > 45
    assert not report.standing("contradicted")
    assert not report.unanswered
    assert not report.skipped


@pytest.mark.parametrize("edition", [1, 2])
async def test_earlier_editions_lack_reruns_and_nothing_else(edition: int) -> None:
    async with Sandbox(example=True, edition=edition) as sandbox:
        report = await examine(sandbox.credentials, base_url=sandbox.url, pause=0.0)
    assert found(report) == {
        (Difference.MISSING_OPERATION, f"reruns.{name}", "status") for name in ("history", "messages")
    }


async def test_an_optional_field_that_comes_now_and_then_is_no_difference(tool: Any) -> None:
    def first(items: Any) -> Any:
        for place in items[:1]:
            place["campaigns"][0].pop("campaign_name")
        return items

    assert (await tool.examine(tool.plant(on(CAMPAIGNS, first)))).conforms


async def test_the_server_in_front_of_it_plants_nothing_by_itself(tool: Any) -> None:
    assert (await tool.examine()).conforms
