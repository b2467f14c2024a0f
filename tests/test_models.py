"""The generated models: quiet about secrets and people, easy to copy, impossible to misspell."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any, get_args

import attrs
import pytest
from operations import DOCUMENT

from nudgescribe_async.endpoints import models
from nudgescribe_async.endpoints.models import Customer, DownloadLink, RunMessage, Tokens
from nudgescribe_async.shapes import Evidence, NotPickled, hidden, names_only

MODELS: list[type[Any]] = [
    found for name in models.__all__ if attrs.has(found := getattr(models, name)) and isinstance(found, type)
]
SECRET_HOLDERS = [Tokens, DownloadLink]
SCHEMAS = DOCUMENT["components"]["schemas"]


def example(model: type[Any]) -> Any:
    """An instance with a value in every field."""
    attrs.resolve_types(model)
    return model(**{field.name: _value(field.type) for field in attrs.fields(model)})


def _value(kind: Any) -> Any:
    kinds = [item for item in (kind, *get_args(kind)) if item is not type(None)]
    for item in kinds:
        origin = getattr(item, "__origin__", None)
        if attrs.has(item):
            return example(item)
        if origin is list:
            return [_value(get_args(item)[0])]
        if origin is dict:
            return {"a name": "hunter2"}
        if item in (str, int, bool, datetime):
            return {str: "hunter2", int: 3, bool: True, datetime: datetime(2025, 9, 8, tzinfo=UTC)}[item]
    raise AssertionError(f"no example of {kind}")


def test_there_is_a_model_for_each_schema_of_an_answer() -> None:
    assert len(MODELS) == 17
    assert {model.__name__ for model in MODELS} <= set(SCHEMAS)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_slotted_and_takes_names_only(model: type[Any]) -> None:
    value = example(model)
    assert not hasattr(value, "__dict__")
    with pytest.raises(AttributeError):
        value.misspelt = 1
    with pytest.raises(TypeError):
        model("by position")


@pytest.mark.parametrize("model", MODELS)
def test_every_field_carries_the_evidence_of_the_contract(model: type[Any]) -> None:
    properties = SCHEMAS[model.__name__]["properties"]
    fields = {field.name: field for field in attrs.fields(model) if field.name != "extra"}
    assert set(fields) == set(properties)
    for name, field in fields.items():
        assert field.metadata["evidence"] == Evidence(properties[name]["x-evidence"])
        assert (field.default is attrs.NOTHING) == (name in SCHEMAS[model.__name__].get("required", ()))


@pytest.mark.parametrize("model", MODELS)
def test_a_model_shows_no_secret_no_personal_value_and_nothing_of_extra(model: type[Any]) -> None:
    properties = SCHEMAS[model.__name__]["properties"]
    for field in attrs.fields(model):
        quiet = field.name == "extra" or properties[field.name].keys() & {"x-secret", "x-personal"}
        assert (field.repr in (hidden, names_only)) == bool(quiet), field.name
    value = attrs.evolve(example(model), extra={"new": "hunter3"})
    assert "hunter3" not in repr(value)
    assert "'new': ***" in repr(value)


@pytest.mark.parametrize(
    "value",
    [
        Tokens(access_token="hunter2", refresh_token="hunter2", extra={"id_token": "hunter2"}),
        DownloadLink(url="https://files.example/x?signature=hunter2"),
        Customer(
            customer_id="c", customer_group_id="g", extended_profile={"name": "hunter2", "deep": {"x": "hunter2"}}
        ),
        RunMessage(message_id="m", content="Dear hunter2"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_must_not_be_seen_is_in_no_text(value: object) -> None:
    for text in (repr(value), str(value), f"{value}", f"{[value]!r}", "%s" % value):  # noqa: UP031
        assert "hunter2" not in text
        assert "***" in text


def test_what_is_absent_is_shown_as_absent() -> None:
    assert "refresh_token=None" in repr(Tokens(access_token="a"))
    assert "content=None" in repr(RunMessage(message_id="m"))
    assert "{'name': ***, 'age': ***}" in repr(
        Customer(customer_id="c", customer_group_id="g", extended_profile={"name": "x", "age": 3})
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("model", [model for model in MODELS if model not in SECRET_HOLDERS])
def test_a_model_is_whole_after_it_was_pickled(model: type[Any], protocol: int) -> None:
    value = example(model)
    again = pickle.loads(pickle.dumps(value, protocol))
    assert again == value
    assert type(again) is model


@pytest.mark.parametrize("model", [model for model in MODELS if model not in SECRET_HOLDERS])
def test_a_deep_copy_shares_nothing_that_can_change(model: type[Any]) -> None:
    value = example(model)
    again = copy.deepcopy(value)
    assert again == value
    again.extra["more"] = 1
    assert "more" not in value.extra
    assert copy.copy(value) == value


def test_two_objects_do_not_share_their_extra() -> None:
    first, second = Customer(customer_id="c", customer_group_id="g", extended_profile={}), models.Receipt()
    first.extra["a"] = 1
    assert second.extra == {}
    assert models.Receipt().extra == {}


@pytest.mark.parametrize("model", SECRET_HOLDERS)
def test_who_holds_a_secret_is_copied_as_itself_and_never_pickled(model: type[Any]) -> None:
    value = example(model)
    assert isinstance(value, NotPickled)
    assert copy.copy(value) is value
    assert copy.deepcopy([value])[0] is value
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for held in (value, [value], {"x": value}):
            with pytest.raises(
                TypeError, match=rf"^{model.__name__} holds a secret and is not pickled; read the secret"
            ):
                pickle.dumps(held, protocol)


def test_the_holders_of_secrets_are_those_of_the_contract() -> None:
    with_secret = {
        name
        for name, schema in SCHEMAS.items()
        if any("x-secret" in item for item in schema.get("properties", {}).values()) and not name.endswith("Body")
    }
    assert with_secret == {model.__name__ for model in SECRET_HOLDERS}
    assert {model for model in MODELS if issubclass(model, NotPickled)} == set(SECRET_HOLDERS)


def test_known_states_are_text() -> None:
    assert models.CampaignStatus("Published") is models.CampaignStatus.PUBLISHED
    assert "".join(models.CampaignStatus.PUBLISHED) == "Published"
    assert str(models.ProfileFieldType.DATE) == f"{models.ProfileFieldType.DATE}" == "Date"
