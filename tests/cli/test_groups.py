"""Groups, profile fields and campaigns: what is listed and what is changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Service, Shell

NOBODY = "00000000-0000-0000-0000-000000000000"


def test_a_list_of_groups_is_a_table_or_one_document_a_line(settings: Service, shell: Shell) -> None:
    text = shell("groups", "list")
    assert (text.code, text.err) == (0, "")
    for name, group_id in settings.groups.items():
        assert any(line.split(maxsplit=1)[0] == group_id and name in line for line in text.out.splitlines())

    json = shell("groups", "list", "--json")
    assert {line["group_name"]: line["customer_group_id"] for line in json.lines} == dict(settings.groups)
    assert all("customers" not in line for line in json.lines)


def test_customers_are_counted_on_demand_and_exactly(settings: Service, shell: Shell) -> None:
    empty = settings.call(lambda sandbox: sandbox.create_customer_group("Nobody"))
    counted = {
        line["customer_group_id"]: line["customers"] for line in shell("groups", "list", "--counts", "--json").lines
    }
    exported = {
        group_id: len(shell("customers", "export", group_id, "-", "--json").out.splitlines())
        for group_id in settings.groups.values()
    }
    assert counted == exported | {empty: 0}
    assert all(count > 100 for count in exported.values())  # more than a page
    assert f"{counted[settings.groups['January 1997']]}" in shell("groups", "list", "--counts").out


def test_a_workspace_without_groups_says_so_on_stderr(settings: Service, shell: Shell) -> None:
    workspace = settings.call(lambda sandbox: sandbox.create_workspace("Empty"))
    for arguments in (["groups", "list"], ["fields", "list"]):
        result = shell(*arguments, "--workspace", workspace)
        assert (result.code, result.out) == (0, "")
        assert result.err.startswith("There are no ")
        assert shell(*arguments, "--workspace", workspace, "--json").out == ""


def test_a_group_is_created_renamed_and_deleted(settings: Service, shell: Shell) -> None:
    created = shell("groups", "create", "Spring 2027", "--json").document
    assert created["group_name"] == "Spring 2027"

    renamed = shell("groups", "rename", "Spring 2027", "Summer 2027")
    assert (renamed.code, renamed.err) == (0, "")
    assert created["customer_group_id"] in renamed.out

    deleted = shell("groups", "delete", created["customer_group_id"], "--yes", "--json")
    assert deleted.document["deleted"]["group_name"] == "Summer 2027"
    assert created["customer_group_id"] not in shell("groups", "list").out


def test_names_that_are_no_options_stand_behind_two_dashes(settings: Service, shell: Shell) -> None:
    assert shell("groups", "create", "--", "--json").code == 0
    assert "--json" in shell("groups", "list").out


def test_without_a_terminal_and_without_yes_nothing_is_deleted(settings: Service, shell: Shell) -> None:
    refused = shell("groups", "delete", "January 1997")
    assert refused.code == 2
    assert "January 1997" in refused.err
    assert "--yes" in refused.err
    assert settings.groups["January 1997"] in refused.err
    assert settings.sandbox.effects["customer_groups.delete"] == 0

    refused = shell("fields", "delete", "purchases", "--json")
    assert refused.code == 2
    assert refused.error["kind"] == "UsageError"
    assert settings.sandbox.effects["profile_fields.delete"] == 0


def _not_there(*_: object) -> None:
    raise NotImplementedError  # as on Windows


def test_on_a_terminal_what_is_deleted_is_asked_for_first(
    settings: Service, shell: Shell, keyboard: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("groups", "create", "Empty")
    settings.call(lambda sandbox: sandbox.create_customer_group("One", customers=[{"external_id": "1"}]))
    for name, what, answers in (("Empty", "0 customers", ["n", "", "YES"]), ("One", "1 customer", ["no", "y"])):
        for answer in answers:
            keyboard(answer)
            asked = shell("groups", "delete", name)
            assert f"Delete the group '{name}'" in asked.err
            assert f"with {what}? [y/N]" in asked.err
            assert asked.code == (0 if answer == answers[-1] else 1)
            assert (name in shell("groups", "list").out) == (answer != answers[-1])
    with monkeypatch.context() as other:
        other.setattr(asyncio.SelectorEventLoop, "add_reader", _not_there)
        keyboard("n")
        assert "Nothing was done." in shell("fields", "delete", "purchases").err
    keyboard()
    assert "Nothing was done." in shell("fields", "delete", "purchases").err
    assert settings.sandbox.effects["profile_fields.delete"] == 0


def test_a_name_that_two_groups_have_is_refused(settings: Service, shell: Shell) -> None:
    one = shell("groups", "create", "Twins", "--json").document["customer_group_id"]
    two = shell("groups", "create", "Twins", "--json").document["customer_group_id"]

    refused = shell("groups", "delete", "Twins", "--yes")
    assert refused.code == 2
    assert one in refused.err
    assert two in refused.err
    assert settings.sandbox.effects["customer_groups.delete"] == 0
    assert shell("groups", "delete", one, "--yes").code == 0


def test_an_id_wins_over_a_name(settings: Service, shell: Shell) -> None:
    wanted = settings.groups["January 1997"]
    shell("groups", "create", wanted)
    assert shell("groups", "rename", wanted, "Renamed").code == 0
    assert {wanted, "Renamed"} <= set(shell("groups", "list").out.split())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["groups", "rename", NOBODY, "x"], "groups list"),
        (["groups", "delete", "Nobody", "--yes"], "groups list"),
        (["fields", "update", "nothing", "--name", "x"], "fields list"),
        (["fields", "delete", NOBODY, "--yes"], "fields list"),
    ],
)
def test_what_is_not_there_is_one_sentence_and_a_hint(
    settings: Service, shell: Shell, arguments: list[str], hint: str
) -> None:
    result = shell(*arguments)
    sentence, advice = result.err.splitlines()
    assert (result.code, result.out) == (1, "")
    assert sentence.startswith("Error: The workspace ")
    assert hint in advice


def test_a_name_with_an_escape_sequence_reaches_no_terminal(settings: Service, shell: Shell) -> None:
    settings.call(lambda sandbox: sandbox.create_customer_group("red \x1b[31m and\nbroken"))
    listed = shell("groups", "list")
    assert "\x1b" not in listed.out
    assert r"red \x1b[31m and\nbroken" in listed.out
    assert "\x1b" not in shell("groups", "rename", "red \x1b[31m and\nbroken", "x").out


def test_profile_fields_are_listed_created_changed_and_deleted(settings: Service, shell: Shell) -> None:
    assert "external_id" in shell("fields", "list").out
    created = shell("fields", "create", "last_seen", "Date", "--format", "yyyy-MM-dd", "--required", "--json").document
    assert (created["field_type"], created["field_format"], created["is_required"]) == ("Date", "yyyy-MM-dd", True)

    changed = shell("fields", "update", "last_seen", "--optional", "--name", "seen", "--json").document
    assert (changed["field_name"], changed["is_required"], changed["field_format"]) == ("seen", False, "yyyy-MM-dd")

    assert "was deleted" in shell("fields", "delete", created["profile_field_id"], "-y").out
    assert "seen" not in {line["field_name"] for line in shell("fields", "list", "--json").lines}


def test_a_name_that_two_fields_have_is_refused(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nudgescribe_async.endpoints.profile_fields import ProfileFieldsEndpoints

    honest = ProfileFieldsEndpoints.list

    async def twice(endpoints: ProfileFieldsEndpoints, workspace_id: str) -> object:
        # The sandbox lets no two fields have one name; nobody knows of the service.
        from attrs import evolve

        fields = await honest(endpoints, workspace_id)
        return [*fields, *(evolve(field, profile_field_id=f"{field.profile_field_id}-2") for field in fields)]

    monkeypatch.setattr(ProfileFieldsEndpoints, "list", twice)
    refused = shell("fields", "delete", "purchases", "--yes")
    assert refused.code == 2
    assert "2 profile fields are named 'purchases'" in refused.err


def test_a_change_of_nothing_is_refused_before_anything_is_sent(settings: Service, shell: Shell) -> None:
    result = shell("fields", "update", "purchases")
    assert result.code == 2
    assert settings.sandbox.count("auth.authenticate") == 0


def test_campaigns_are_listed_by_the_time_of_their_publication(settings: Service, shell: Shell) -> None:
    everything = shell("campaigns", "list", "--json").lines
    assert {line["campaign_name"] for line in everything} == set(settings.campaigns)
    assert {line["workspace_name"] for line in everything} == {"Default workspace"}

    published = shell("campaigns", "list", "--from", "2020-01-01", "--to", "2099-01-01T00:00:00+01:00").out
    assert "Welcome back" in published
    assert "Spring sale" not in published
    none = shell("campaigns", "list", "--to", "2020-01-01")
    assert (none.code, none.out) == (0, "")
    assert shell("campaigns", "list", "--workspace", NOBODY, "--json").out == ""
    assert shell("campaigns", "list", "--from", "soon").code == 2


def test_without_a_workspace_the_hint_says_how_to_name_one(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUDGESCRIBE_WORKSPACE_ID")
    result = shell("groups", "list")
    assert result.code == 2
    assert "--workspace" in result.err
    assert shell("groups", "list", "--workspace", settings.sandbox.workspace_id).code == 0


def test_a_refusal_of_the_service_is_a_sentence_with_a_hint(settings: Service, shell: Shell) -> None:
    result = shell("groups", "list", "--workspace", NOBODY)
    sentence, hint = result.err.splitlines()
    assert (result.code, result.out) == (1, "")
    assert sentence.startswith("Error: ")
    assert "operation customer_groups.list" in sentence
    assert hint.startswith("Hint: ")

    error = shell("groups", "list", "--workspace", NOBODY, "--json").error
    assert error["operation"] == "customer_groups.list"
    assert error["exit_code"] == 1
    assert error["status"] == 400
    assert error["may_have_taken_effect"] is False


@pytest.mark.parametrize(
    "words",
    [
        ("groups", "create", ""),
        ("groups", "rename", "January 1997", "a\udcff"),
        ("fields", "create", "", "string"),
        ("fields", "update", "purchases", "--name", ""),
        ("campaigns", "list", "--from", "9999-12-31T23:59:59-12:00"),
    ],
    ids=" ".join,
)
def test_a_value_that_cannot_be_right_is_a_wrong_argument(
    settings: Service, shell: Shell, words: tuple[str, ...]
) -> None:
    result = shell(*words)
    assert result.code == 2
    assert "has a fault" not in result.err


def test_where_the_shell_has_closed_stdin_nobody_is_asked(
    settings: Service, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    for words in (("groups", "delete", "January 1997"), ("login", "--again")):
        result = shell(*words)
        assert result.code == 2
        assert "there is no terminal to ask on" in result.err
