"""The part of the service that reruns are made of, as a transport: in memory, on any clock, and with trouble on demand.

For the tests in ``tests/rerun`` and for ``benchmarks/rerun_simulation.py``. It keeps the rules of the sandbox. A request has
its effect when it is sent, and its answer comes after the latency: so whoever is cancelled meanwhile has had it.
Nothing runs in the background: what comes due, such as a run that is ready, is seen by the next look.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from attrs import define, field, frozen

from nudgescribe_async.errors import OutcomeUnknownError, RequestNotSentError
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest
from nudgescribe_async.testing import VirtualClock, answer
from nudgescribe_async.testing._operations import OPERATIONS

if TYPE_CHECKING:
    from nudgescribe_async.clock import Clock
    from nudgescribe_async.transport import Request, Response

READY_FOR_REVIEW, READY_TO_PUBLISH, PUBLISHED = "Ready for review", "Ready to publish", "Published"
SEGMENTS: Final = ("early", "late", "never")
HANGING: Final = 86_400.0
MESSAGE_FILE: Final = b'customer_id,message\r\n1,"Dear customer, so\r\n""long"""\r\n'


@frozen
class Trouble:
    """What befalls a request."""

    name: str
    seconds: float = 0.0


LOST_BEFORE: Final = Trouble("lost before")
"""It is lost on its way: no effect, no answer."""
LOST_AFTER: Final = Trouble("lost after")
"""It has its effect, and the answer is lost."""
NOT_SENT: Final = Trouble("not sent")
"""It provably never left."""
UNAVAILABLE: Final = Trouble("unavailable")
"""503, no effect."""
UNAVAILABLE_AFTER: Final = Trouble("unavailable after")
"""503, though it has its effect."""
GARBAGE_AFTER: Final = Trouble("garbage after")
"""200 and HTML, though it has its effect."""
HANG: Final = Trouble("hang")
"""It has its effect, and the answer comes after a day, or once the client has read nothing for too long."""


def late(seconds: float) -> Trouble:
    """There is no answer; so many seconds later it has its effect, if nothing stands in its way then."""
    return Trouble("late", seconds)


AskTrouble = Callable[[str, Mapping[str, Any]], Trouble | None]


def by_chance(shares: Mapping[Trouble, float], seed: int, operations: Iterable[str] = ()) -> AskTrouble:
    """So much of each trouble for these operations; none named: for all."""
    chance, names = random.Random(seed), frozenset(operations)

    def ask(operation: str, _: Mapping[str, Any]) -> Trouble | None:
        if names and operation not in names:
            return None
        drawn = chance.random()
        for trouble, share in shares.items():
            drawn -= share
            if drawn < 0:
                return trouble
        return None

    return ask


class RefusedError(Exception):
    """400: the service's own rules are against it."""


@frozen
class Run:
    """One run of a campaign."""

    number: int
    group: str
    at: float
    by: str = "the client"
    archived: int = 0
    new: int = 0


@frozen
class Initiated:
    """That a campaign was run again."""

    at: float
    campaign: str
    group: str
    run: int
    by: str


@define
class _Campaign:
    campaign_id: str
    workspace: str
    runs: list[Run]
    state: str = PUBLISHED
    then: str = PUBLISHED  # the state from ``ready_at`` on
    ready_at: float | None = None
    unpublished: int = 0
    published: set[int] = field(factory=lambda: {1})


class RerunService:
    """A ``Transport``.

    Args:
        campaigns: how many, or their ids.
        clock: what it waits on.
        workspaces: over which they are spread in turn.
        groups: how many there are in each workspace. The first run of each campaign is for the first.
        latency: seconds until an answer is there, or a function of the operation that says so.
        rate: requests a second beyond which it answers 429; ``None``: no limit.
        burst: so many may come at once.
        generation_time: seconds in which a new run is made; the campaign is ``state_while_running`` meanwhile.
        publish_time: seconds until a publication is done.
        share_new: the share of runs that have to be reviewed.
        state_while_running: see ``generation_time``.
        seed: of what is left to chance.
        trouble: asked for each request, with the operation and the body.

    Attributes:
        requests: by operation, whatever became of them.
        limited: how many of them were answered with 429.
        initiated: all runs that were made, oldest first.
    """

    def __init__(
        self,
        campaigns: int | Iterable[str] = 1,
        *,
        clock: Clock,
        workspaces: int = 1,
        groups: int = 3,
        latency: float | Callable[[str], float] = 0.0,
        rate: float | None = None,
        burst: int | None = None,
        generation_time: float = 0.0,
        publish_time: float = 0.0,
        share_new: float = 0.0,
        state_while_running: str = "Generating",
        seed: int = 0,
        trouble: AskTrouble | None = None,
    ) -> None:
        self.clock = clock
        self.latency = latency
        self.generation_time = generation_time
        self.publish_time = publish_time
        self.trouble = trouble
        self.requests: Counter[str] = Counter()
        self.limited = self.closed = 0
        self.initiated: list[Initiated] = []
        self._share_new = share_new
        self._state_while_running = state_while_running
        self._seed = seed
        self._rate = rate
        self._burst = float(burst if burst is not None else math.ceil(rate or 1))
        self._left, self._filled_at = self._burst, clock.monotonic()
        self._groups = {
            f"w-{number}": [f"g-{number}-{group}" for group in range(1, groups + 1)]
            for number in range(1, workspaces + 1)
        }
        ids = [f"c-{number:05}" for number in range(1, campaigns + 1)] if isinstance(campaigns, int) else campaigns
        self._campaigns: dict[str, _Campaign] = {}
        for index, campaign_id in enumerate(ids):
            workspace = f"w-{index % workspaces + 1}"
            first = Run(1, self._groups[workspace][0], clock.monotonic())
            self._campaigns[campaign_id] = _Campaign(campaign_id, workspace, [first])
        self._tokens: set[str] = set()
        self._moment: float | None = None  # the time for what is late, while it has its effect
        self._late: list[tuple[float, int, str, Mapping[str, Any]]] = []
        self._work: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "auth.authenticate": self._log_in,
            "auth.reauthenticate": self._log_in,
            "campaigns.list": self._list_campaigns,
            "customer_groups.list": self._list_groups,
            "reruns.history": self._history,
            "reruns.messages": self._messages,
            "reruns.initiate": self._initiate,
            "messages.publish": self._publish,
            "messages.count_pages": self._count_pages,
            "messages.fetch": self._fetch,
        }

    # --- what a test asks, and does ---------------------------------------------------------------------------------

    def plan(self, group: int = 2) -> RerunPlan:
        """All campaigns, each for the second group of its workspace, or another."""
        return RerunPlan(
            RerunRequest(campaign.campaign_id, self._groups[campaign.workspace][group - 1])
            for campaign in self._campaigns.values()
        )

    def groups(self, campaign_id: str) -> list[str]:
        """The groups of a campaign's workspace."""
        return list(self._groups[self._campaigns[campaign_id].workspace])

    def runs(self, campaign_id: str) -> list[Run]:
        """All of them, oldest first. What is late and has come meanwhile is among them."""
        return list(self._seen(campaign_id).runs)

    def new_runs(self, campaign_id: str) -> list[Run]:
        """Those since the beginning."""
        return self.runs(campaign_id)[1:]

    def state(self, campaign_id: str) -> str:
        """Where a campaign stands."""
        return self._seen(campaign_id).state

    def set_state(self, campaign_id: str, state: str) -> None:
        """Put it somewhere else, such as ``"Failed"``. What is under way for it ends."""
        self._move(self._seen(campaign_id), state)

    def take_back(self, campaign_id: str) -> None:
        """One message of the current run is no longer published."""
        self._seen(campaign_id).unpublished = 1

    def rerun_by_somebody_else(self, campaign_id: str, group_id: str) -> int:
        """The number of the run. Raises ``RefusedError`` as for the client."""
        self._catch_up()
        return self._run(campaign_id, group_id, by="somebody else").number

    # --- a transport --------------------------------------------------------------------------------------------------

    async def send(self, request: Request) -> Response:
        """Do what is asked, and whatever trouble there is."""
        operation = OPERATIONS[request.method, urlsplit(request.url).path]
        body: Mapping[str, Any] = json.loads(request.body) if isinstance(request.body, bytes) and request.body else {}
        self.requests[operation] += 1
        self._catch_up()
        trouble = self.trouble(operation, body) if self.trouble is not None else None
        if trouble == NOT_SENT:
            raise RequestNotSentError("The network is down.")
        if trouble is not None and trouble.name == "late":
            moment = self.clock.monotonic() + trouble.seconds
            heapq.heappush(self._late, (moment, self.requests.total(), operation, body))
            raise OutcomeUnknownError("The connection broke, and the request was under way.")
        if trouble == LOST_BEFORE:
            await self._wait(operation, request)
            raise OutcomeUnknownError("The connection broke before there was an answer.")
        response = self._limit() or self._answer(operation, request, body, trouble)
        await self._wait(operation, request, HANGING if trouble == HANG else 0.0)
        if trouble == LOST_AFTER:
            raise OutcomeUnknownError("The connection broke before there was an answer.")
        return response

    async def aclose(self) -> None:
        """It goes on: another client may have it."""
        self.closed += 1

    async def _wait(self, operation: str, request: Request, more: float = 0.0) -> None:
        seconds = more + (self.latency(operation) if callable(self.latency) else self.latency)
        if request.read_timeout is not None and seconds > request.read_timeout:
            await self.clock.sleep(request.read_timeout)
            raise OutcomeUnknownError("There was no answer for too long.")
        if seconds:
            await self.clock.sleep(seconds)

    def _answer(self, operation: str, request: Request, body: Mapping[str, Any], trouble: Trouble | None) -> Response:
        if trouble == UNAVAILABLE:
            return _said(503, "Service unavailable")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not operation.startswith("auth.") and token not in self._tokens:
            return _said(403, "Unauthorised")
        try:
            done = self._work[operation](body)
        except RefusedError as error:
            response = _said(400, f"Bad Request: {error}")
        else:
            response = answer(200, body=done) if isinstance(done, bytes) else answer(200, done)
        if trouble == UNAVAILABLE_AFTER:
            return _said(503, "Service unavailable")
        if trouble == GARBAGE_AFTER:
            return answer(200, body=b"<html><body>Welcome!</body></html>", headers={"Content-Type": "text/html"})
        return response

    def _limit(self) -> Response | None:
        if self._rate is None:
            return None
        now = self.clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._left + 1e-9 >= 1:
            self._left -= 1
            return None
        self.limited += 1
        seconds = math.ceil((1 - self._left) / self._rate)
        return answer(429, {"success": False, "message": "Too many requests"}, headers={"Retry-After": str(seconds)})

    def _catch_up(self) -> None:
        """What was late and has come has had its effect, at its own moment."""
        now = self.clock.monotonic()
        while self._late and self._late[0][0] <= now:
            self._moment, _, operation, body = heapq.heappop(self._late)
            with suppress(RefusedError):
                self._work[operation](body)
        self._moment = None

    def _time(self) -> float:
        return self.clock.monotonic() if self._moment is None else self._moment

    # --- the rules ----------------------------------------------------------------------------------------------------

    def _now(self, campaign_id: object) -> _Campaign:
        """A campaign as it stands by now."""
        campaign = self._campaigns.get(str(campaign_id))
        if campaign is None:
            raise RefusedError("there is no such campaign")
        if campaign.ready_at is not None and campaign.ready_at <= self._time():
            self._move(campaign, campaign.then)
        return campaign

    def _seen(self, campaign_id: str) -> _Campaign:
        """The same for a test, which may be the first to look for long."""
        self._catch_up()
        return self._now(campaign_id)

    def _move(self, campaign: _Campaign, state: str) -> None:
        campaign.state, campaign.ready_at = state, None
        if state == PUBLISHED:
            campaign.unpublished = 0
            campaign.published.add(len(campaign.runs))

    def _run(self, campaign_id: object, group_id: object, *, by: str) -> Run:
        campaign, at = self._now(campaign_id), self._time()
        if group_id not in self._groups[campaign.workspace]:
            raise RefusedError("the customer group is in another workspace than the campaign, or there is none")
        if campaign.state != PUBLISHED:
            raise RefusedError(f"the campaign is '{campaign.state}', not 'Published'")
        if campaign.unpublished:
            raise RefusedError(f"{campaign.unpublished} messages of the current run are not 'Published'")
        number = len(campaign.runs) + 1
        new = random.Random(f"{self._seed}/{campaign.campaign_id}/{number}").random() < self._share_new
        run = Run(number, str(group_id), at, by, archived=len(SEGMENTS), new=int(new))
        campaign.runs.append(run)
        self.initiated.append(Initiated(at, campaign.campaign_id, run.group, number, by))
        ready = READY_FOR_REVIEW if new else READY_TO_PUBLISH
        if self.generation_time:
            campaign.state, campaign.then = self._state_while_running, ready
            campaign.ready_at = at + self.generation_time
        else:
            self._move(campaign, ready)
        return run

    def _log_in(self, _: Mapping[str, Any]) -> object:
        number = len(self._tokens) + 1
        self._tokens.add(f"access-{number}")
        return {"access_token": f"access-{number}", "refresh_token": f"refresh-{number}", "expires_in": 14 * 86_400}

    def _list_campaigns(self, _: Mapping[str, Any]) -> object:
        found: dict[str, list[dict[str, object]]] = {}
        for campaign in map(self._now, self._campaigns):
            found.setdefault(campaign.workspace, []).append(
                {
                    "campaign_id": campaign.campaign_id,
                    "campaign_name": f"Campaign {campaign.campaign_id}",
                    "campaign_status": campaign.state,
                    "customer_group_id": campaign.runs[-1].group,
                    "run_number": len(campaign.runs),
                }
            )
        return [{"workspace_id": name, "workspace_name": name, "campaigns": listed} for name, listed in found.items()]

    def _list_groups(self, body: Mapping[str, Any]) -> object:
        workspace = body["workspace_id"]
        if workspace not in self._groups:
            raise RefusedError("there is no such workspace")
        return [
            {"customer_group_id": group, "workspace_id": workspace, "group_name": f"Group {group}"}
            for group in self._groups[workspace]
        ]

    def _history(self, body: Mapping[str, Any]) -> object:
        campaign = self._now(body["campaign_id"])
        return [
            {
                "rerun_id": _rerun_id(campaign, run) if run.number > 1 else None,
                "run_number": run.number,
                "customer_group_id": run.group,
                "customer_group_name": f"Group {run.group}",
                "segment_count": len(SEGMENTS),
                "archived_count": run.archived,
                "comparison": _comparison(run) if run.number > 1 else None,
                "campaign_status": campaign.state if run is campaign.runs[-1] else PUBLISHED,
                "created_at": datetime.fromtimestamp(run.at, UTC).isoformat(timespec="milliseconds"),
            }
            for run in reversed(campaign.runs)
        ]

    def _messages(self, body: Mapping[str, Any]) -> object:
        campaign = self._now(body["campaign_id"])
        number = _run_number(campaign, body)
        current = number == len(campaign.runs)
        status = PUBLISHED if number in campaign.published else "Approved"
        found: list[dict[str, object]] = [
            {
                "message_id": f"{campaign.campaign_id}-{number}-{segment}",
                "campaign_id": campaign.campaign_id,
                "run_number": number,
                "segment": {"buys": segment},
                "content": f"Dear {segment} customer",
                "review_status": status,
                "is_archived": not current,
            }
            for segment in SEGMENTS
        ]
        if current and campaign.unpublished:
            found[0]["review_status"] = "Rejected"
        return found

    def _initiate(self, body: Mapping[str, Any]) -> object:
        run = self._run(body["campaign_id"], body["new_customer_group_id"], by="the client")
        campaign = self._campaigns[body["campaign_id"]]
        return {
            "success": True,
            "rerun_id": _rerun_id(campaign, run),
            "run_number": run.number,
            "campaign_status": campaign.state,
            "job_uid": f"job-{len(self.initiated)}",
            "archived_count": run.archived,
            "comparison": _comparison(run),
            "message": "Campaign rerun initiated successfully",
        }

    def _publish(self, body: Mapping[str, Any]) -> object:
        campaign = self._now(body["campaign_id"])
        if campaign.ready_at is not None and campaign.then == PUBLISHED:
            raise RefusedError("the campaign is being published already")
        if campaign.state != READY_TO_PUBLISH:
            raise RefusedError(f"the campaign is '{campaign.state}', not 'Ready to publish'")
        campaign.then = PUBLISHED
        campaign.ready_at = self._time() + self.publish_time
        return {"success": True, "job_uid": f"job-{campaign.campaign_id}", "message": "Messages queued for publishing"}

    def _count_pages(self, body: Mapping[str, Any]) -> object:
        campaign = self._now(body["campaign_id"])
        return {"pages": int(_run_number(campaign, body) in campaign.published)}

    def _fetch(self, body: Mapping[str, Any]) -> object:
        campaign = self._now(body["campaign_id"])
        if body["page"] != 1 or _run_number(campaign, body) not in campaign.published:
            raise RefusedError("there is no such page; publish the campaign first")
        if body.get("format", "csv") != "csv":
            raise RefusedError("this model of the service has CSV only")
        return MESSAGE_FILE


def _said(status: int, message: str) -> Response:
    return answer(status, {"success": False, "message": message})


def _rerun_id(campaign: _Campaign, run: Run) -> str:
    return f"{campaign.campaign_id}-run-{run.number}"


def _comparison(run: Run) -> dict[str, int]:
    return {"matched_count": len(SEGMENTS) - run.new, "new_count": run.new, "orphaned_count": run.new}


def _run_number(campaign: _Campaign, body: Mapping[str, Any]) -> int:
    number = int(body.get("run_number", len(campaign.runs)))
    if number > len(campaign.runs):
        raise RefusedError("the campaign has no such run")
    return number


@contextmanager
def threads_hold(clock: VirtualClock) -> Iterator[None]:
    """The clock stands as long as a thread works for this event loop, as one does for each entry of a journal.

    Left alone, a ``VirtualClock`` takes such a thread for nothing, and jumps after some tenths of a millisecond: to the answers
    that are on their way, and if there are none, to whatever is next, such as the end of a deadline or of a token.
    """
    loop = asyncio.get_running_loop()
    start = loop.run_in_executor
    working: set[asyncio.Future[Any]] = set()

    def look() -> None:
        if working:
            clock.monotonic()  # whoever asks for the time over and over keeps it from passing
            loop.call_soon(look)

    def run_in_executor(*arguments: Any) -> asyncio.Future[Any]:
        future = start(*arguments)
        if not working:
            loop.call_soon(look)
        working.add(future)
        future.add_done_callback(working.discard)
        return future

    loop.run_in_executor = run_in_executor  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        loop.run_in_executor = start  # type: ignore[method-assign]
