"""A service with campaigns that a test makes do whatever it says, request by request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, cast

from attrs import define, field
from helpers import CREDENTIALS

from nudgescribe_async import (
    Nudgescribe,
    OutcomeUnknownError,
    Request,
    RequestNotSentError,
    RerunRequest,
    Response,
    RetryPolicy,
)
from nudgescribe_async.testing import ScriptedTransport, SentRequest, answer

QUICK = RetryPolicy(attempts=2, base=0.001, longest=0.002)
REVIEW, PUBLISHABLE, PUBLISHED = "Ready for review", "Ready to publish", "Published"

Step = Response | BaseException | None
"""What becomes of a request; ``None``: what becomes of any."""
Do = Callable[[SentRequest], Any]


@define
class Camp:
    """A campaign."""

    campaign_id: str
    workspace_id: str = "w-1"
    status: str | None = PUBLISHED
    name: str = ""
    runs: list[dict[str, Any]] = field(factory=list[dict[str, Any]])
    messages: list[dict[str, Any]] = field(factory=list[dict[str, Any]])
    after_run: str = PUBLISHABLE
    """The state that a new run brings it to."""
    soon: list[str] = field(factory=list[str])
    """States that it will take, one with each look at its history."""
    listed_soon: list[str] = field(factory=list[str])
    """The same with each look at the list."""
    late: list[tuple[int, str]] = field(factory=list[tuple[int, str]])
    """Requests on their way: after how many more looks they arrive, and for which group."""

    def run(self, group: str, status: str | None = None) -> dict[str, Any]:
        """Make a run, whoever asks for it."""
        self.status = status if status is not None else self.after_run
        number = max(run["run_number"] for run in self.runs) + 1
        run = {
            "run_number": number,
            "rerun_id": f"{self.campaign_id}-r{number}",
            "customer_group_id": group,
            "archived_count": 4,
            "comparison": {"matched_count": 3, "new_count": 2, "orphaned_count": 1},
        }
        self.runs.append(run)
        return run


class World:
    """Campaigns ``c-1`` and so on in the workspace ``w-1``, which has the groups ``g-0``, ``g-1`` and so on.

    Attributes:
        camps: the campaigns.
        groups: the groups of each workspace.
        script: for (operation, campaign or workspace), what becomes of the requests, one after the other; what is not
            there is done as usual.
        most: the most requests that were in flight at once, logins aside.
        latency: seconds that every answer takes.
        silent: whether histories do not say where campaigns stand.
    """

    def __init__(self, campaigns: int = 1, **options: Any) -> None:
        self.camps = {
            f"c-{number}": Camp(
                f"c-{number}",
                name=f"Campaign {number}",
                runs=[{"run_number": 1, "rerun_id": None, "customer_group_id": "g-0"}],
                messages=[{"message_id": "m-1", "review_status": PUBLISHED, "is_archived": False}],
            )
            for number in range(1, campaigns + 1)
        }
        self.groups: dict[str, Any] = {"w-1": [f"g-{number}" for number in range(campaigns + 2)]}
        self.script: dict[tuple[str, str], list[Any]] = defaultdict(list)
        self.most = self.flying = 0
        self.latency = 0.0
        self.silent = False
        self.closed = 0
        self.transport = ScriptedTransport()
        for operation, do in (
            ("campaigns.list", self._campaigns),
            ("customer_groups.list", self._groups),
            ("reruns.messages", self._messages),
            ("reruns.history", self._history),
            ("reruns.initiate", self._initiate),
            ("messages.publish", self._publish),
            ("messages.count_pages", self._pages),
            ("messages.fetch", self._fetch),
        ):
            self.transport.on(operation, self._scripted(operation, do))
        self.options = options

    # --- as a transport --------------------------------------------------------------------------------------------

    async def send(self, request: Request) -> Response:
        if request.url.endswith("/auth"):
            return await self.transport.send(request)
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            return await self.transport.send(request)
        finally:
            self.flying -= 1

    async def aclose(self) -> None:
        self.closed += 1  # other clients go on with it

    # --- for tests -------------------------------------------------------------------------------------------------

    def client(self, **options: Any) -> Nudgescribe:
        return Nudgescribe(CREDENTIALS, transport=self, **{"retry": QUICK} | self.options | options)

    def plan(self, *campaigns: str) -> list[RerunRequest]:
        """Each campaign for the group of the same number."""
        return [RerunRequest(name, f"g-{name.removeprefix('c-')}") for name in campaigns or self.camps]

    def say(self, operation: str, who: str, *steps: Any) -> None:
        self.script[operation, who] += steps

    def count(self, operation: str, who: str | None = None) -> int:
        return sum(
            sent.operation == operation and (who is None or who in (sent.body or {}).values())
            for sent in self.transport.requests
        )

    def runs(self, campaign_id: str) -> list[str]:
        """The groups of the runs that were made of a campaign since the first."""
        return [run["customer_group_id"] for run in self.camps[campaign_id].runs[1:]]

    @property
    def sent(self) -> list[str]:
        return [sent.operation for sent in self.transport.requests if not sent.operation.startswith("auth.")]

    # --- what happens to an initiation -----------------------------------------------------------------------------

    def lost(self, sent: SentRequest) -> Step:
        """It is done, and the answer gets lost."""
        self._initiate(sent)
        return OutcomeUnknownError("The connection broke.")

    async def done_and_silent(self, sent: SentRequest) -> Step:
        """It is done, and no answer ever comes."""
        self._initiate(sent)
        await asyncio.Event().wait()
        raise AssertionError

    def publish_lost(self, sent: SentRequest) -> Step:
        self._publish(sent)
        return OutcomeUnknownError("The connection broke.")

    def late(self, looks: int) -> Do:
        """No answer, and it arrives after so many looks at the history."""

        def do(sent: SentRequest) -> Step:
            self.camps[sent.body["campaign_id"]].late.append((looks, sent.body["new_customer_group_id"]))
            return OutcomeUnknownError("The connection broke.")

        return do

    def done_and(self, step: Response) -> Do:
        """It is done, and something else is said."""

        def do(sent: SentRequest) -> Step:
            self._initiate(sent)
            return step

        return do

    def overtaken(self, group: str, step: Step) -> Do:
        """Somebody else makes a run in the meantime."""

        def do(sent: SentRequest) -> Step:
            self.camps[sent.body["campaign_id"]].run(group)
            return step

        return do

    # --- the service -----------------------------------------------------------------------------------------------

    def _scripted(self, operation: str, do: Do) -> Do:
        async def perform(sent: SentRequest) -> Step:
            body = sent.body or {}
            who = body.get("campaign_id") or body.get("workspace_id") or ""
            steps = self.script[operation, who]
            step = steps.pop(0) if steps else None
            if callable(step):
                step = step(sent)
                if asyncio.iscoroutine(step):
                    step = await step
            return cast("Step", do(sent) if step is None else step)

        return perform

    def _campaigns(self, _: SentRequest) -> Response:
        found: dict[str, list[dict[str, Any]]] = {}
        for camp in self.camps.values():
            if camp.listed_soon:
                camp.status = camp.listed_soon.pop(0)
            found.setdefault(camp.workspace_id, []).append(
                {
                    "campaign_id": camp.campaign_id,
                    "campaign_name": camp.name,
                    "campaign_status": camp.status,
                    "run_number": camp.runs[-1]["run_number"],
                }
            )
        return answer(200, [{"workspace_id": name, "campaigns": camps} for name, camps in found.items()])

    def _groups(self, sent: SentRequest) -> Response:
        workspace = sent.body["workspace_id"]
        return answer(
            200,
            [
                {"customer_group_id": name, "workspace_id": workspace, "group_name": name}
                for name in self.groups[workspace]
            ],
        )

    def _messages(self, sent: SentRequest) -> Response:
        return answer(200, self.camps[sent.body["campaign_id"]].messages)

    def _history(self, sent: SentRequest) -> Response:
        camp = self.camps[sent.body["campaign_id"]]
        camp.late, arriving = (
            [(left - 1, group) for left, group in camp.late if left > 0],
            [group for left, group in camp.late if left <= 0],
        )
        for group in arriving:
            camp.run(group)
        if camp.soon:
            camp.status = camp.soon.pop(0)
        newest = camp.runs[-1]["run_number"]
        if self.silent:
            return answer(200, camp.runs)
        return answer(
            200,
            [
                {"campaign_status": camp.status if run["run_number"] == newest else PUBLISHED} | run
                for run in reversed(camp.runs)
            ],
        )

    def _initiate(self, sent: SentRequest) -> Response:
        camp = self.camps[sent.body["campaign_id"]]
        if camp.status != PUBLISHED:
            return answer(400, {"message": f"the campaign is {camp.status}"})
        run = camp.run(sent.body["new_customer_group_id"])
        return answer(200, receipt(run, camp.status))

    def _publish(self, sent: SentRequest) -> Response:
        camp = self.camps[sent.body["campaign_id"]]
        if camp.status != PUBLISHABLE:
            return answer(400, {"message": f"the campaign is {camp.status}"})
        camp.status = PUBLISHED
        return answer(200, {"success": True, "job_uid": "job-p"})

    def _pages(self, _: SentRequest) -> Response:
        return answer(200, {"pages": 1})

    def _fetch(self, sent: SentRequest) -> Response:
        return answer(200, body=f"customer_id,message\r\n{sent.body['campaign_id']},hello\r\n".encode())


def receipt(run: dict[str, Any], status: str | None = PUBLISHABLE, **changes: Any) -> dict[str, Any]:
    """The answer to an initiation."""
    return {
        "success": True,
        "rerun_id": run["rerun_id"],
        "run_number": run["run_number"],
        "campaign_status": status,
        "job_uid": "job-1",
        "archived_count": run["archived_count"],
        "comparison": run["comparison"],
    } | changes


LOST = OutcomeUnknownError("The connection broke.")
NOT_SENT = RequestNotSentError("Nobody listens there.")


def steps(outcome: Any) -> list[str]:
    return [step.step for step in outcome.steps]


def states(outcomes: Iterable[Any]) -> list[str]:
    return [outcome.state for outcome in outcomes]
