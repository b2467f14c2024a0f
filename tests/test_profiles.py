"""Profiles in the clear: with the sandbox's keys, through a client, and nothing of it where it does not belong."""

from __future__ import annotations

import base64
import copy
import json
import logging
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nudgescribe_async import (
    JSON,
    AesGcmProfiles,
    ConfigurationError,
    Customer,
    CustomerGroup,
    Nudgescribe,
    ProfileDecryptor,
    ProfileError,
)
from nudgescribe_async.codec import Codec
from nudgescribe_async.profiles import HasProfile, attach
from nudgescribe_async.sandbox import Sandbox

KEY = b"MARKED-KEY-of-thirty-two-bytes-0"
NO_JSON = b"{MARKED-CONTENT"  # named, since tracebacks show the lines of the tests
PROFILE: dict[str, Any] = {"name": "Zoë MARKED-CONTENT", "age": 41, "score": 1.5}


def sealed(customer_id: str, profile: object, *, key: bytes = KEY, kid: str = "k1") -> dict[str, JSON]:
    """An envelope as the sandbox makes it, by other means than the code under test."""
    iv = os.urandom(12)
    text = profile if isinstance(profile, bytes) else json.dumps(profile).encode()
    ciphertext = AESGCM(key).encrypt(iv, text, customer_id.encode())
    encoded = (base64.b64encode(part).decode() for part in (iv, ciphertext))
    return {"alg": "A256GCM", "kid": kid, **dict(zip(("iv", "ciphertext"), encoded, strict=True))}


def customer(customer_id: str = "c1", profile: object = PROFILE, **changes: JSON) -> Customer:
    return Customer(
        customer_id=customer_id, customer_group_id="g", extended_profile=sealed(customer_id, profile) | changes
    )


class Own:
    """A decryptor of a user's own, as the guide has it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls = 0

    def decrypt(self, customer_id: str, extended_profile: Mapping[str, JSON]) -> Mapping[str, JSON]:  # noqa: ARG002
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: Mapping[str, JSON] = self.answer
        return answer


# --- through a client ------------------------------------------------------------------------------


async def _filled(sandbox: Sandbox, workspace_id: str | None = None, *, start: int = 0) -> str:
    await sandbox.create_profile_field("external_id", "string", workspace_id=workspace_id)
    await sandbox.create_profile_field("age", "number", workspace_id=workspace_id)
    people = [{"external_id": f"é{number}", "age": number} for number in range(start, start + 7)]
    return await sandbox.create_customer_group("people", customers=people, workspace_id=workspace_id)


async def test_the_customers_of_a_list_and_of_an_iterator_have_their_profiles() -> None:
    async with Sandbox(page_size=3) as sandbox:
        group = await _filled(sandbox)
        profiles = AesGcmProfiles(sandbox.profile_key)
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, profile_decryptor=profiles) as ns:
            first = await ns.customers.list(group)
            everybody = [item async for item in ns.customers.iter(group)]
        expected = [{"external_id": f"é{number}", "age": number} for number in range(7)]
        assert [item.profile() for item in first] == expected[:3]  # the client is closed by now
        assert [item.profile() for item in everybody] == expected


async def test_nothing_is_decrypted_before_it_is_asked_for_and_nothing_is_kept() -> None:
    own = Own({"a": 1})
    async with Sandbox() as sandbox:
        group = await _filled(sandbox)
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, profile_decryptor=own) as ns:
            listed = await ns.customers.list(group)
            assert own.calls == 0
            profile = listed[0].profile()
            profile["a"] = 2
            assert listed[0].profile() == {"a": 1}
            assert own.calls == 2
            assert await ns.customer_groups.list(sandbox.workspace_id)  # other models are left alone
    assert own.answer == {"a": 1}


async def test_without_a_decryptor_the_error_says_what_to_pass() -> None:
    async with Sandbox() as sandbox:
        group = await _filled(sandbox)
        async with Nudgescribe(sandbox.credentials, base_url=sandbox.url) as ns:
            listed = await ns.customers.list(group)
        with pytest.raises(ConfigurationError, match=r"Nudgescribe\(profile_decryptor=\.\.\.\), or this call"):
            listed[0].profile()
        assert listed[0].profile(AesGcmProfiles(sandbox.profile_key)) == {"external_id": "é0", "age": 0}


async def test_the_accounts_of_a_sandbox_are_told_apart_by_the_ids_of_their_keys() -> None:
    async with Sandbox() as sandbox:
        second = await sandbox.add_account()
        groups = [await _filled(sandbox), await _filled(sandbox, second.workspace_id, start=100)]
        keys = {kid: key.secret for kid, key in sandbox._now.keys.items()}
        assert len(keys) == 2
        found = []
        for credentials, group in zip((sandbox.credentials, second), groups, strict=True):
            both = AesGcmProfiles(keys)
            async with Nudgescribe(credentials, base_url=sandbox.url, profile_decryptor=both) as ns:
                found += [item.profile()["age"] for item in await ns.customers.list(group)]
        assert found == [*range(7), *range(100, 107)]
        wrong = AesGcmProfiles(sandbox.profile_key)
        async with Nudgescribe(second, base_url=sandbox.url, profile_decryptor=wrong) as ns:
            listed = await ns.customers.list(groups[1])
        with pytest.raises(ProfileError, match="the key is another one") as caught:
            listed[0].profile()
        assert caught.value.customer_id == listed[0].customer_id


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (b"key", "must be an object with decrypt"),
        (AesGcmProfiles, "not the class AesGcmProfiles"),
        (object(), "not object"),
    ],
)
def test_a_client_takes_nothing_else_for_a_decryptor(sandbox: Sandbox, given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Nudgescribe(sandbox.credentials, base_url=sandbox.url, profile_decryptor=given)


def test_a_decryptor_that_is_a_coroutine_is_refused_at_once(sandbox: Sandbox) -> None:
    class Slow:
        async def decrypt(self, customer_id: str, extended_profile: Mapping[str, JSON]) -> Mapping[str, JSON]:  # noqa: ARG002
            return {}

    slow: Any = Slow()
    with pytest.raises(ConfigurationError, match="must not be a coroutine"):
        Nudgescribe(sandbox.credentials, base_url=sandbox.url, profile_decryptor=slow)


# --- AES-256-GCM -----------------------------------------------------------------------------------


def test_it_reads_what_is_sealed_for_this_customer() -> None:
    assert isinstance(AesGcmProfiles(KEY), ProfileDecryptor)
    assert customer().profile(AesGcmProfiles(KEY)) == PROFILE
    assert customer(profile={}).profile(AesGcmProfiles({"k1": KEY})) == {}


def test_keys_change_over_time() -> None:
    other = bytes(32)
    old, new = customer(), customer()
    new.extended_profile = sealed("c1", {"name": "new"}, key=other, kid="k2")
    keys = AesGcmProfiles({"k1": KEY, "k2": other})
    assert (old.profile(keys), new.profile(keys)) == (PROFILE, {"name": "new"})
    assert new.profile(AesGcmProfiles(other)) == {"name": "new"}  # the only key there is, whatever it is called
    with pytest.raises(ProfileError, match="whose id is 'k2', and that is none of the given ones"):
        new.profile(AesGcmProfiles({"k1": KEY}))
    with pytest.raises(ProfileError, match="the key is another one"):
        new.profile(AesGcmProfiles({"k1": KEY, "k2": KEY}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"alg": "A128GCM"}, "not sealed with A256GCM"),
        ({"alg": None}, "not sealed with A256GCM"),
        ({"iv": "AAAA"}, "its envelope is damaged"),
        ({"iv": None}, "its envelope is damaged"),
        ({"iv": "AAAAAAAAAAAAAAAA"}, "the key is another one, or the envelope"),
        ({"ciphertext": "not Base64!"}, "its envelope is damaged"),
        ({"ciphertext": "é"}, "its envelope is damaged"),
        ({"ciphertext": ["a"]}, "its envelope is damaged"),
        ({"ciphertext": ""}, "the key is another one, or the envelope"),
    ],
)
def test_an_envelope_that_was_changed_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ProfileError, match=problem) as caught:
        customer(**changes).profile(AesGcmProfiles(KEY))
    assert caught.value.customer_id == "c1"


def test_every_bit_of_the_ciphertext_counts() -> None:
    value = customer()
    whole = base64.b64decode(str(value.extended_profile["ciphertext"]))
    for index in range(len(whole)):
        damaged = bytes(byte ^ (position == index) for position, byte in enumerate(whole))
        with pytest.raises(ProfileError):
            customer_with(damaged, value).profile(AesGcmProfiles(KEY))


def customer_with(ciphertext: bytes, value: Customer) -> Customer:
    text = base64.b64encode(ciphertext).decode()
    return attrs.evolve(value, extended_profile={**value.extended_profile, "ciphertext": text})


def test_an_envelope_that_was_moved_to_another_customer_is_refused() -> None:
    moved = attrs.evolve(customer("c1"), customer_id="c2")
    with pytest.raises(ProfileError, match=r"customer 'c2' cannot be read: .* another customer's"):
        moved.profile(AesGcmProfiles(KEY))


@pytest.mark.parametrize("envelope", [{}, {"name": "in the clear"}, {"alg": "A256GCM"}])
def test_what_is_no_envelope_is_refused(envelope: dict[str, JSON]) -> None:
    value = Customer(customer_id="c", customer_group_id="g", extended_profile=envelope)
    for decryptor in (AesGcmProfiles(KEY), AesGcmProfiles({"k": KEY})):
        with pytest.raises(ProfileError):
            value.profile(decryptor)


@pytest.mark.parametrize(
    "content",
    [
        b"MARKED-CONTENT",
        b"[1]",
        b'{"a": NaN}',
        b'{"a": 1e999, "b": "MARKED-CONTENT"}',
        b'{"a": -1e999}',
        b"\xff",
        b"[" * 100_000,
        b"",
        b'"MARKED-CONTENT"',
    ],
)
def test_what_is_sealed_and_no_json_object_is_refused_without_a_word_of_it(content: bytes) -> None:
    with pytest.raises(ProfileError, match="what is sealed in it is no JSON") as caught:
        customer(profile=content).profile(AesGcmProfiles(KEY))
    assert "MARKED" not in "".join(_texts(caught.value))


def test_numbers_with_a_fraction_are_read_as_ever() -> None:
    text = b'{"a": 1.5, "b": -2e3, "c": 1e-999, "d": 12345678901234567890}'
    assert customer(profile=text).profile(AesGcmProfiles(KEY)) == {
        "a": 1.5,
        "b": -2e3,
        "c": 0,
        "d": 12345678901234567890,
    }


def test_a_customer_whose_id_is_no_text_is_refused_as_such() -> None:
    with pytest.raises(ProfileError, match="its customer id is no text") as caught:
        AesGcmProfiles(KEY).decrypt("c\ud800", sealed("c", {}))
    assert caught.value.customer_id == "c\ud800"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (b"short", "the key must be 32 bytes, not 5 bytes"),
        ("x" * 32, "the key must be 32 bytes, not str"),
        (None, "the key must be 32 bytes, not NoneType"),
        ({}, "got no key"),
        ({"k1": KEY, "k2": KEY[:31]}, "the key 'k2' must be 32 bytes, not 31 bytes"),
        ({None: KEY}, "the id of a key must be text, not NoneType"),
        ({1: KEY}, "the id of a key must be text, not int"),
    ],
)
def test_a_key_that_is_none_is_refused(key: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        AesGcmProfiles(key)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r'pip install "nudgescribe_async\[crypto\]"'):
        AesGcmProfiles(KEY)


def test_threads_share_one_decryptor() -> None:
    value, profiles = customer(), AesGcmProfiles(KEY)
    many = [customer(f"c{number}", {"n": number}) for number in range(200)]
    attach(profiles, many)
    gate = threading.Barrier(8)

    def read(_: int) -> list[JSON]:
        gate.wait(timeout=60)
        return [item.profile()["n"] for item in many]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read, range(8)):
            assert found == list(range(200))
    assert value.profile(profiles) == PROFILE


# --- somebody else's decryptor ----------------------------------------------------------------------


def test_what_another_decryptor_raises_is_the_cause() -> None:
    cause = KeyError("no such key")
    with pytest.raises(ProfileError, match=r"customer 'c1' cannot be read: the decryptor raised KeyError\.$") as caught:
        customer().profile(Own(cause))
    assert caught.value.__cause__ is cause
    assert caught.value.customer_id == "c1"


def test_an_error_about_profiles_passes_as_it_is() -> None:
    error = ProfileError("Ask the key office.")
    with pytest.raises(ProfileError) as caught:
        customer().profile(Own(error))
    assert caught.value is error
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("answer", "kind"), [(None, "NoneType"), ("MARKED-CONTENT", "str"), ([("a", 1)], "list")])
def test_an_answer_that_is_no_mapping_is_refused(answer: Any, kind: str) -> None:
    with pytest.raises(ProfileError, match=f"the decryptor gave {kind}, no mapping") as caught:
        customer().profile(Own(answer))
    assert "MARKED" not in "".join(_texts(caught.value))


class Broken(Mapping[str, JSON]):
    """A mapping that fails only when it is read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, key: str) -> JSON:
        raise self.error

    def __iter__(self) -> Iterator[str]:
        return iter(["MARKED-CONTENT"])

    def __len__(self) -> int:
        return 1


def test_an_answer_that_fails_while_it_is_read_is_refused() -> None:
    cause = RuntimeError("no longer there")
    with pytest.raises(ProfileError, match="the decryptor raised RuntimeError") as caught:
        customer().profile(Own(Broken(cause)))
    assert caught.value.__cause__ is cause
    error = ProfileError("Ask the key office.")
    with pytest.raises(ProfileError) as caught:
        customer().profile(Own(Broken(error)))
    assert caught.value is error


class Later:
    async def decrypt(self, customer_id: str, extended_profile: Mapping[str, JSON]) -> Mapping[str, JSON]:  # noqa: ARG002
        return {}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (KEY, r"must be an object with decrypt\(customer_id, extended_profile\), not bytes"),
        (AesGcmProfiles, "not the class AesGcmProfiles"),
        (Later(), "must not be a coroutine"),
    ],
)
def test_what_is_no_decryptor_is_called_so(given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"customer\.profile\(\): the decryptor .*{problem}"):
        customer().profile(given)


def test_an_answer_that_would_have_to_be_awaited_is_refused() -> None:
    async def later() -> Mapping[str, JSON]:
        return {}

    with pytest.raises(ProfileError, match="gave a coroutine"):
        customer().profile(Own(later()))


def test_interrupts_are_not_turned_into_errors() -> None:
    class Interrupted:
        def decrypt(self, customer_id: str, extended_profile: Mapping[str, JSON]) -> Mapping[str, JSON]:  # noqa: ARG002
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        customer().profile(Interrupted())


# --- what a customer carries ------------------------------------------------------------------------


def test_a_decryptor_changes_neither_the_text_nor_the_comparison_of_a_customer() -> None:
    value = customer()
    other = attrs.evolve(value)
    attach(AesGcmProfiles(KEY), [value])
    assert value == other
    assert repr(value) == repr(other)
    assert "MARKED" not in repr(value)
    assert "_decryptor" not in {field.name for field in attrs.fields(Customer)}
    assert Codec().unstructure(value) == Codec().unstructure(other)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_has_no_key_in_it_and_what_comes_of_it_asks_for_one(protocol: int) -> None:
    value = customer()
    attach(AesGcmProfiles(KEY), [value])
    pickled = pickle.dumps(value, protocol)
    assert KEY not in pickled
    assert b"AesGcm" not in pickled
    _lost(pickle.loads(pickled), value)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, attrs.evolve])
def test_a_copy_has_no_decryptor(way: Any) -> None:
    value = customer()
    attach(AesGcmProfiles(KEY), [value])
    _lost(way(value), value)


def _lost(again: Customer, value: Customer) -> None:
    assert again == value
    with pytest.raises(ConfigurationError, match="copied or pickled"):
        again.profile()
    assert again.profile(AesGcmProfiles(KEY)) == value.profile() == PROFILE


def test_only_customers_are_given_a_decryptor() -> None:
    group = CustomerGroup(customer_group_id="g", workspace_id="w", group_name="n")
    own = Own({"a": 1})
    for answer in (None, "text", 7, [], [1, 2], [group], group, {"a": customer()}):
        attach(own, answer)
    one = customer()
    attach(own, one)
    assert one.profile() == {"a": 1}
    assert not hasattr(group, "_decryptor")
    assert HasProfile.__slots__ == ("_decryptor",)


# --- secrets ----------------------------------------------------------------------------------------


def _texts(error: BaseException) -> Iterator[str]:
    """What an error tracker makes of an error and of all behind it, the variables of our own frames included."""
    link: BaseException | None = error
    while link is not None:
        yield from (repr(link), str(link), repr(vars(link)))
        summary = traceback.TracebackException.from_exception(link, capture_locals=True)
        for frame in summary.stack:
            if not frame.filename.startswith(__file__):  # the test itself holds what it looks for
                yield repr(frame.locals)
        link = link.__cause__ or link.__context__


def _problems() -> Iterator[BaseException]:
    good = AesGcmProfiles(KEY)
    kept = customer()
    attach(good, [kept])
    other = attrs.evolve(customer(), customer_id="c2")
    wrong = customer(iv="?")
    calls: list[Any] = [
        lambda: AesGcmProfiles(KEY + b"!"),
        lambda: AesGcmProfiles({"k": KEY, "x": KEY + b"!"}),
        lambda: AesGcmProfiles({3: KEY}),  # type: ignore[dict-item]
        lambda: other.profile(good),
        lambda: wrong.profile(good),
        lambda: customer().profile(AesGcmProfiles({"other": KEY})),
        lambda: customer(profile=NO_JSON).profile(good),
        lambda: customer().profile(Own(None)),
        lambda: customer().profile(Own(Broken(ValueError("no")))),
        lambda: customer().profile(KEY),  # type: ignore[arg-type]
        lambda: copy.copy(kept).profile(),
        lambda: pickle.dumps(good),
    ]
    for call in calls:
        with pytest.raises((ProfileError, ConfigurationError, TypeError)) as caught:
            call()
        yield caught.value


def test_no_key_and_no_content_is_in_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = 0
    for error in _problems():
        for text in _texts(error):
            assert "MARKED" not in text
            seen += 1
        if isinstance(error, ProfileError):
            again = pickle.loads(pickle.dumps(error))
            assert (again.customer_id, str(again)) == (error.customer_id, str(error))
            assert b"MARKED" not in pickle.dumps(error)
        logging.getLogger("test").error("failed", exc_info=error)
    assert seen > 40
    assert "Traceback" in caplog.text
    assert "MARKED" not in caplog.text


def test_a_decryptor_shows_no_key_and_is_never_pickled() -> None:
    for value in (AesGcmProfiles(KEY), AesGcmProfiles({"MARKED-ID": KEY})):
        assert repr(value) == str(value) == "AesGcmProfiles(***)"
        assert not hasattr(value, "__dict__")
        assert copy.copy(value) is value
        assert copy.deepcopy([value])[0] is value
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="AesGcmProfiles holds a secret and is not pickled"):
                pickle.dumps(value, protocol)


async def test_a_client_shows_nothing_of_its_decryptor(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    group = await _filled(sandbox)
    key = sandbox.profile_key
    profiles = AesGcmProfiles(key)
    events: list[object] = []
    async with Nudgescribe(sandbox.credentials, base_url=sandbox.url, profile_decryptor=profiles) as ns:
        ns.events.subscribe(events.append)
        for item in await ns.customers.list(group):
            assert item.profile()
        shown = f"{ns!r} {vars(ns)!r} {vars(ns._session)!r} {events!r} {caplog.text}"
    assert events
    for form in (repr(key), key.hex(), base64.b64encode(key).decode()):
        assert form not in shown
    assert "é0" not in shown
