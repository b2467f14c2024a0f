"""A stand-in for the service that costs next to nothing: pre-rendered pages, in a process of its own.

The customers of page 7 are ``00000007-00000000``, ``00000007-00000001`` and so on.
"""

from __future__ import annotations

import argparse
import asyncio
import json

RECORD = {
    "account_id": "9a3d6a55-1f0b-4d39-8d3f-0a6f2f1a7c22",
    "workspace_id": "1c4e2f7b-7a55-4a53-9a44-9b7b8c6d5e33",
    "customer_group_id": "2d5f308c-8b66-4b64-8b55-0c8c9d7e6f44",
    "extended_profile": {
        "alg": "A256GCM",
        "kid": "k1",
        "iv": "bm9uY2Utbm9uY2U=",
        "ciphertext": "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo" * 8,
    },
    "created_at": "2026-01-29T13:09:11.123Z",
    "updated_at": "2026-01-29T13:09:11.123Z",
    "created_by": "3e60419d-9c77-4c75-9c66-1d9d0e8f7a55",
    "updated_by": "3e60419d-9c77-4c75-9c66-1d9d0e8f7a55",
}


PAGE = b"@@PAGE@@"


def answer(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def serve(pages: int, records: int) -> None:
    customers = [{"customer_id": f"{PAGE.decode()}-{index:08}", **RECORD} for index in range(records)]
    page = answer(json.dumps(customers, separators=(",", ":")).encode())
    count = answer(json.dumps({"pages": pages}).encode())
    tokens = answer(json.dumps({"access_token": "a.b.c", "refresh_token": "d.e.f", "expires_in": 3600}).encode())
    answers = {b"/v1/customer": page, b"/v1/customer/pages": count, b"/v1/auth": tokens}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1]
                length = next(
                    (
                        int(line.partition(b":")[2])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-l")
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                answer = answers[path]
                if answer is page:
                    answer = page.replace(PAGE, b"%08d" % json.loads(body)["page"])
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--records", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.pages, options.records))
