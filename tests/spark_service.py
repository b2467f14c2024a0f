"""What the tests of Spark put into the sandbox that the processes of Spark ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nudgescribe_async import Nudgescribe

if TYPE_CHECKING:
    from nudgescribe_async.sandbox.values import CampaignState
    from nudgescribe_async.testing._sandbox_thread import ThreadedSandbox


class Filled:
    """What is in the service."""

    def __init__(self, served: ThreadedSandbox) -> None:
        self.served = served

    def group(self, customers: int) -> str:
        """A group of so many."""

        async def make() -> str:
            return await self.served.create_customer_group(
                "g", customers=[{"external_id": f"C{number}", "age": number} for number in range(customers)]
            )

        return asyncio.run(make())

    def campaign(self, customers: int, status: CampaignState = "Published") -> str:
        """A campaign for as many."""
        group = self.group(customers)

        async def make() -> str:
            return await self.served.create_campaign("c", group, status=status)

        return asyncio.run(make())

    def rerun(self, campaign: str, customers: int, *, publish: bool = True) -> None:
        """Run a campaign again, for as many."""
        group = self.group(customers)

        async def make() -> None:
            async with Nudgescribe(self.served.credentials, base_url=self.served.url) as ns:
                await ns.reruns.initiate(campaign, group)
                await self.served.drain()
                if publish:
                    await self.served.approve(campaign)
                    await ns.messages.publish(campaign)
                    await self.served.drain()

        asyncio.run(make())
