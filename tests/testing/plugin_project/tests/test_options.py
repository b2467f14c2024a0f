import pytest

from nudgescribe_async import CallOptions, DeadlineExceededError, Nudgescribe
from nudgescribe_async.sandbox import Sandbox

pytestmark = pytest.mark.nudgescribe(example=True)


async def test_the_example_data(nudgescribe_sandbox: Sandbox, nudgescribe_client: Nudgescribe) -> None:
    (workspace,) = await nudgescribe_client.campaigns.list()
    names = {campaign.campaign_name for campaign in workspace.campaigns}
    assert names <= set(nudgescribe_sandbox.example.campaigns)


@pytest.mark.nudgescribe(latency=60)
async def test_a_service_that_is_slow(nudgescribe_client: Nudgescribe) -> None:
    with pytest.raises(DeadlineExceededError):
        await nudgescribe_client.campaigns.list(options=CallOptions(timeout=0.05))
