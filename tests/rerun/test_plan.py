from __future__ import annotations

import copy
import csv
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudgescribe_async.errors import RerunError, RerunPlanError
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest

SECRET = "Zebedee-MARKED"
HEADER = "campaign_id,new_customer_group_id"
PLAN = RerunPlan([RerunRequest("c-1", "g-1"), RerunRequest("c-2", "g-2")])


def pairs(plan: RerunPlan) -> list[tuple[str, str]]:
    return [(request.campaign_id, request.new_customer_group_id) for request in plan]


def read(folder: Path, content: str | bytes, **options: Any) -> RerunPlan:
    path = folder / "quarter.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return RerunPlan.from_csv(path, **options)


def refused(folder: Path, content: str | bytes, **options: Any) -> RerunPlanError:
    with pytest.raises(RerunPlanError) as caught:
        read(folder, content, **options)
    error = caught.value
    assert isinstance(error, RerunError)
    assert str(folder / "quarter.csv") in str(error)
    assert str(error).endswith("Nothing was sent.")
    assert SECRET not in str(error)
    assert SECRET not in repr(error.__cause__) + repr(error.__context__)
    return error


# --- a plan as a value ---------------------------------------------------------------------------------------------


def test_a_plan_is_made_of_any_iterable() -> None:
    assert RerunPlan.of(request for request in PLAN.requests) == PLAN
    assert RerunPlan.of(PLAN) is PLAN
    assert len(PLAN) == 2
    assert list(PLAN) == list(PLAN.requests)
    assert pickle.loads(pickle.dumps(PLAN)) == copy.deepcopy(PLAN) == PLAN


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("c-1", "must be an iterable of RerunRequest; got str"),
        ({"c-1": "g-1"}, "must be an iterable of RerunRequest; got dict"),
        (None, "must be an iterable of RerunRequest; got None"),
        ([RerunRequest("c-1", "g-1"), ("c-2", "g-2")], r"item 2 of it is tuple. Make it RerunRequest\("),
    ],
)
def test_what_is_no_plan_is_refused(items: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        RerunPlan.of(items)


def test_ids_are_texts() -> None:
    with pytest.raises(TypeError, match=r"RerunRequest\(new_customer_group_id=\.\.\.\) must be a text; got int"):
        RerunRequest("c-1", 7)  # type: ignore[arg-type]


def test_the_repr_stays_short() -> None:
    large = RerunPlan(RerunRequest(f"c-{number}", "g") for number in range(10_000))
    assert repr(large) == "RerunPlan(requests=<10,000>)"


_ID = st.text(max_size=5)
_REQUESTS = st.lists(st.builds(RerunRequest, _ID, _ID), max_size=8)


@given(_REQUESTS, st.randoms())
def test_the_digest_knows_the_items_and_not_their_order(requests: list[RerunRequest], chance: Any) -> None:
    digest = RerunPlan(requests).digest
    assert len(digest) == 64
    assert int(digest, 16) >= 0
    shuffled = list(requests)
    chance.shuffle(shuffled)
    assert RerunPlan(shuffled).digest == digest


@given(_REQUESTS, _REQUESTS)
def test_other_items_have_another_digest(one: list[RerunRequest], other: list[RerunRequest]) -> None:
    def key(requests: list[RerunRequest]) -> list[tuple[str, str]]:
        return sorted(pairs(RerunPlan(requests)))

    assert (RerunPlan(one).digest == RerunPlan(other).digest) is (key(one) == key(other))


def test_a_digest_is_the_same_in_every_version() -> None:
    # Journals keep it: if this changes, nobody can continue the run of yesterday.
    assert PLAN.digest == "8258bd0c28a5d6c6da136840614b5a2eddea390e6dc55742b69811fdf9c2323e"
    assert RerunPlan([RerunRequest("c", "1g")]).digest != RerunPlan([RerunRequest("c1", "g")]).digest
    assert RerunPlan([RerunRequest("c-1", "g-1")] * 2).digest != RerunPlan([RerunRequest("c-1", "g-1")]).digest


def test_mistakes_name_what_is_empty_or_there_twice() -> None:
    items = [("c-1", "g-1"), (" ", "g-1"), ("c-2", ""), ("c-3", "g-1"), ("c-1", "g-2"), ("c-1", "g-1")]
    plan = RerunPlan(RerunRequest(*item) for item in items)

    twice = "The campaign is in the plan 3 times (items 1, 5, 6), so none of them is run."
    assert plan.mistakes() == {
        0: twice,
        1: "The campaign id is empty.",
        2: "The id of the customer group is empty.",
        4: twice,
        5: twice,
    }
    assert PLAN.mistakes() == {}


@pytest.mark.parametrize(
    ("campaign", "group", "mistake"),
    [
        ("", "g-1", "The campaign id is empty."),
        (" \t\n", "g-1", "The campaign id is empty."),
        ("c-1", "\u00a0", "The id of the customer group is empty."),
        (" c-1", "g-1", "An id has white space at its beginning or end."),
        ("c-1\n", "g-1", "An id has white space at its beginning or end."),
        ("c-1", "g-1\u2003", "An id has white space at its beginning or end."),
        ("c-\ud800", "g-1", "An id has characters that no text can have (half of a surrogate pair)."),
        ("c-1", "g-\udfff", "An id has characters that no text can have (half of a surrogate pair)."),
    ],
)
def test_ids_that_can_be_nobodys(campaign: str, group: str, mistake: str) -> None:
    plan = RerunPlan([RerunRequest("c-9", "g 9"), RerunRequest(campaign, group), RerunRequest("c-\U0001f600", "g-1")])
    assert plan.mistakes() == {1: mistake}


@given(st.lists(st.builds(RerunRequest, st.sampled_from(["a", "b", "c", " ", ""]), st.sampled_from(["g", ""]))))
def test_what_has_no_mistake_is_there_once_and_whole(requests: list[RerunRequest]) -> None:
    plan = RerunPlan(requests)
    mistakes = plan.mistakes()
    for index, request in enumerate(plan):
        alone = sum(other.campaign_id == request.campaign_id for other in plan) == 1
        whole = bool(request.campaign_id.strip() and request.new_customer_group_id.strip())
        assert (index in mistakes) is not (alone and whole)


def test_one_campaign_ten_thousand_times_is_told_in_few_words() -> None:
    mistakes = RerunPlan([RerunRequest("c-1", "g-1")] * 10_000).mistakes()
    assert len(mistakes) == 10_000
    assert mistakes[9_999] == (
        "The campaign is in the plan 10000 times (items 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and more), so none of them is run."
    )


# --- from a file: what is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\nc-1,g-1\nc-2,g-2\n",
        f"{HEADER}\r\nc-1,g-1\r\nc-2,g-2\r\n",
        f"{HEADER}\nc-1,g-1\nc-2,g-2",
        f"\ufeff{HEADER}\nc-1,g-1\nc-2,g-2\n",
        "new_customer_group_id,name,campaign_id\ng-1,x,c-1\ng-2,,c-2\n",
        f" campaign_id\t,  new_customer_group_id \n  c-1 ,\tg-1 \nc-2,g-2\n",  # noqa: F541
        f"\n\n{HEADER}\n\n  \nc-1,g-1\n\r\nc-2,g-2\n\n\n",
        '"campaign_id","new_customer_group_id"\n"c-1","g-1"\r\n"c-2",g-2\n',
        'campaign_id,note,new_customer_group_id\r\nc-1,"a\rb\r\nc",g-1\r\nc-2,"",g-2\r\n',
        'campaign_id,note,new_customer_group_id\nc-1,"a ""b"",\nc",g-1\nc-2,"",g-2\n',
        "name,name,,campaign_id,,new_customer_group_id\n1,2,3,c-1,,g-1\n1,2,3,c-2,,g-2\n",
    ],
)
def test_a_file_is_read_whatever_its_dress(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == PLAN


def test_columns_delimiter_and_encoding_are_as_named(tmp_path: Path) -> None:
    content = "Grüppe;Kampagne\ng-1;c-1\ng-2;c-2\n"
    options = {"campaign_column": "Kampagne", "group_column": " Grüppe", "delimiter": ";"}
    assert read(tmp_path, content.encode("cp1252"), encoding="cp1252", **options) == PLAN
    assert read(tmp_path, content.encode("utf-16"), encoding="utf-16", **options) == PLAN
    assert read(tmp_path, content.encode("utf-8-sig"), encoding="UTF8", **options) == PLAN


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    read(tmp_path, f"{HEADER}\nc-1,g-1\nc-2,g-2\n")
    assert RerunPlan.from_csv(str(tmp_path / "quarter.csv")) == PLAN


def test_a_campaign_that_is_there_twice_is_the_business_of_the_run(tmp_path: Path) -> None:
    plan = read(tmp_path, f"{HEADER}\nc-1,g-1\nc-2,g-2\nc-1,g-3\n")
    assert len(plan) == 3
    assert sorted(plan.mistakes()) == [0, 2]
    assert "(items 1, 3)" in plan.mistakes()[0]


_SEEN = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(_SEEN, st.text('a,"\n;', max_size=6), _SEEN), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_a_csv_writer_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], end: str, mark: str, quoting: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=mark, lineterminator=end, quoting=quoting)
        writer.writerow(["campaign_id", "note", "new_customer_group_id"])
        writer.writerows(rows)

    plan = RerunPlan.from_csv(path, delimiter=mark)

    assert pairs(plan) == [(campaign, group) for campaign, _, group in rows]


@given(st.binary(max_size=200) | st.text('c,g"\r\n\0 \ufeff', max_size=60).map(str.encode))
def test_any_bytes_are_a_plan_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(HEADER.encode() + b"\n" + tail)
    try:
        plan = RerunPlan.from_csv(path)
    except RerunPlanError as error:
        assert str(error).endswith("Nothing was sent.")  # noqa: PT017 - both ends are fine
    else:
        assert len(plan) > 0
        assert all(request.campaign_id and request.new_customer_group_id for request in plan)


# --- from a file: what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("", None, "it is empty. Its first line must name the columns: 'campaign_id' and 'new_customer_group_id'"),
        ("\n \n", None, "it is empty"),
        ("\ufeff", None, "it is empty"),
        (f"{HEADER}\n\n", None, "it has a header, and no campaigns. Add a line for each campaign"),
        ("campaign_id,group\n1,2\n", 1, "no column 'new_customer_group_id'; it has 'campaign_id', 'group'. Its first"),
        (
            "\nCampaign,Group\n1,2\n",
            2,
            "no column 'campaign_id' and 'new_customer_group_id'; it has 'Campaign', 'Group'",
        ),
        (f"c-17,{SECRET},g-4\n", 1, "no column 'campaign_id' and 'new_customer_group_id'; its first line seems"),
        ("campaign_id;new_customer_group_id\n1;2\n", 1, "may be divided by ';': pass delimiter=';'"),
        (f"campaign_id,{HEADER}\n1,2,3\n", 1, "the header has the column 'campaign_id' 2 times"),
        (f"{HEADER},x, new_customer_group_id\n", 1, "the header has the column 'new_customer_group_id' 2 times"),
        (f"{HEADER}\nc-1,g-1\nc-2\n", 3, "line 3: the row is too short: it has 1 cell, and the header 2"),
        (f"{HEADER},name\nc-1,g-1,{SECRET},x\n", 2, "the row is too long: it has 4 cells, and the header 3"),
        (f"name,{HEADER}\n\n{SECRET}, ,g-1\n", 3, "line 3: 'campaign_id' must not be empty"),
        (f"name,{HEADER}\n{SECRET},c-1,\n", 2, "line 2: 'new_customer_group_id' must not be empty"),
        (f"{HEADER},n\n,,{SECRET}\n", 2, "'campaign_id' and 'new_customer_group_id' must not be empty"),
        (f'{HEADER}\nc-1,g-1\n"c-2,{SECRET}\nx\n', 3, "line 3: a quote that opens a cell is never closed. Close it"),
        (f'{HEADER}\n"c-1"{SECRET},g-1\n', 2, "line 2: behind the quote that closes a cell stands something else"),
        (f'{HEADER}\nc-1,"g-1\nc-2,g-2"\n', 2, "'new_customer_group_id' must not hold line breaks"),
        (f"{HEADER}\nc-1,g-1\nc\0,g\n", 3, "line 3: it holds a NUL character"),
        (f'{HEADER}\nc-1,"{"g" * 200_000}"\n', 2, "line 2: a cell has more than 131,072 characters"),
        (
            f"{HEADER}\nc-1,g-1\n".encode("utf-16"),
            1,
            "encoded in UTF-16, by the mark .*, and utf-8 was tried.*'utf-16'",
        ),
        (f"{HEADER}\nc-1,{SECRET}\n".encode("utf-16-le"), 1, "line 1: it holds a NUL character.*'utf-16-le'"),
        (f"{HEADER}\r\nc-1,g-1\r\n{SECRET}ä".encode("cp1252"), 3, "line 3: it cannot be decoded as utf-8. Save it"),
        (b"PK\x03\x04" + bytes(100), None, "a workbook or an archive.*Save it as CSV"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(
    tmp_path: Path, content: str | bytes, line: int | None, message: str
) -> None:
    error = refused(tmp_path, content)
    assert error.line == line
    assert (", line " in str(error)) is (line is not None)
    pattern = message if ".*" in message else re.escape(message)
    assert re.search(pattern, str(error)), str(error)


def test_the_encoding_that_was_tried_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, f"{HEADER}\nc-1,ä\n".encode(), encoding="ascii")
    assert "line 2: it cannot be decoded as ascii" in str(error)


def test_further_wrong_lines_are_listed_up_to_ten(tmp_path: Path) -> None:
    error = refused(tmp_path, f"{HEADER}\nc-1,g-1\n" + ",g\n" * 2)
    assert error.line == 3
    assert "line 3: 'campaign_id' must not be empty; line 4: 'campaign_id' must not be empty. Correct" in str(error)

    error = refused(tmp_path, f"{HEADER}\n" + ",g\n" * 10)
    assert "line 11: 'campaign_id' must not be empty. Correct" in str(error)

    error = refused(tmp_path, f"{HEADER}\n" + ",g\n" * 13)
    assert "line 11: 'campaign_id' must not be empty; and 3 more. Correct" in str(error)
    assert "line 12" not in str(error)


def test_a_very_wide_header_is_not_repeated_as_a_whole(tmp_path: Path) -> None:
    names = ",".join("x" * 100 for _ in range(1_000))
    error = refused(tmp_path, f"campaign_id,{names}\n")
    assert "and 981 more" in str(error)
    assert len(str(error)) < 2_000


@pytest.mark.parametrize("name", ["missing.csv", "", "unreadable.csv"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    if name == "unreadable.csv":  # whoever runs the tests may read everything

        def denied(_: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(RerunPlanError, match=r"cannot be read: [A-Z].*\. Nothing was sent\.") as caught:
        RerunPlan.from_csv(path)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.line is None
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"path": 7}, TypeError, "path must be the path of a CSV file; got int"),
        ({"path": b"x.csv"}, TypeError, "path must be the path of a CSV file; got bytes"),
        ({"path": ""}, ValueError, "path must be .*, and not empty"),
        ({"campaign_column": 1}, TypeError, "campaign_column must be the name of a column; got int"),
        ({"group_column": None}, TypeError, "group_column must be the name of a column; got None"),
        ({"group_column": " "}, ValueError, "group_column must be .*, and not empty"),
        ({"group_column": " campaign_id"}, ValueError, "must be two columns"),
        ({"encoding": 8}, TypeError, "encoding must be a text"),
        ({"encoding": "klingon"}, ValueError, "no encoding of text called 'klingon'"),
        ({"delimiter": b","}, TypeError, "delimiter must be a text"),
        ({"delimiter": "||"}, ValueError, "delimiter must be one character"),
        ({"delimiter": '"'}, ValueError, "delimiter must be one character"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RerunPlan.from_csv(**({"path": "none.csv"} | options))
