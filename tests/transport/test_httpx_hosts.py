"""Hosts that cannot be, over ``HttpxTransport``: trying again would not help, so it is no ``RequestNotSentError``."""

from __future__ import annotations

import traceback

import pytest

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.transport import Request

pytest.importorskip("httpx")

from nudgescribe_async.transport.httpx import HttpxTransport

SECRET = "s3cr3t"


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, f"a.{'b' * 64}.c", "xn--a", "xn--a.example"])
async def test_a_host_that_cannot_be_is_no_connection_that_failed(host: str) -> None:
    async with HttpxTransport() as transport:
        with pytest.raises(ConfigurationError, match="Check the base URL") as caught:
            await transport.send(Request(method="GET", url=f"https://{host}/?signature={SECRET}"))
    assert SECRET not in "".join(traceback.format_exception(caught.value))
