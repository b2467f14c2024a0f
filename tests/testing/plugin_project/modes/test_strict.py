import pytest

from nudgescribe_async import Nudgescribe


@pytest.mark.asyncio
async def test_campaigns(nudgescribe_client: Nudgescribe) -> None:
    assert await nudgescribe_client.campaigns.list() == []
