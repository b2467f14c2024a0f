"""Where an iteration stands, as a value."""

from __future__ import annotations

import copy
import json
import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudgescribe_async.cursor import MOST_AHEAD, PageCursor, digest

START = PageCursor(query="0123456789abcdef", page=1, total=1_000)


def test_pages_in_order_leave_only_the_next_one() -> None:
    cursor = START
    for page in range(1, 501):
        cursor = cursor.after(page, last=f"id {page}")
    assert cursor == attrs.evolve(START, page=501, last="id 500")


@given(st.permutations(range(1, 40)))
def test_pages_in_any_order_are_all_remembered_until_none_is_missing(order: list[int]) -> None:
    cursor, done = START, set[int]()
    for page in order:
        cursor = cursor.after(page, last="x")
        done.add(page)
        assert {*range(1, cursor.page), *cursor.ahead} == done
        assert cursor.page not in done
        assert PageCursor.from_json(cursor.to_json()) == cursor
    assert cursor.page == 40


def test_the_last_item_is_known_only_where_the_page_before_was_the_last_one_handed_out() -> None:
    cursor = START.after(2, last="of page 2")
    assert cursor.last is None
    cursor = cursor.after(1, last="of page 1")
    assert (cursor.page, cursor.last) == (3, None)
    assert cursor.after(3, last="of page 3").last == "of page 3"


def test_a_whole_page_leaves_no_part_of_it() -> None:
    begun = START.within(1, 7, last="item 7")
    assert (begun.part, begun.last) == ((1, 7), "item 7")
    assert begun.after(1, last=None).part is None
    assert begun.after(2, last=None).part == (1, 7)
    beyond = START.within(3, 7, last="item 7")
    assert (beyond.part, beyond.last) == ((3, 7), None)


def test_it_tells_which_pages_were_handed_out() -> None:
    cursor = START.after(1, last=None).after(3, last=None).within(4, 2, last=None)
    assert [page for page in range(1, 7) if cursor.has(page)] == [1, 3]


def test_it_is_a_few_hundred_bytes_whatever_was_read() -> None:
    ahead = frozenset(range(10**9 + 2, 10**9 + 2 + MOST_AHEAD, 2))
    cursor = PageCursor(
        query=digest("q"),
        page=10**9,
        part=(10**9, 10**6),
        ahead=ahead,
        total=10**10,
        last=digest("l"),
        tail=digest("t"),
    )
    assert len(cursor.to_json()) < 500
    assert PageCursor.from_json(cursor.to_json().encode()) == cursor


def test_it_pickles_copies_and_never_changes() -> None:
    for twin in (pickle.loads(pickle.dumps(START)), copy.copy(START), copy.deepcopy(START)):
        assert twin == START
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        START.page = 2  # type: ignore[misc]


GOOD = json.loads(START.to_json())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"v": 2}, "The cursor is of version 2; this package knows version 1."),
        ({"page": -1}, "page is no whole number"),
        ({"page": True}, "page is no whole number"),
        ({"page": "1"}, "page is no whole number"),
        ({"part": 7}, "part is no page with a number of items"),
        ({"part": [7]}, "part is no page with a number of items"),
        ({"part": [7, None]}, "part is no page with a number of items"),
        ({"total": 1.5}, "total is no whole number"),
        ({"query": 7}, "query is no text"),
        ({"last": 7}, "last is no text"),
        ({"tail": 7}, "tail is no text"),
        ({"ahead": "xyz"}, "ahead is no set of pages"),
        ({"ahead": "-1"}, "ahead is no set of pages"),
        ({"ahead": 7}, "ahead is no set of pages"),
        ({"ahead": "f" * 5_000}, "ahead is no set of pages"),
    ],
)
def test_a_damaged_one_says_what_is_wrong(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PageCursor.from_json(json.dumps(GOOD | change))


@pytest.mark.parametrize("lost", ["query", "page", "part", "ahead", "total", "last", "tail"])
def test_one_with_a_part_missing_is_refused(lost: str) -> None:
    with pytest.raises(ValueError, match=lost):
        PageCursor.from_json(json.dumps({name: value for name, value in GOOD.items() if name != lost}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "no json", "1", b"\xff"])
def test_what_is_no_cursor_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="This is no cursor"):
        PageCursor.from_json(text)


def test_it_is_read_from_text_alone() -> None:
    with pytest.raises(TypeError, match="not from dict"):
        PageCursor.from_json({})  # type: ignore[arg-type]


def test_fingerprints_differ_where_the_values_do() -> None:
    assert digest("a", 1) == digest("a", 1)
    assert len({digest("a", 1), digest("a", "1"), digest("a1"), digest(("a", 1)), digest("a", None)}) == 5
    assert digest("\ud800") != digest("?")
