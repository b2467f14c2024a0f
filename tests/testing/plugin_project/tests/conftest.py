import pytest

from nudgescribe_async import RetryPolicy
from nudgescribe_async.sandbox import Sandbox


@pytest.fixture(scope="session")
def nudgescribe_sandbox_options() -> dict[str, object]:
    return {"page_size": 10}


@pytest.fixture(scope="session")
def nudgescribe_client_options() -> dict[str, object]:
    return {"retry": RetryPolicy(attempts=2)}


@pytest.fixture
async def gold(nudgescribe_sandbox: Sandbox) -> str:
    """A group with three customers in it."""
    await nudgescribe_sandbox.create_profile_field("external_id", "string")
    customers = [{"external_id": f"c-{number}"} for number in range(3)]
    return await nudgescribe_sandbox.create_customer_group("Gold", customers=customers)
