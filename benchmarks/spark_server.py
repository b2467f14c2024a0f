"""The stand-in of ``server.py`` for the proofs with Spark: every row differs in each column, and it counts what it is asked.

``GET /counts`` answers with how many requests came of each kind, the most of them in any second, and how many logins.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter, deque
from contextlib import suppress

import server

PAGE = server.PAGE.decode()
IDS = {"account_id": "account", "workspace_id": "workspace"}
MOMENTS = {"created_at": "2026-01-29T13:09:11.123Z", "updated_at": "2026-01-29T13:09:11.123Z"}
FIXED: dict[bytes, list[dict[str, object]]] = {
    b"/v1/cg": [{"customer_group_id": "group", "group_name": "group", **IDS, **MOMENTS}],
    b"/v1/cpf": [
        {"profile_field_id": name, "field_name": name, "field_type": kind, "field_format": form, **IDS, **MOMENTS}
        for name, kind, form in (
            ("external_id", "string", None),
            ("first_name", "string", None),
            ("purchases", "number", None),
            ("first_purchase", "Date", "yyyy-MM-dd"),
        )
    ],
}


class Counts:
    """What was asked for."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.most = 0
        self.uploaded = 0
        self._last: deque[float] = deque()

    def add(self, path: str) -> None:
        """One more request."""
        self.kinds[path] += 1
        now = time.monotonic()
        self._last.append(now)
        while self._last[0] <= now - 1:
            self._last.popleft()
        self.most = max(self.most, len(self._last))

    def as_json(self) -> bytes:
        return json.dumps({"kinds": self.kinds, "most_in_a_second": self.most, "uploaded": self.uploaded}).encode()


class Rows(server.Answers):
    """Pages of which no two rows have the same profile; and uploads, of which rows whose first cell begins with K are counted."""

    def __init__(self, settings: server.Settings) -> None:
        super().__init__(settings)
        self.counts = Counts()
        self._page = _answer(_page(settings.records))

    def to(self, path: bytes, body: bytes) -> tuple[bytes, float]:
        if path == b"/counts":
            return _answer(self.counts.as_json()), 0.0
        self.counts.add(path.decode("latin-1"))
        if path == b"/v1/customer/check":
            return _answer(self._taken(body.count(b"\nK"))), self.settings.latency
        if path in FIXED:
            return _answer(json.dumps(FIXED[path]).encode()), self.settings.latency
        return super().to(path, body)

    def _taken(self, rows: int) -> bytes:
        self.counts.uploaded += rows
        return json.dumps({"success": True, "accepted_count": rows, "rejected_count": 0}).encode()


def _answer(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _page(records: int) -> bytes:
    customers = [
        {
            "customer_id": f"{PAGE}-{index:08}",
            **server.RECORD,
            "extended_profile": {**server.ENCRYPTED_PROFILE, "iv": f"iv-{PAGE}-{index:08}"},
            "updated_by": f"user-{PAGE}-{index:08}",
        }
        for index in range(records)
    ]
    return json.dumps(customers, separators=(",", ":")).encode()


async def serve(settings: server.Settings) -> None:
    stand = server.Stand(settings)
    stand.answers = Rows(settings)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: server.Connection(stand), "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until an answer")
    settings = server.Settings(**vars(parser.parse_args()))
    with asyncio.Runner(loop_factory=server.fastest_loop) as runner:
        runner.run(serve(settings))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
