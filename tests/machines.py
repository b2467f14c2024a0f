"""State machines of hypothesis over coroutines: what the three of them have in common.

A rule puts actions into a script. The script is played in one run of the event loop, so that several things can happen
in the same turn of it; then the subject is given time to stand still, and looks whether all is as it should be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

THEN = st.sampled_from(["at once", "after a turn", "stand still", "stand still"])
"""What comes between one thing and the next: nothing, so that both happen in the same turn of the event loop."""


class Subject(Protocol):
    """What a machine drives."""

    async def stand_still(self) -> None: ...


S = TypeVar("S", bound=Subject)


class AsyncMachine(RuleBasedStateMachine, Generic[S]):
    subject: S

    def start(self, subject: Callable[[], S]) -> None:
        self.loop = asyncio.new_event_loop()
        self.subject = subject()
        self.script: list[Callable[[], None] | None] = []

    def do(self, action: Callable[[], None], then: str) -> None:
        self.script.append(action)
        if then == "after a turn":
            self.script.append(None)
        if then == "stand still":
            self.loop.run_until_complete(self.play())

    async def play(self) -> None:
        script, self.script = self.script, []
        for action in script:
            if action is None:
                await asyncio.sleep(0)
            else:
                action()
        await self.subject.stand_still()

    async def end(self) -> None:
        """Bring the subject to its end, and look whether anything is left."""
        raise NotImplementedError

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.loop.run_until_complete(self.play())
            self.loop.run_until_complete(self.end())
        finally:
            self.loop.run_until_complete(_end_all())
            self.loop.close()


async def _end_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def run(machine: type[AsyncMachine[Any]], *, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),  # shrinking takes minutes, and the script is readable as it is
            report_multiple_bugs=False,
        ),
    )
