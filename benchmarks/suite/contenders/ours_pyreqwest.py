"""This package, with its transport over pyreqwest."""

from __future__ import annotations

from nudgescribe_async.transport import Transport
from nudgescribe_async.transport.pyreqwest import PyreqwestTransport
from suite.contenders import ours


class Contender(ours.Contender):
    """Otherwise the same."""

    def transport(self) -> Transport:
        return PyreqwestTransport()
