"""``nudgescribe customers``, in process against a sandbox."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import COMMAND

from nudgescribe_async.cli.commands import customers
from nudgescribe_async.cli.failures import UsageError
from nudgescribe_async.cli.result_file import check_free
from nudgescribe_async.cli.wording import spoken_as_command
from nudgescribe_async.sandbox import BadAnswer, LoseAnswer, ShiftPages, Status

if TYPE_CHECKING:
    from collections.abc import Generator

    from command_line import Process, Result, Service, Shell

JANUARY = "January 1997"
HEADER = "external_id,first_purchase,last_purchase,purchases,cds_bought,total_spend"
MARK = "MARKED-value"


def rows(count: int, *, start: int = 0) -> str:
    lines = [f"A{number:05d},1997-01-01,1997-02-01,3,5,12.50" for number in range(start, start + count)]
    return "\n".join([HEADER, *lines, ""])


@pytest.fixture
def group(settings: Service) -> str:
    """An empty group."""
    return settings.call(lambda sandbox: sandbox.create_customer_group("Empty"))


def count_of(shell: Shell, group: str) -> int:
    number: int = shell("customers", "count", group, "--exact", "--json").document["customers"]
    return number


# --- count -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
def test_customers_are_counted(settings: Service, shell: Shell, exact: bool) -> None:
    result = shell("customers", "count", JANUARY, "--json", *(["--exact"] if exact else []))
    expected = sum(1 for line in shell("customers", "export", JANUARY, "-").out.splitlines() if line)
    assert result.code == 0
    assert result.document == {
        "customer_group_id": settings.groups[JANUARY],
        "customers": expected,
        "pages": -(-expected // 100),
        "exact": exact,
    }


@pytest.mark.parametrize("exact", [False, True])
def test_an_empty_group_has_none(group: str, shell: Shell, exact: bool) -> None:
    result = shell("customers", "count", group, *(["--exact"] if exact else []))
    assert (result.code, result.out.split()[0]) == (0, "0")


def test_a_count_is_a_few_requests_however_large_the_group_is(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    service = start_service(page_size=5)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    before = service.sandbox.count("customers.list")
    result = shell("customers", "count", JANUARY, "--json")
    assert service.sandbox.count("customers.list") - before <= 4
    assert (
        result.document["customers"] == shell("customers", "count", JANUARY, "--exact", "--json").document["customers"]
    )


def test_without_a_workspace_an_id_is_enough_and_a_name_is_not(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUDGESCRIBE_WORKSPACE_ID")
    assert shell("customers", "count", settings.groups[JANUARY]).code == 0
    assert settings.sandbox.count("customer_groups.list") == 0
    assert shell("customers", "count", JANUARY).code == 1


def test_who_may_not_see_the_groups_may_name_one_by_its_id(settings: Service, shell: Shell) -> None:
    settings.inject(Status(403), operation="customer_groups.list", times=None)
    assert shell("customers", "count", settings.groups[JANUARY]).code == 0


def test_a_change_of_the_group_while_it_is_counted_is_told(settings: Service, shell: Shell) -> None:
    settings.inject(ShiftPages(-120), operation="customers.list", skip=2)
    result = shell("customers", "count", JANUARY, "--exact")
    assert result.code == 0
    assert "changed while it was read" in result.err


# --- export ------------------------------------------------------------------------------------------------------------


def test_an_export_is_a_file_that_only_its_owner_can_read(settings: Service, shell: Shell, home: Path) -> None:
    result = shell("customers", "export", JANUARY, "january.csv", "--json")
    assert (result.code, result.err) == (0, "")
    file = home / "january.csv"
    assert result.document["destination"] == str(file)
    assert result.document["customers"] == len(list(csv.DictReader(io.StringIO(file.read_text()))))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_is_overwritten_unless_it_is_said(settings: Service, shell: Shell, home: Path) -> None:
    file = home / "january.ndjson"
    file.write_text("mine")
    refused = shell("customers", "export", JANUARY, str(file))
    assert (refused.code, file.read_text()) == (1, "mine")
    assert "--overwrite" in refused.err
    assert "overwrite=True" not in refused.err
    assert shell("customers", "export", JANUARY, str(file), "--overwrite").code == 0
    assert file.read_text() != "mine"


def test_parts_and_their_number(settings: Service, shell: Shell, home: Path) -> None:
    result = shell("customers", "export", JANUARY, "parts", "--format", "csv.gz", "--rows-per-part", "150", "--json")
    assert result.code == 0
    assert [part["name"] for part in result.document["parts"]] == sorted(
        path.name for path in (home / "parts").glob("*.csv.gz")
    )
    assert len(result.document["parts"]) > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.unheard"], "format"),
        (["x.csv", "--format", "parquet"], "format"),
        (["-", "--overwrite"], "Standard output"),
        (["-", "--format", "csv"], "Standard output"),
        (["x.csv", "--rows-per-part", "0"], "rows-per-part"),
        (["x.csv", "--spool", "somewhere"], "spool"),
        (["--ovewrite"], "no option"),
        (["x.csv", "--decrypt"], "NUDGESCRIBE_PROFILE_KEY"),
    ],
)
def test_what_cannot_be_right_is_a_usage_error_and_nothing_is_asked(
    settings: Service, shell: Shell, home: Path, arguments: list[str], said: str
) -> None:
    result = shell("customers", "export", JANUARY, *arguments)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert settings.sandbox.count("customers.list") == 0
    assert not list(home.glob("x*"))


@pytest.mark.parametrize("key", ["", "no hexadecimal", "00"])
def test_a_key_that_is_none_is_not_repeated(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("NUDGESCRIBE_PROFILE_KEY", key)
    result = shell("customers", "export", JANUARY, "x.csv", "--decrypt")
    assert result.code == 2
    assert "NUDGESCRIBE_PROFILE_KEY" in result.err or "32 bytes" in result.err
    assert "no hexadecimal" not in result.err


def test_profiles_in_the_clear(settings: Service, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUDGESCRIBE_PROFILE_KEY", settings.sandbox.profile_key.hex())
    assert shell("customers", "export", JANUARY, "clear.csv", "--decrypt").code == 0
    first = next(csv.DictReader(io.StringIO((home / "clear.csv").read_text())))
    assert first["external_id"]
    stream = shell("customers", "export", JANUARY, "-", "--decrypt")
    assert stream.lines[0]["extended_profile"]["external_id"] == first["external_id"]


def test_a_stream_has_the_same_lines_as_a_file(settings: Service, process: Process, home: Path) -> None:
    stream = process("customers", "export", JANUARY, "-")
    assert (stream.code, stream.err) == (0, "")
    assert process("customers", "export", JANUARY, "file.ndjson").code == 0
    assert stream.out == (home / "file.ndjson").read_text()


def test_a_stream_that_breaks_says_how_much_was_written(settings: Service, shell: Shell) -> None:
    settings.inject(Status(400), operation="customers.list", skip=3, times=None)
    result = shell("customers", "export", JANUARY, "-", "--concurrency", "1")
    assert result.code == 1
    assert f"not complete: {len(result.lines):,} customers" in result.err


def test_an_export_that_breaks_goes_on_with_the_same_command(settings: Service, shell: Shell, home: Path) -> None:
    fault = settings.inject(Status(400), operation="customers.list", skip=3, times=None)
    broken = shell("customers", "export", JANUARY, "january.csv", "--json")
    assert (broken.code, broken.out) == (1, "")
    assert "the same command goes on" in broken.error["hint"]
    assert not (home / "january.csv").exists()
    fault.remove()
    rest = shell("customers", "export", JANUARY, "january.csv", "--json")
    assert (rest.code, rest.document["resumed"]) == (0, True)
    assert shell("customers", "export", JANUARY, "undisturbed.csv").code == 0
    assert (home / "january.csv").read_bytes() == (home / "undisturbed.csv").read_bytes()


def test_a_change_of_the_group_meanwhile_is_told(settings: Service, shell: Shell) -> None:
    settings.inject(ShiftPages(-120), operation="customers.list", skip=2)
    result = shell("customers", "export", JANUARY, "january.csv", "--json")
    assert result.document["drift"]
    assert "changed while it was read" in result.err


# --- upload ------------------------------------------------------------------------------------------------------------


def csv_file(home: Path, text: str, name: str = "new.csv") -> str:
    (home / name).write_text(text)
    return name


def test_an_upload_accounts_for_every_row(group: str, shell: Shell, home: Path) -> None:
    result = shell("customers", "upload", group, csv_file(home, rows(250)), "--json")
    assert (result.code, result.err) == (0, "")
    assert (result.document["rows"], result.document["accepted"], result.document["complete"]) == (250, 250, True)
    assert count_of(shell, group) == 250


def packed(home: Path, name: str, data: bytes) -> str:
    (home / name).write_bytes(gzip.compress(data))
    return name


def as_ndjson(text: str) -> str:
    lines = [json.dumps(row) for row in csv.DictReader(io.StringIO(text))]
    return "\n".join([lines[0], "", *lines[1:]])


def parquet(home: Path, text: str) -> str:
    pq.write_table(pa.Table.from_pylist(list(csv.DictReader(io.StringIO(text)))), home / "new.parquet")
    return "new.parquet"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(csv_file, id="csv"),
        pytest.param(lambda home, text: packed(home, "new.csv.gz", text.encode()), id="csv.gz"),
        pytest.param(lambda home, text: csv_file(home, as_ndjson(text), "new.ndjson"), id="ndjson"),
        pytest.param(
            lambda home, text: csv_file(home, "\ufeff" + as_ndjson(text), "new.jsonl"), id="jsonl with a mark"
        ),
        pytest.param(lambda home, text: packed(home, "new.ndjson.gz", as_ndjson(text).encode()), id="ndjson.gz"),
        pytest.param(parquet, id="parquet"),
    ],
)
def test_every_kind_of_file_goes_up(group: str, shell: Shell, home: Path, make: Callable[[Path, str], str]) -> None:
    result = shell("customers", "upload", group, make(home, rows(30)), "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document["accepted"] == 30
    assert count_of(shell, group) == 30


@pytest.mark.parametrize("format_", ["csv", "ndjson"])
def test_standard_input_goes_up_through_a_pipe(group: str, process: Process, format_: str) -> None:
    text = rows(30) if format_ == "csv" else as_ndjson(rows(30))
    result = process("customers", "upload", group, "-", "--format", format_, "--json", stdin=text)
    assert (result.code, result.err) == (0, "")
    assert result.document["accepted"] == 30


@contextmanager
def standard_input(descriptor: int) -> Generator[None]:
    """What this process reads from, for a while; it is closed."""
    kept = os.dup(0)
    try:
        os.dup2(descriptor, 0)
        os.close(descriptor)
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.mark.parametrize("format_", ["csv", "ndjson"])
def test_standard_input_may_be_a_file(group: str, shell: Shell, home: Path, format_: str) -> None:
    (home / "input").write_text(rows(30) if format_ == "csv" else as_ndjson(rows(30)))
    with standard_input(os.open("input", os.O_RDONLY)):
        result = shell("customers", "upload", group, "-", "--format", format_, "--json")
    assert (result.code, result.document["accepted"]) == (0, 30)


def test_standard_input_that_is_a_terminal_is_refused(group: str, shell: Shell) -> None:
    main_end, terminal = os.openpty()
    with standard_input(terminal):
        result = shell("customers", "upload", group, "-")
    os.close(main_end)
    assert result.code == 2
    assert "terminal" in result.err


def test_bad_rows_are_told_and_the_others_sent(group: str, shell: Shell, home: Path) -> None:
    text = rows(20) + f"B1,{MARK},1997-02-01,3,5,12.50\nB2,1997-01-01,1997-02-01,{MARK},5,12.50\n"
    file = csv_file(home, text)
    result = shell("customers", "upload", group, file, "--problems", "problems.csv")
    assert result.code == 3
    assert "22 rows: 20 accepted, 2 refused by the check" in result.out
    assert "first_purchase" in result.out
    assert MARK not in result.out + result.err
    problems = list(csv.DictReader(io.StringIO((home / "problems.csv").read_text())))
    assert [problem["row"] for problem in problems] == ["21", "22"]
    assert stat.S_IMODE((home / "problems.csv").stat().st_mode) == 0o600
    assert shell("customers", "upload", group, file, "--problems", "problems.csv").code == 2
    assert shell("customers", "upload", group, file, "--problems", "problems.csv", "--overwrite").code == 3
    assert shell("customers", "upload", group, file, "--problems", "nowhere/problems.csv").code == 2


def test_of_many_problems_the_first_are_shown_and_the_rest_is_counted(group: str, shell: Shell, home: Path) -> None:
    text = rows(5) + "".join(f"B{number},x,1997-02-01,3,5,12.50\n" for number in range(25))
    result = shell("customers", "upload", group, csv_file(home, text))
    assert result.code == 3
    assert "15 more problems: --problems FILE" in result.out
    result = shell("customers", "upload", group, "new.csv", "--problems", "all.csv")
    assert "all are in all.csv" in result.out


def test_nothing_taken_is_a_failure(group: str, shell: Shell, home: Path) -> None:
    text = f"{HEADER}\nB1,x,1997-02-01,3,5,12.50\n"
    assert shell("customers", "upload", group, csv_file(home, text)).code == 1
    assert shell("customers", "upload", group, "new.csv", "--dry-run").code == 1


@pytest.mark.parametrize(("bad", "code"), [(0, 0), (1, 3)])
def test_a_dry_run_sends_nothing(group: str, settings: Service, shell: Shell, home: Path, bad: int, code: int) -> None:
    text = rows(20) + "B1,x,1997-02-01,3,5,12.50\n" * bad
    result = shell("customers", "upload", group, csv_file(home, text), "--dry-run")
    assert result.code == code
    assert "20 would be sent in 1 request" in result.out
    assert settings.sandbox.count("customers.check") == 0


def test_with_refuse_one_bad_row_stops_all(group: str, settings: Service, shell: Shell, home: Path) -> None:
    file = csv_file(home, rows(20) + f"B1,{MARK},1997-02-01,3,5,12.50\n")
    result = shell("customers", "upload", group, file, "--bad-rows", "refuse", "--problems", "p.csv", "--json")
    assert (result.code, result.out) == (1, "")
    assert [row["row"] for row in csv.DictReader(io.StringIO((home / "p.csv").read_text()))] == ["21"]
    assert "--problems" in result.error["hint"]
    assert MARK not in result.err
    assert settings.sandbox.count("customers.check") == 0


@pytest.mark.parametrize(
    ("name", "content", "arguments", "code", "said"),
    [
        ("new.xls", b"x", [], 2, "--format"),
        ("missing.csv", None, [], 2, "missing.csv"),
        ("new.parquet.gz", b"x", [], 2, "gunzip"),
        ("new.parquet", b"x", [], 1, "no Parquet"),
        ("new.csv.gz", b"no gzip", [], 1, "damaged"),
        ("new.ndjson", b'{"external_id": ', [], 1, "no JSON"),
        ("new.ndjson", b'["A1"]', [], 1, "no object"),
        ("new.ndjson", b'{"external_id": "A", "external_id": "B"}', [], 1, "twice"),
        ("new.ndjson", b'{"external_id": "A", "purchases": NaN}', [], 1, "NaN"),
        ("new.ndjson", b'{"external_id": "' + b"A" * 17 * 2**20, [], 1, "MiB"),
        ("new.csv", b"a,b\n1,2\n", ["--delimiter", "xx"], 2, "delimiter"),
        ("new.csv", b"a,b\n1,2\n", ["--encoding", "klingon"], 2, "encoding"),
        ("new.csv", b"a,b\n1,2\n", ["--to-row", "0"], 2, "to-row"),
        ("-", None, ["--format", "parquet"], 2, "standard input"),
        (".", None, ["--format", "csv"], 2, "no file"),
    ],
)
def test_a_source_that_is_none(
    group: str,
    settings: Service,
    shell: Shell,
    home: Path,
    name: str,
    content: bytes | None,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    if content is not None:
        (home / name).write_bytes(content)
    result = shell("customers", "upload", group, name, *arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert "Nothing was sent" in result.err or code == 2
    assert settings.sandbox.count("customers.check") == 0


def test_parquet_without_pyarrow_says_what_to_install(
    group: str, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = parquet(home, rows(3))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = shell("customers", "upload", group, file)
    assert result.code == 2
    assert "nudgescribe_async[parquet]" in result.err


def arguments_of(line: str) -> list[str]:
    """What a command that was printed would be given by a shell."""
    program, *arguments = shlex.split(line)
    assert program == "nudgescribe"
    return arguments


@pytest.fixture
def typed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """As the shell, and the command knows how it was typed."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["nudgescribe", *arguments])
        return shell(*arguments)

    return run


def test_an_upload_that_breaks_prints_the_command_for_the_rest(
    group: str, settings: Service, typed: Shell, home: Path
) -> None:
    arguments = ["customers", "upload", group, csv_file(home, rows(50)), "--rows-per-chunk", "10", "--json"]
    settings.inject(Status(400), operation="customers.check", skip=2, times=1)
    broken = typed(*arguments, "--problems=p.csv", "--from-row=1", "--to-row", "50")
    assert broken.code == 3
    assert broken.document["accepted"] == 20
    assert broken.document["left"] == [{"from_row": 31, "to_row": 50}]
    assert "Rows 21 to 30 were refused as a whole" in broken.err
    [command] = broken.document["next"]
    rest = typed(*arguments_of(command))
    assert (rest.code, rest.document["accepted"]) == (0, 20)
    assert (home / "p-from-row-31.csv").exists()
    assert count_of(typed, group) == 40


def test_rows_that_may_have_been_taken_are_never_sent_again_by_themselves(
    group: str, settings: Service, typed: Shell, home: Path
) -> None:
    settings.inject(LoseAnswer(), operation="customers.check", skip=1, times=1)
    arguments = ["customers", "upload", group, csv_file(home, rows(30)), "--rows-per-chunk", "10"]
    lost = typed(*arguments)
    assert lost.code == 3
    assert "Rows 11 to 20 may have been taken" in lost.err
    assert "NOT COMPLETE: 10 were not taken, and of 10 it is not known" in lost.out
    commands = [line.strip() for line in lost.err.splitlines() if line.strip().startswith("nudgescribe ")]
    assert [arguments_of(command)[-4:] for command in commands] == [
        ["--from-row", "11", "--to-row", "20"],
        ["--from-row", "21", "--to-row", "30"],
    ]
    assert count_of(typed, group) == 20
    assert typed(*arguments_of(commands[1])).code == 0
    assert count_of(typed, group) == 30


def test_nothing_known_to_be_taken_is_not_called_nothing(
    group: str, settings: Service, shell: Shell, home: Path
) -> None:
    settings.inject(LoseAnswer(), operation="customers.check", times=1)
    assert shell("customers", "upload", group, csv_file(home, rows(5))).code == 3


def test_what_does_not_fit_in_the_answer_is_told(group: str, settings: Service, shell: Shell, home: Path) -> None:
    settings.inject(BadAnswer(b'{"success": true}', status=200), operation="customers.check")
    result = shell("customers", "upload", group, csv_file(home, rows(5)))
    assert result.code == 3
    assert "did not say how many rows" in result.out


def test_queued_rows_are_told(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, shell: Shell, home: Path
) -> None:
    service = start_service(queue_above=10)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    group = service.call(lambda sandbox: sandbox.create_customer_group("Empty"))
    result = shell("customers", "upload", group, csv_file(home, rows(20)))
    assert result.code == 0
    assert "20 rows of them are queued" in result.out


@pytest.mark.parametrize("fault", [Status(400), LoseAnswer()])
def test_the_rest_of_standard_input_cannot_be_sent_by_a_command(
    group: str, settings: Service, shell: Shell, home: Path, fault: Any
) -> None:
    (home / "input").write_text(rows(30))
    settings.inject(fault, operation="customers.check", skip=1, times=1)
    with standard_input(os.open("input", os.O_RDONLY)):
        result = shell("customers", "upload", group, "-", "--rows-per-chunk", "10", "--json")
    assert (result.code, result.document["next"]) == (3, [])
    assert "Rows 11 to 20 " in result.err
    assert "Rows 21 to 30 were not sent, and standard input cannot be read again" in result.err
    assert "send them" not in result.err


def test_options_of_an_upload(group: str, settings: Service, shell: Shell, home: Path) -> None:
    text = "external_id;purchases;Größe\n" + "".join(f"A{number % 4};3;x\n" for number in range(8))
    (home / "new.csv").write_bytes(text.encode("latin-1"))
    result = shell(
        *[
            "customers",
            "upload",
            group,
            "new.csv",
            "--delimiter",
            ";",
            "--encoding",
            "latin-1",
            "--unique",
            "external_id",
        ],
        *[
            "--field",
            "external_id",
            "--field",
            "purchases",
            "--repeat-unknown",
            "--concurrency",
            "2",
            "--spool",
            str(home),
        ],
        "--json",
    )
    assert result.code == 3
    assert (result.document["accepted"], result.document["refused_by_check"]) == (4, 4)


def test_unchecked_rows_are_judged_by_the_service_alone(
    group: str, settings: Service, shell: Shell, home: Path
) -> None:
    file = csv_file(home, rows(5) + f"B1,{MARK},1997-02-01,3,5,12.50\n")
    result = shell("customers", "upload", group, file, "--no-check", "--json")
    assert result.code == 3
    assert (result.document["refused_by_check"], result.document["refused_by_service"]) == (0, 1)
    assert settings.sandbox.count("customer_groups.list") == 0


# --- delete ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ids(settings: Service, shell: Shell) -> list[str]:
    return [line["customer_id"] for line in shell("customers", "export", JANUARY, "-").lines]


def test_customers_are_deleted_by_their_ids(settings: Service, shell: Shell, ids: list[str]) -> None:
    result = shell("customers", "delete", JANUARY, *ids[:3], "--yes", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document == {
        "customer_group_id": settings.groups[JANUARY],
        "ids": 3,
        "asked": 3,
        "deleted": 3,
        "complete": True,
    }
    assert count_of(shell, JANUARY) == len(ids) - 3


def test_without_a_terminal_nothing_is_deleted_unless_it_is_said(
    settings: Service, shell: Shell, ids: list[str]
) -> None:
    result = shell("customers", "delete", JANUARY, ids[0])
    assert result.code == 2
    assert f"Delete 1 customer of the group {JANUARY!r}" in result.err
    assert settings.sandbox.count("customers.delete") == 0


def test_ids_from_a_file_each_once(settings: Service, shell: Shell, ids: list[str], home: Path) -> None:
    (home / "ids.txt").write_text("\ufeff" + "\n".join([*ids[:4], "", ids[0], "  " + ids[1] + " ", "nobody"]) + "\n")
    dry = shell("customers", "delete", JANUARY, "--ids-file", "ids.txt", "--dry-run", "--json")
    assert (dry.code, dry.document["would_delete"], dry.document["ids"]) == (3, 4, 5)
    assert settings.sandbox.count("customers.delete") == 0
    result = shell("customers", "delete", JANUARY, "--ids-file", "ids.txt", "--yes", "--json")
    assert result.code == 3
    assert (result.document["ids"], result.document["deleted"]) == (5, 4)
    assert "2 ids came more than once" in result.err
    assert "Of no customer of the group: 1 id." in result.err
    again = shell("customers", "delete", JANUARY, "--ids-file", "ids.txt", "--yes")
    assert again.code == 1
    assert shell("customers", "delete", JANUARY, "nobody", "--dry-run").code == 1
    assert shell("customers", "delete", JANUARY, ids[5], "--dry-run").code == 0


def test_ids_from_standard_input(settings: Service, process: Process, ids: list[str]) -> None:
    result = process("customers", "delete", JANUARY, "--ids-file", "-", "--yes", "--json", stdin="\n".join(ids[:2]))
    assert (result.code, result.document["deleted"]) == (0, 2)


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (None, []),
        (b"a", ["b"]),
        (None, ["--ids-file", "missing"]),
        (b"\xff\xfe", []),
        (b"customer_id,name\nA1,Bob", []),
        (b"A1 Bob", []),
        (b"\n\n", []),
    ],
)
def test_ids_that_are_none(
    settings: Service, shell: Shell, home: Path, content: bytes | None, arguments: list[str]
) -> None:
    if content is not None:
        (home / "ids").write_bytes(content)
        arguments = [*arguments, "--ids-file", "ids"]
    result = shell("customers", "delete", JANUARY, *arguments, "--yes")
    assert (result.code, result.out) == (2, "")
    assert "Bob" not in result.err
    assert settings.sandbox.count("customers.delete") == 0


def test_a_deletion_that_breaks_says_how_far_it_came(settings: Service, shell: Shell, home: Path) -> None:
    (home / "ids").write_text("\n".join(f"nobody-{number}" for number in range(2_500)))
    settings.inject(Status(400), operation="customers.delete", skip=1, times=1)
    result = shell("customers", "delete", JANUARY, "--ids-file", "ids", "--yes", "--json")
    assert (result.code, result.document["asked"], result.document["complete"]) == (1, 1_000, False)
    assert "1,000 of 2,500 ids were dealt with" in result.err
    assert "1,500 ids are left" in result.err
    settings.inject(Status(400), operation="customers.delete", times=1)
    result = shell("customers", "delete", JANUARY, "--ids-file", "ids", "--yes")
    assert (result.code, result.out) == (1, "")
    assert "The same command goes on" in result.err


def test_a_service_that_does_not_say_how_many_were_deleted(settings: Service, shell: Shell, ids: list[str]) -> None:
    settings.inject(BadAnswer(b'{"success": true}', status=200), operation="customers.delete")
    result = shell("customers", "delete", JANUARY, ids[0], "--yes", "--json")
    assert (result.code, result.document["deleted"]) == (0, None)


# --- what all have in common ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["count", "Nobody"],
        ["export", "Nobody", "x.csv"],
        ["upload", "Nobody", "new.csv"],
        ["delete", "Nobody", "a", "--yes"],
    ],
)
def test_a_group_that_there_is_not(settings: Service, shell: Shell, home: Path, arguments: list[str]) -> None:
    csv_file(home, rows(1))
    result = shell("customers", *arguments, "--json")
    assert (result.code, result.out) == (1, "")
    assert "groups list" in result.error["hint"]


def test_of_what_could_not_be_decoded_nothing_is_repeated() -> None:
    with pytest.raises(UnicodeDecodeError), spoken_as_command():
        MARK.encode("utf-16").decode()
    with pytest.raises(UsageError, match="--restart"), spoken_as_command():
        raise ValueError("pass restart=True")


def test_no_secret_is_ever_shown(settings: Service, shell: Shell, home: Path) -> None:
    outputs: list[Any] = [
        shell("customers", "count", JANUARY, "--debug"),
        shell("customers", "export", JANUARY, "x.csv", "--debug"),
        shell("customers", "upload", JANUARY, csv_file(home, rows(1)), "--debug"),
    ]
    for result in outputs:
        for secret in settings.secrets:
            assert secret not in result.out + result.err


# --- files beside an upload, and the commands that it prints -----------------------------------------------------------


def test_the_file_of_the_problems_is_not_the_file_of_the_rows(group: str, shell: Shell, home: Path) -> None:
    (home / "new.csv").write_text(rows(3))
    (home / "link.csv").symlink_to("new.csv")
    for name in ("new.csv", "./new.csv", "link.csv"):
        result = shell("customers", "upload", group, "new.csv", "--problems", name, "--overwrite")
        assert (result.code, result.out) == (2, "")
        assert "is what the command reads" in result.err
    assert (home / "new.csv").read_text() == rows(3)
    assert count_of(shell, group) == 0


def test_a_file_that_cannot_be_written_is_found_before_the_upload(group: str, shell: Shell, home: Path) -> None:
    (home / "new.csv").write_text(rows(3))
    (home / "folder").mkdir()
    (home / "dangling.csv").symlink_to("mine.csv")
    os.mkfifo(home / "pipe")
    for arguments in (["folder", "--overwrite"], ["pipe", "--overwrite"], ["dangling.csv"], ["no/such.csv"]):
        assert shell("customers", "upload", group, "new.csv", "--problems", *arguments).code == 2
    assert count_of(shell, group) == 0
    assert not (home / "mine.csv").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_full_disk_at_the_end_does_not_hide_what_was_taken(
    group: str, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "problems.csv")

    (home / "new.csv").write_text(rows(3))
    monkeypatch.setattr(customers, "write_problems", full)
    arguments = ["customers", "upload", group, "new.csv", "--problems", "problems.csv"]
    result = shell(*arguments, *(["--json"] if as_json else []))
    assert result.code == 3
    assert "No space left on device: problems.csv" in result.err
    if as_json:
        assert (result.document["accepted"], result.error["exit_code"]) == (3, 3)
    else:
        assert "3 rows: 3 accepted" in result.out


def test_problems_do_not_replace_what_came_to_be_there_meanwhile(
    settings: Service, group: str, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "new.csv").write_text(rows(3))

    def somebody_writes(path: Path, **options: Any) -> None:
        check_free(path, **options)
        path.write_text("mine")

    monkeypatch.setattr(customers, "check_free", somebody_writes)
    result = shell("customers", "upload", group, "new.csv", "--problems", "problems.csv")
    assert (result.code, (home / "problems.csv").read_text()) == (3, "mine")


def test_the_commands_for_what_is_left_take_options_however_they_were_written(
    settings: Service, group: str, shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "new rows.csv").write_text(rows(30))
    settings.inject(Status(400), operation="customers.check", skip=1)
    arguments = ["customers", "upload", "--rows_per_chunk=10", "--from_row", "1", "--", group, "new rows.csv"]
    monkeypatch.setattr(sys, "argv", ["nudgescribe", *arguments])
    first = shell(*arguments)
    assert first.code == 3
    commands = [shlex.split(line)[1:] for line in first.err.splitlines() if line.startswith("  nudgescribe ")]
    assert commands
    for command in commands:
        assert shell(*command).code == 0
    assert count_of(shell, group) == 20  # the ten that were refused as a whole are not sent again as they are


def test_with_json_the_error_of_an_upload_has_the_code_that_it_ends_with(
    settings: Service, group: str, shell: Shell, home: Path
) -> None:
    (home / "new.csv").write_text(rows(30))
    settings.inject(LoseAnswer(), operation="customers.check", skip=1)
    result = shell("customers", "upload", group, "new.csv", "--rows-per-chunk", "10", "--json")
    error = next(json.loads(line)["error"] for line in result.err.splitlines() if line.startswith("{"))
    assert (result.code, error["exit_code"]) == (3, 3)
    assert "customers.iter" not in error["hint"]


@pytest.mark.parametrize(
    "arguments", [["upload", JANUARY, "-"], ["delete", JANUARY, "--ids-file", "-", "--yes"]], ids=["upload", "delete"]
)
def test_a_standard_input_that_is_closed_is_a_usage_error(settings: Service, arguments: list[str]) -> None:
    command = shlex.join([*COMMAND, "customers", *arguments])
    done = subprocess.run(["/bin/bash", "-c", f"{command} <&-"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Standard input is closed." in done.stderr
