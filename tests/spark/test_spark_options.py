"""What may be given as options, and what becomes of them. Without Spark."""

from __future__ import annotations

import pickle
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nudgescribe_async import ConfigurationError
from nudgescribe_async.shapes import Secret
from nudgescribe_async.spark.connection import CONNECTION_OPTIONS, Connection, _private_folder
from nudgescribe_async.spark.job import KNOWN, Job, Range, Share, divided
from nudgescribe_async.spark.options import Given, without_secrets
from nudgescribe_async.spark.pace import Lane

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRETS = {"secret_api_key": "key-MARKED", "secret_email": "someone@MARKED.example", "secret_password": " MARKED "}
HERE = {"base_url": "http://127.0.0.1:1", **SECRETS}


def given(**options: str) -> Given:
    return Given(options, known={"a", "b", "secret_a"}, doing="trying")


def job(**options: str) -> Job:
    return Job.of({**HERE, **options})


# --- reading options -------------------------------------------------------------------------------------------------


def test_names_have_no_case() -> None:
    assert given(A="1").whole("a") == 1
    assert Job.of({"Customer_Group_ID": "g", "PARALLELISM": "3"}).limits.parallelism == 3


def test_what_is_left_out_is_none() -> None:
    nothing = given()
    assert (nothing.text("a"), nothing.whole("a"), nothing.number("a"), nothing.names("a")) == (None,) * 4
    assert nothing.flag("a", default=True)
    assert nothing.one_of("a", ("x", "y"), "y") == "y"
    assert "a" not in nothing


@pytest.mark.parametrize(
    ("ask", "text", "says"),
    [
        ("text", " ", "The option 'a' for trying must not be empty."),
        ("needed", " ", "must not be empty"),
        ("whole", "two", "must be a whole number, at least 1; got 'two'."),
        ("whole", "0", "at least 1; got '0'"),
        ("whole", "٣", "at least 1"),
        ("whole", "9" * 19, "at least 1"),
        ("number", "-1", "must be a number from 0.001 to 1,000,000; got '-1'"),
        ("number", "nan", "must be a number from"),
        ("number", "inf", "must be a number from"),
        ("number", "1e-320", "must be a number from"),
        ("number", "1e300", "must be a number from"),
        ("number", "x", "must be a number from"),
        ("names", "x,,y", "must be a list with commas between"),
    ],
)
def test_what_cannot_be_right_is_refused(ask: str, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=r"The option 'a' for trying") as refused:
        getattr(given(a=text), ask)("a")
    assert says in str(refused.value)


def test_flags_and_words() -> None:
    assert given(a="Yes").flag("a", default=False)
    assert not given(a="FALSE").flag("a", default=True)
    with pytest.raises(ConfigurationError, match="must be true or false; got 'perhaps'"):
        given(a="perhaps").flag("a", default=True)
    assert given(a="X").one_of("a", ("x", "y"), "y") == "x"
    with pytest.raises(ConfigurationError, match="must be one of 'x', 'y'; got 'z'"):
        given(a="z").one_of("a", ("x", "y"), "y")
    with pytest.raises(ConfigurationError, match="at most 5"):
        given(a="6").whole("a", most=5)
    assert given(a="x, y,x").names("a") == ("x", "y")


def test_an_option_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(
        ConfigurationError, match=r"There is no option 'c' for trying\. Those that there are: a, b, secret_a"
    ):
        given(c="1")
    with pytest.raises(ConfigurationError, match="There are no options 'c', 'd'"):
        given(c="1", d="2")
    with pytest.raises(ConfigurationError, match=r"Trying needs the option 'b', which is so\."):
        given().needed("b", ", which is so")


@pytest.mark.parametrize("name", ["api_key", "email", "password", "api_code"])
def test_a_name_that_spark_would_show_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Name it 'secret_{name}', which it hides") as refused:
        Job.of({name: "MARKED", "customer_group_id": "g"})
    assert "MARKED" not in str(refused.value)


def test_secrets_are_kept_quiet_and_as_they_are() -> None:
    hidden = without_secrets({"Secret_Password": " MARKED ", "password": "MARKED", "page": "3"})
    assert "MARKED" not in repr(hidden)
    assert hidden["secret_password"] == " MARKED "
    assert Given(hidden | {}, known=hidden, doing="trying").text("secret_password") == " MARKED "


# --- the connection --------------------------------------------------------------------------------------------------


def test_a_connection_travels_and_shows_no_secret() -> None:
    made = job(customer_group_id="g", secret_api_code="code-MARKED")
    again: Job = pickle.loads(pickle.dumps(made))
    assert again == made
    assert "MARKED" not in repr(again)
    assert again.connection.login is not None
    assert isinstance(again.connection.login.password, Secret)
    assert again.connection.login.password == " MARKED "


def test_credentials_are_three_or_none() -> None:
    with pytest.raises(ConfigurationError, match=r"are three, or none\. Missing: 'secret_email' and 'secret_password'"):
        Job.of({"secret_api_key": "MARKED", "customer_group_id": "g"})
    assert Job.of({"customer_group_id": "g"}).connection.login is None


def test_credentials_come_from_the_environment_of_whoever_makes_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Connection(base_url="http://127.0.0.1:1")
    nobody.check()  # the driver need not have what the executors have
    for name in ("NUDGESCRIBE_API_KEY", "NUDGESCRIBE_EMAIL", "NUDGESCRIBE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="Set NUDGESCRIBE_API_KEY"):
        nobody.new_client(tokens_kept=False)
    for name in ("NUDGESCRIBE_API_KEY", "NUDGESCRIBE_EMAIL", "NUDGESCRIBE_PASSWORD"):
        monkeypatch.setenv(name, "x")
    assert "127.0.0.1:1" in repr(nobody.new_client(tokens_kept=False))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "http://example.org"}, "must begin with https://"),
        ({"secret_password": "a\nb"}, "line break"),
        ({"first_page": "2"}, "at most 1"),
        ({"token_folder": "here"}, "must be an absolute path"),
        ({"profile_decryptor": "module"}, "must be as in 'package.module:function'"),
        ({"secret_api_code": "ü"}, "printable ASCII"),
    ],
)
def test_a_wrong_connection_is_found_out_on_the_driver(options: Mapping[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Job.of({**HERE, "customer_group_id": "g", **options}).connection.check()
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.to.be:found", "there is no nowhere.to.be:found here"),
        ("json:nothing", "there is no json:nothing here"),
        ("builtins:list", "profile_decryptor must be an object with decrypt"),
    ],
)
def test_a_decryptor_is_looked_for_where_profiles_are_read(name: str, says: str) -> None:
    connection = job(customer_group_id="g", profile_decryptor=name).connection
    connection.check()
    with pytest.raises(ConfigurationError) as refused:
        connection.new_client(tokens_kept=False, decrypting=True)
    assert says in str(refused.value)


def test_tokens_are_kept_in_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert Connection()._token_store() is not None
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.lstat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_folder_that_somebody_else_may_have_made_is_not_used(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = _private_folder(None)
    folder.rmdir()
    if kind == "open to others":
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    elif kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.write_text("")
    with caplog.at_level("WARNING"):
        assert Connection()._token_store() is None
    assert "Tokens are not shared between the tasks of this machine" in caplog.text
    with pytest.raises(ConfigurationError, match="The option 'token_folder'"):
        Connection(token_folder=str(folder))._token_store()


# --- the job ---------------------------------------------------------------------------------------------------------


def test_every_resource_has_its_options() -> None:
    assert frozenset.intersection(*KNOWN.values()) > CONNECTION_OPTIONS
    assert job(resource=" Campaigns ").resource == "campaigns"
    assert job(customer_group_id="g").resource == "customers"
    assert job(resource="messages", campaign_id="a, b").campaign_ids == ("a", "b")
    with pytest.raises(ConfigurationError, match="'resource' must be one of 'customers', 'messages'"):
        job(resource="letters")
    with pytest.raises(ConfigurationError, match="Reading groups needs the option 'workspace_id'"):
        job(resource="groups")
    with pytest.raises(ConfigurationError, match="There is no option 'campaign_id' for reading profile fields"):
        job(resource="profile_fields", campaign_id="c")


@pytest.mark.parametrize(
    ("text", "runs"), [("latest", "latest"), ("ALL", "all"), ("3", (3,)), ("5, 2,5", (2, 5)), ("07", (7,))]
)
def test_runs(text: str, runs: object) -> None:
    assert job(resource="messages", campaign_id="c", run_number=text).runs == runs


@pytest.mark.parametrize(("text", "pages"), [("7", (7, 7)), ("2-5", (2, 5)), ("2 - 5", (2, 5)), ("3-", (3, None))])
def test_pages(text: str, pages: object) -> None:
    assert job(customer_group_id="g", pages=text).pages == pages


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resource": "messages", "campaign_id": "c", "run_number": "0"}, "numbers of runs"),
        ({"resource": "messages", "campaign_id": "c", "run_number": "1,"}, "numbers of runs"),
        ({"customer_group_id": "g", "pages": "-3"}, "must be as in '7'"),
        ({"customer_group_id": "g", "pages": "5-3"}, "must not end before it begins"),
        ({"customer_group_id": "g", "consistency": "dedupe"}, "dropDuplicates"),
        ({"customer_group_id": "g", "consistency": "loose"}, "'warn', 'strict'"),
        (
            {"customer_group_id": "g", "profile_columns": "true"},
            "needs the option 'workspace_id', whose profile fields",
        ),
        ({"customer_group_id": "g", "profile_columns": "true", "workspace_id": "w"}, "profiles come encrypted"),
    ],
)
def test_a_wrong_job(options: Mapping[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        job(**options)
    assert says in str(refused.value)


def test_a_stream_is_of_messages() -> None:
    options = {"resource": "messages", "campaign_id": "c", "start_after": "Latest", "poll_seconds": "0.5"}
    found = Job.of(options, stream=True)
    assert (found.start_after, found.poll_seconds) == ("latest", 0.5)
    assert Job.of({**options, "start_after": "4"}, stream=True).start_after == 4
    with pytest.raises(ConfigurationError, match="A stream reads the messages of the runs of campaigns"):
        Job.of({"customer_group_id": "g"}, stream=True)
    with pytest.raises(ConfigurationError, match="There is no option 'run_number' for a stream of messages"):
        Job.of({**options, "run_number": "1"}, stream=True)


# --- dividing --------------------------------------------------------------------------------------------------------


def whole(pages: int, campaign: str | None = None, first: int = 1) -> Range:
    return Range(
        first=first, last=first + pages - 1, first_of_all=first, pages=pages, campaign_id=campaign, run_number=1
    )


@pytest.mark.parametrize("at_most", [1, 2, 7, 100])
@pytest.mark.parametrize("longest", [None, 1, 3])
@pytest.mark.parametrize("sizes", [(1,), (10,), (3, 0, 5), (1, 1, 1, 40)])
def test_every_page_is_in_one_part(at_most: int, longest: int | None, sizes: tuple[int, ...]) -> None:
    sets = [whole(size, str(number)) for number, size in enumerate(sizes)]
    parts = divided(sets, at_most=at_most, longest=longest)
    pages = [(one.campaign_id, page) for part in parts for one in part for page in range(one.first, one.last + 1)]
    assert pages == [(each.campaign_id, page) for each in sets for page in range(1, each.pages + 1)]
    lengths = [sum(map(len, part)) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= (longest or sum(sizes))
    assert len(parts) <= max(at_most, 0 if longest is None else -(-sum(sizes) // longest))


def test_a_set_without_pages_is_a_part_of_its_own() -> None:
    assert divided([whole(0)], at_most=5) == [(whole(0),)]
    assert divided([], at_most=5) == []


def test_limits_are_divided_over_the_tasks_that_run_at_once() -> None:
    asked = job(customer_group_id="g", parallelism="8", concurrency="20", requests_per_second="40")
    shares = asked.shares([whole(100)])
    assert len(shares) == 8
    assert {asked.in_flight(share) for share in shares} == {2}
    assert [asked.lane(share) for share in shares[:2]] == [
        Lane(number=0, lanes=8, per_second=40.0),
        Lane(number=1, lanes=8, per_second=40.0),
    ]
    # Fewer requests in flight than tasks: fewer tasks.
    few = job(customer_group_id="g", parallelism="8", concurrency="3")
    assert len(few.shares([whole(100)])) == 3
    assert few.lane(few.shares([whole(100)])[0]) is None
    # Shorter ranges: more tasks, in as many lanes as run at once.
    short = job(customer_group_id="g", parallelism="4", pages_per_partition="5", requests_per_second="40")
    shares = short.shares([whole(100)])
    assert len(shares) == 20
    assert {lane.number for share in shares if (lane := short.lane(share)) is not None} == {0, 1, 2, 3}


def test_a_share_says_what_it_is() -> None:
    share = Share(number=1, shares=3, ranges=(Range(first=4, last=6, pages=9), whole(0)))
    assert str(share) == "partition 2 of 3 (pages 4 to 6 of 9; no pages)"
    assert str(Share(ranges=(whole(2, "c"),))) == "partition 1 of 1 (pages 1 to 2 of 2 of run 1 of campaign c)"
    assert str(Share()) == "partition 1 of 1"
    assert Range(first=4, last=9, pages=9).ends_the_set
    assert not share.ranges[0].ends_the_set
