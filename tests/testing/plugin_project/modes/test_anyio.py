import pytest

from nudgescribe_async import Nudgescribe


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_campaigns(nudgescribe_client: Nudgescribe) -> None:
    assert await nudgescribe_client.campaigns.list() == []
