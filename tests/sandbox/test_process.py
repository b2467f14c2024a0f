from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from nudgescribe_async.sandbox.__main__ import duration, main

COMMAND = (sys.executable, "-W", "error", "-m", "nudgescribe_async.sandbox")


async def begin(*options: str) -> tuple[asyncio.subprocess.Process, dict[str, str], str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("Ctrl-C."):
        line = (await process.stdout.readline()).decode()
        assert line, (await process.communicate())[1].decode()
        text += line
    return process, dict(re.findall(r"^export (\w+)=(\S+)$", text, re.MULTILINE)), text


async def end(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    process.send_signal(number)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")


async def log_in(variables: dict[str, str]) -> tuple[int, Any]:
    body = {"email": variables["NUDGESCRIBE_EMAIL"], "password": variables["NUDGESCRIBE_PASSWORD"]}
    headers = {"x-api-key": variables["NUDGESCRIBE_API_KEY"]}
    url = variables["NUDGESCRIBE_BASE_URL"] + "/v1/auth"
    async with aiohttp.ClientSession() as http, http.post(url, json=body, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_process_serves_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    options = ("--port", "0", "--db", str(tmp_path / "x.db"), "--latency", "1ms", "--access-token-lifetime", "90s")
    process, variables, text = await begin(*options)
    status, tokens = await log_in(variables)

    assert (status, tokens["expires_in"]) == (200, 90)
    assert "http://127.0.0.1:" in text
    assert text.count("# campaign ") == 3
    assert text.count("# customer group ") == 2
    await end(process, number)

    process, again, _ = await begin(*options)
    unchanged = {name: value for name, value in variables.items() if name != "NUDGESCRIBE_BASE_URL"}
    assert unchanged.items() <= again.items()
    await end(process, number)


@pytest.mark.slow
async def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--port", port, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()

    assert (process.returncode, out) == (1, b"")
    (line,) = err.decode().splitlines()
    assert f"cannot listen on 127.0.0.1:{port}" in line


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("1.5s", 1.5), ("0.1", 0.1), ("5m", 300), ("2h", 7_200), ("14d", 1_209_600), (" 3 S ", 3)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency", "20x"], "argument --latency: '20x' is not a duration such as 20ms, 1.5s or 0.1"),
        (["--latency=-1"], "argument --latency: '-1' is not a duration such as 20ms, 1.5s or 0.1"),
        (["--job-time", "soon"], "argument --job-time: 'soon' is not a duration such as 20ms, 1.5s or 0.1"),
        (["--port", "70000"], "argument --port: '70000' is not a port: they end at 65535"),
        (["--port", "x"], "argument --port: 'x' is not a whole number"),
        (["--edition", "4"], "edition must be 1, 2 or 3, not 4"),
        (["--page-size", "0"], "page_size must be at least 1, not 0"),
        (["--page", "5"], "unrecognized arguments: --page 5"),
    ],
)
def test_bad_arguments_are_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)

    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {message}")
