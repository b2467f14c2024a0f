"""The last look before a request that must not happen twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nudgescribe_async.clock import Clock
    from nudgescribe_async.rerun.halt import Halt

__all__ = ["NotNowError", "Once"]

FRESH = 1.0
"""Seconds that a look at the history is good for at first; each that was too old doubles it, so that a busy client gets on."""


class NotNowError(Exception):
    """It was not sent, and first the history must be asked again. It never leaves this package.

    Attributes:
        why: a few words.
        denied: the status with which a request was refused that was sent before; there is another token since.
    """

    def __init__(self, why: str, *, denied: int | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.denied = denied


class Once:
    """Lets a request of one campaign be sent only if the history was asked just before, and nobody stops.

    A call may wait long for a slot or a token, and somebody else may run the campaign meanwhile.
    """

    def __init__(self, clock: Clock, halt: Halt) -> None:
        self._clock = clock
        self._halt = halt
        self._looked = 0.0
        self._fresh = FRESH
        self._replaced: int | None = None
        self._let_go = False

    @property
    def let_go(self) -> bool:
        """Whether a request was let go since the history was asked; it may not have left for another reason."""
        return self._let_go

    @property
    def replaced(self) -> int | None:
        """The status for which the token was replaced, for the session to go on with."""
        return self._replaced

    def looked(self) -> None:
        """The history has been asked."""
        self._looked = self._clock.monotonic()
        self._let_go = False

    def check(self, replaced: int | None) -> None:
        """Before each request.

        Raises:
            NotNowError: it is not to be sent.
        """
        if replaced != self._replaced:
            self._replaced = replaced
            raise NotNowError("there is a new token, and the history is asked again first", denied=replaced)
        if self._halt:
            raise NotNowError(f"the call stopped: {self._halt.why}")
        if self._clock.monotonic() - self._looked > self._fresh:
            self._fresh *= 2
            raise NotNowError("it had to wait, and the history is asked again first")
        self._let_go = True
