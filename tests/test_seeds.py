"""The five examples of the public reference: what it shows is what is sent and what is understood."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from operations import ENDPOINTS, endpoint
from seeds import BY_OPERATION, SEEDS, Seed

from nudgescribe_async.codec import Codec, dumps
from nudgescribe_async.endpoint import checked
from nudgescribe_async.endpoints.models import CampaignStatus, RerunReceipt

CODEC = Codec()
each = pytest.mark.parametrize("seed", SEEDS, ids=[seed.operation for seed in SEEDS])


@each
def test_the_request_is_sent_as_the_reference_shows_it(seed: Seed) -> None:
    assert json.loads(dumps(checked(endpoint(seed.operation), seed.request))) == seed.request


@each
def test_what_is_left_out_or_none_is_not_sent(seed: Seed) -> None:
    every = {argument.name: None for argument in endpoint(seed.operation).arguments} | seed.request
    assert checked(endpoint(seed.operation), every) == seed.request


def test_options_that_are_left_out_are_not_sent() -> None:
    values = {"campaign_id": "c", "page": 1, "format": "csv", "run_number": None}
    assert checked(ENDPOINTS["messages.FETCH_CSV"], values) == {"campaign_id": "c", "page": 1, "format": "csv"}
    assert dumps(checked(ENDPOINTS["campaigns.LIST"], {})) == b"{}"


@each
def test_the_answer_is_understood_and_nothing_of_it_is_lost(seed: Seed) -> None:
    result = CODEC.decode(endpoint(seed.operation), seed.answer.encode())
    shown = json.loads(seed.answer, object_hook=lambda item: {key.strip(): value for key, value in item.items()})
    assert CODEC.unstructure(result) == shown
    assert CODEC.decode(endpoint(seed.operation), dumps(CODEC.unstructure(result))) == result


def test_keys_with_a_tab_are_the_keys_of_the_contract() -> None:
    group = CODEC.decode(endpoint("customer_groups.update"), BY_OPERATION["customer_groups.update"].answer.encode())
    moment = datetime(2025, 9, 8, 18, 18, 21, 462000, tzinfo=UTC)
    assert (group.created_at, group.updated_at) == (moment, moment)
    assert (group.account_id, group.created_by, group.updated_by) == (None, None, None)
    assert group.extra == {}


@pytest.mark.parametrize("operation", ["customer_groups.create", "customer_groups.list", "customers.list"])
def test_the_word_string_is_no_timestamp_and_is_kept(operation: str) -> None:
    answer = CODEC.decode(endpoint(operation), BY_OPERATION[operation].answer.encode())
    item = answer[0] if isinstance(answer, list) else answer
    assert (item.created_at, item.updated_at) == (None, None)
    assert item.extra == {"created_at": "string", "updated_at": "string"}


def test_a_rerun_is_read_to_its_last_count() -> None:
    receipt = CODEC.decode(endpoint("reruns.initiate"), BY_OPERATION["reruns.initiate"].answer.encode())
    assert isinstance(receipt, RerunReceipt)
    assert receipt.campaign_status is CampaignStatus.READY_FOR_REVIEW
    assert (receipt.run_number, receipt.archived_count, receipt.job_uid) == (3, 10, "your-job-uuid")
    counts = receipt.comparison
    assert (counts.matched_count, counts.new_count, counts.orphaned_count) == (8, 4, 2)
