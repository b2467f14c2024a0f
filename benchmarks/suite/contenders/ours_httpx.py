"""This package, with its transport over httpx."""

from __future__ import annotations

from nudgescribe_async.transport import Transport
from nudgescribe_async.transport.httpx import HttpxTransport
from suite.contenders import ours


class Contender(ours.Contender):
    """Otherwise the same."""

    def transport(self) -> Transport:
        return HttpxTransport()
