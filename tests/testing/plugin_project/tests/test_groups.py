from letters import group_for

from nudgescribe_async import Nudgescribe
from nudgescribe_async.sandbox import LoseAnswer, Sandbox
from nudgescribe_async.testing import SandboxFaults


async def test_a_group_is_made_when_it_is_first_asked_for(
    nudgescribe_sandbox: Sandbox, nudgescribe_client: Nudgescribe
) -> None:
    workspace = nudgescribe_sandbox.workspace_id
    group = await group_for(nudgescribe_client, workspace, "Spring")
    assert await group_for(nudgescribe_client, workspace, "Spring") == group
    assert nudgescribe_sandbox.effects["customer_groups.create"] == 1


async def test_a_lost_answer_makes_no_second_group(
    nudgescribe_sandbox: Sandbox, nudgescribe_client: Nudgescribe, nudgescribe_faults: SandboxFaults
) -> None:
    fault = nudgescribe_faults.inject(LoseAnswer(), operation="customer_groups.create")
    await group_for(nudgescribe_client, nudgescribe_sandbox.workspace_id, "Spring")
    assert fault.fired == 1
    assert nudgescribe_faults.effects["customer_groups.create"] == 1
    assert [request.operation for request in nudgescribe_faults.requests] == [
        "auth.authenticate",
        "customer_groups.list",
        "customer_groups.create",
        "customer_groups.list",
    ]


async def test_a_group_of_a_fixture(nudgescribe_client: Nudgescribe, gold: str) -> None:
    assert len([customer async for customer in nudgescribe_client.customers.iter(gold)]) == 3
