"""The page in a real browser: Chromium, without a screen.

Skipped where there is none, unless NUDGESCRIBE_TEST_BROWSER is 1, as in CI: then it must be there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from nudgescribe_async import Nudgescribe, RetryPolicy, ServerError
from nudgescribe_async.sandbox import LoseAnswer, Sandbox, Status, create_sample_fields, sample_customers

pytestmark = pytest.mark.slow

PATIENCE = 30.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
EVIL = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        reason = "chromium and chromedriver are not installed (Debian: apt-get install chromium-driver)"
        if os.environ.get("NUDGESCRIBE_TEST_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


class Screen:
    """The browser, asked from the event loop: it waits in a thread."""

    def __init__(self, chrome: webdriver.Chrome) -> None:
        self.chrome = chrome

    async def open(self, url: str) -> None:
        await asyncio.to_thread(self.chrome.get, url)

    async def run(self, script: str, *arguments: object) -> Any:
        return await asyncio.to_thread(self.chrome.execute_script, script, *arguments)

    async def cdp(self, command: str, **parameters: object) -> Any:
        return await asyncio.to_thread(self.chrome.execute_cdp_cmd, command, parameters)

    async def until(self, condition: str, *arguments: object) -> None:
        """Wait until an expression is true."""
        script = f"return Boolean({condition})"

        def wait() -> None:
            waiting = WebDriverWait(self.chrome, PATIENCE, poll_frequency=0.05)
            waiting.until(lambda chrome: chrome.execute_script(script, *arguments), f"not true: {condition}")

        await asyncio.to_thread(wait)

    async def click(self, id_: str) -> None:
        await asyncio.to_thread(lambda: self.chrome.find_element("id", id_).click())

    async def type(self, *keys: str) -> None:
        await asyncio.to_thread(lambda: webdriver.ActionChains(self.chrome).send_keys(*keys).perform())

    async def table(self, section: str) -> list[list[str]]:
        """The texts in the rows of the first table of a section."""
        script = (
            "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]"
            ".map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        found: list[list[str]] = await self.run(script, section)
        return found

    async def complaints(self) -> list[str]:
        """What the browser's console says, but for what the tests do to the network themselves."""
        return [entry["message"] for entry in await asyncio.to_thread(self.chrome.get_log, "browser")]


@pytest.fixture
async def screen(chromium: webdriver.Chrome) -> AsyncIterator[Screen]:
    """A browser as it is at first, on an empty page before and after."""
    screen = Screen(chromium)
    await screen.cdp("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    await screen.cdp("Emulation.setEmulatedMedia", features=[])
    await screen.complaints()
    yield screen
    await screen.cdp("Emulation.setScriptExecutionDisabled", value=False)
    await screen.open("about:blank")


@pytest.fixture
async def example() -> AsyncIterator[Sandbox]:
    async with Sandbox(example=True) as sandbox:
        yield sandbox


def client(sandbox: Sandbox) -> Nudgescribe:
    return Nudgescribe(sandbox.credentials, base_url=sandbox.url, retry=RetryPolicy(attempts=1))


LIVE = "document.getElementById('connection').dataset.state === 'live'"


async def follow(screen: Screen, sandbox: Sandbox, path: str = "/") -> None:
    await screen.open(sandbox.url + path)
    await screen.until(LIVE)


# --- it follows -------------------------------------------------------------------------------------------------------


async def test_a_running_job_is_followed_live(screen: Screen) -> None:
    async with Sandbox(page_size=50, queue_above=100) as sandbox, client(sandbox) as ns:
        await create_sample_fields(sandbox)
        await follow(screen, sandbox)
        await screen.run("window.sameDocument = true")
        assert await screen.run("return document.title") == "Overview · Nudgescribe sandbox"

        group = (await ns.customer_groups.create(sandbox.workspace_id, "Spring")).customer_group_id
        await ns.customers.upload(sandbox.workspace_id, group, sample_customers()[:400])
        await screen.until("document.querySelector('#groups td.number')?.innerText === '400'")
        seen = [customer async for customer in ns.customers.iter(group, concurrency=2)]

        assert len(seen) == 400
        await screen.until(
            "[...document.querySelectorAll('#log-rows summary')].filter(e => e.innerText === 'customers.list').length >= 8"
        )
        await screen.until("document.querySelector('#figures dd').innerText === arguments[0]", str(len(sandbox.log)))
        rows = await screen.table("log")
        assert [row[1] for row in rows] == [record.operation for record in reversed(sandbox.log)]
        count = str(sandbox.count("customers.list"))
        assert ["customers.list", count, count, "0", "0", "0", "0"] in await screen.table("requests")
        assert await screen.run("return window.sameDocument") is True

        # And the same on the page of the group.
        await follow(screen, sandbox, f"/_sandbox/groups/{group}")
        await ns.customers.delete(group, [customer.customer_id for customer in seen[:10]])
        await screen.until("document.querySelector('#facts dd').innerText === '390'")
        assert (await screen.table("customers"))[0][-1] == seen[10].customer_id
        assert await screen.complaints() == []


async def test_the_body_of_a_request_can_be_read_and_stays_open(screen: Screen, example: Sandbox) -> None:
    await follow(screen, example)
    async with client(example) as ns:
        await ns.customer_groups.create(example.workspace_id, "Spring <b>")
        await screen.until("document.querySelectorAll('#log-rows tr').length === 2")
        await screen.run("document.querySelector('#log-rows summary').click()")
        for _ in range(3):
            await ns.customer_groups.list(example.workspace_id)
        await screen.until("document.querySelectorAll('#log-rows tr').length === 5")

    text = await screen.run("return document.querySelector('#log-rows details[open] pre').innerText")
    assert '"group_name": "Spring <b>"' in text
    assert await screen.run("return document.querySelectorAll('#log-rows b').length") == 0
    await screen.run("document.querySelector('#log-rows tr:last-child summary').click()")
    text = await screen.run("return document.querySelector('#log-rows tr:last-child pre').innerText")
    assert '"password": "***"' in text
    assert example.credentials.password not in await screen.run("return document.documentElement.outerHTML")


async def test_the_log_can_be_paused(screen: Screen, example: Sandbox) -> None:
    await follow(screen, example)
    async with client(example) as ns:
        await ns.customer_groups.list(example.workspace_id)
        await screen.until("document.querySelectorAll('#log-rows tr').length === 2")
        await screen.click("pause")
        await ns.customer_groups.list(example.workspace_id)
        await screen.until("document.getElementById('pause').innerText === 'Resume the log (1 new)'")
        assert await screen.run("return document.querySelectorAll('#log-rows tr').length") == 2
        await screen.click("pause")
        await screen.until("document.querySelectorAll('#log-rows tr').length === 3")
        await ns.customer_groups.list(example.workspace_id)
        await screen.until("document.querySelectorAll('#log-rows tr').length === 4")
        assert await screen.run("return document.getElementById('pause').innerText") == "Pause the log"


async def test_a_sandbox_that_stops_is_said_and_the_next_one_is_followed(screen: Screen) -> None:
    async with Sandbox() as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        async with client(sandbox) as ns:
            await ns.campaigns.list()
        await follow(screen, sandbox)
        assert len(await screen.table("log")) == 2
    await screen.until("document.getElementById('connection').innerText.startsWith('Not connected')")

    async with Sandbox(port=port) as sandbox:
        await sandbox.create_customer_group("of the next one")
        await screen.until("document.getElementById('groups').innerText.includes('of the next one')")
        await screen.until("document.querySelectorAll('#log-rows tr').length === 0")
        await screen.until(LIVE)
        await screen.click("switch-slow")  # with the token of the next one
        await screen.until("document.getElementById('switch-slow').getAttribute('aria-pressed') === 'true'")
        assert len(sandbox.injections) == 1


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_fault_that_is_switched_on_by_a_click_is_felt_until_it_is_switched_off(
    screen: Screen, example: Sandbox
) -> None:
    await follow(screen, example)
    async with client(example) as ns:
        await ns.customer_groups.list(example.workspace_id)

        await screen.click("switch-unavailable")
        await screen.until("document.getElementById('switch-unavailable').getAttribute('aria-pressed') === 'true'")
        with pytest.raises(ServerError) as caught:
            await ns.customer_groups.list(example.workspace_id)
        assert caught.value.status == 503
        await screen.until("document.querySelector('#log-rows .status')?.innerText.includes('503 failed')")
        await screen.until("document.querySelector('#faults tbody td.number')?.innerText === '1'")

        await screen.click("switch-unavailable")
        await screen.until("document.getElementById('switch-unavailable').getAttribute('aria-pressed') === 'false'")
        assert len(await ns.customer_groups.list(example.workspace_id)) == 2
    assert await screen.run("return document.getElementById('announcer').innerText") == "Done."
    assert await screen.complaints() == []


async def test_a_fault_of_ones_own_is_added_with_the_form(screen: Screen, example: Sandbox) -> None:
    await follow(screen, example)
    await screen.run("document.querySelector('#add summary').click()")

    async def shown() -> list[str]:
        script = "return [...document.querySelectorAll('fieldset.kind')].filter(e => e.checkVisibility()).map(e => e.className)"
        found: list[str] = await screen.run(script)
        return found

    assert await shown() == ["kind kind-Status"]
    choose = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change'))"
    )
    await screen.run(choose, "kind", "LoseAnswer")
    assert await shown() == ["kind kind-LoseAnswer"]
    await screen.run(choose, "operation", "customers.list")
    await screen.run(choose, "share", "none")
    await screen.click("inject")
    said = "The share must be a number, not 'none'."
    await screen.until("document.getElementById('faults-error').innerText === arguments[0]", said)
    await screen.until("document.getElementById('announcer').innerText === arguments[0]", said)
    assert list(example.injections) == []
    await example.create_customer_group("later")  # what changes meanwhile changes neither that nor the form
    await screen.until("document.querySelectorAll('#groups tbody tr').length === 3")
    assert await screen.run("return document.getElementById('faults-error').innerText") == said
    assert await screen.run("return document.getElementById('operation').value") == "customers.list"
    await screen.run(choose, "share", "50")
    await screen.click("inject")
    await screen.until("document.querySelector('#faults code')?.innerText === 'LoseAnswer()'")
    await screen.until("document.getElementById('faults-error').innerText === ''")

    (injection,) = example.injections
    assert (injection.fault, injection.operation, injection.share) == (LoseAnswer(), "customers.list", 0.5)


async def test_a_fault_of_code_is_seen_and_removed(screen: Screen, example: Sandbox) -> None:
    await follow(screen, example)
    for status in (500, 502):
        example.inject(Status(status), times=None)
    await screen.until("document.querySelectorAll('#faults tbody tr').length === 2")

    first = await screen.run("return document.querySelector('#faults tbody button').id")
    await screen.click(first)
    await screen.until("document.querySelectorAll('#faults tbody tr').length === 1")
    assert [injection.fault for injection in example.injections] == [Status(502)]
    await screen.click("clear")
    await screen.until("document.querySelectorAll('#faults tbody tr').length === 0")
    assert list(example.injections) == []
    # The button has gone, and the focus is not lost with it.
    await screen.until("document.activeElement.id === 'active-title'")


# --- nothing hostile --------------------------------------------------------------------------------------------------


async def test_hostile_names_do_nothing(screen: Screen, sandbox: Sandbox) -> None:
    await sandbox.create_profile_field("external_id", "string")
    group = await sandbox.create_customer_group(EVIL, customers=[{"external_id": EVIL}])
    campaign = await sandbox.create_campaign(EVIL, group, template=EVIL, status="Published")
    async with client(sandbox) as ns:
        await follow(screen, sandbox)
        await ns.customer_groups.create(sandbox.workspace_id, EVIL)  # as a row of the stream, and as one of the page
        await screen.until("document.querySelectorAll('#log-rows tr').length === 2")
        await screen.until("document.querySelectorAll('#groups tbody tr').length === 2")
    assert (await screen.table("groups"))[0][0] == EVIL

    for path in (f"/_sandbox/groups/{group}", f"/_sandbox/campaigns/{campaign}", "/"):
        await follow(screen, sandbox, path)
        assert EVIL in await screen.run("return document.body.innerText")
        assert await screen.run("return document.querySelectorAll('script, img').length") == 2
        assert "hacked" not in await screen.run("return document.title.replace(arguments[0], '')", EVIL)
    assert await screen.complaints() == []


async def test_what_became_markup_all_the_same_would_do_nothing(screen: Screen, example: Sandbox) -> None:
    """The second line of defence: the policy that the page is sent with."""
    await follow(screen, example)

    await screen.run("document.querySelector('h1').innerHTML = arguments[0]", EVIL)
    await screen.until("document.querySelector('h1 img').complete")

    assert await screen.run("return document.title") == "Overview · Nudgescribe sandbox"
    assert any("Content Security Policy" in message for message in await screen.complaints())


async def test_another_site_can_neither_act_nor_look(screen: Screen, example: Sandbox) -> None:
    """A page of another origin in the same browser, that has even got hold of the token."""
    await follow(screen, example)
    token = await screen.run("return document.querySelector('input[name=token]').value")
    action = f"{example.url}/_sandbox/faults/switch"

    async def evil(_: web.Request) -> web.Response:
        form = (
            f'<form method="post" action="{action}"><input name="token" value="{token}">'
            '<input name="name" value="slow"><input name="on" value="yes"></form>'
            f'<iframe src="{example.url}/"></iframe>'
        )
        return web.Response(text=f"<!doctype html><title>evil</title>{form}", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", evil)
    async with TestServer(app) as other:
        await screen.open(str(other.make_url("/")))
        read = (
            "const done = arguments[2]; fetch(arguments[0], {method: arguments[1], mode: 'cors',"
            " headers: {Accept: 'text/html'}}).then(() => done('read'), () => done('refused'))"
        )
        for url in (example.url + "/", example.url + "/_sandbox/events"):
            assert await asyncio.to_thread(screen.chrome.execute_async_script, read, url, "GET") == "refused"
        framed = "try { return document.querySelector('iframe').contentDocument } catch { return null }"
        assert await screen.run(framed) is None
        await screen.run("document.querySelector('form').submit()")
        await screen.until("document.title.startsWith('Forbidden')")

    assert "another site" in await screen.run("return document.body.innerText")
    assert list(example.injections) == []


# --- for everybody ----------------------------------------------------------------------------------------------------


async def test_a_keyboard_is_enough(screen: Screen, example: Sandbox) -> None:
    await follow(screen, example)
    await screen.run("document.body.focus()")

    await screen.type(Keys.TAB)
    assert await screen.run("return document.activeElement.innerText") == "Skip to the content"
    assert await screen.run("return document.activeElement.getBoundingClientRect().width") > 50
    await screen.type(Keys.ENTER)
    assert await screen.run("return document.activeElement.id") == "main"
    seen: list[str] = []
    while "switch-slow" not in seen:
        await screen.type(Keys.TAB)
        seen.append(await screen.run("return document.activeElement.id"))
        assert await screen.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert len(seen) < 60
    await screen.type(Keys.ENTER)
    await screen.until("document.getElementById('switch-slow').getAttribute('aria-pressed') === 'true'")
    assert len(example.injections) == 1
    assert "pause" in seen
    # The part of the page was replaced, and the keyboard is where it was.
    await screen.until("document.activeElement.id === 'switch-slow'")
    await screen.type(Keys.SPACE)
    await screen.until("document.getElementById('switch-slow').getAttribute('aria-pressed') === 'false'")
    assert list(example.injections) == []


async def test_everything_has_a_name_for_those_who_hear_the_page(screen: Screen, example: Sandbox) -> None:
    example.inject(Status(503), times=None)
    await follow(screen, example)
    await screen.run("document.getElementById('add').open = true")
    await screen.cdp("Accessibility.enable")
    for path in ("", f"/_sandbox/campaigns/{example.example.campaigns['Welcome back']}", "/_sandbox/log"):
        if path:
            await screen.open(example.url + path)
        nodes = (await screen.cdp("Accessibility.getFullAXTree"))["nodes"]
        named: dict[str, list[str]] = {}
        for node in nodes:
            if not node["ignored"]:
                role = node["role"]["value"]
                named.setdefault(role, []).append(node.get("name", {}).get("value", ""))
        for role in ("link", "button", "textbox", "combobox", "checkbox", "table", "region", "navigation"):
            assert all(name.strip() for name in named.get(role, [])), (role, named.get(role))
        assert len(named["main"]) == len(named["banner"]) == 1
        for role in ("region", "navigation", "table"):
            assert len(set(named.get(role, []))) == len(named.get(role, [])), (role, named[role])
    await screen.cdp("Accessibility.disable")


CONTRASTS = """
const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest(".unseen, .skip")) continue;
  const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(ground(element))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data.trim().slice(0, 40), element.className]);
}
return found.sort((x, y) => x[0] - y[0]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_texts_are_readable_in_light_and_dark(screen: Screen, example: Sandbox, scheme: str) -> None:
    example.inject(Status(503), operation="customer_groups.list", times=None)
    async with client(example) as ns:
        with pytest.raises(ServerError):
            await ns.customer_groups.list(example.workspace_id)
        await ns.customer_groups.create(example.workspace_id, "g")
    await screen.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    grounds = set()
    for path in ("/", f"/_sandbox/groups/{example.example.customer_groups['January 1997']}"):
        await follow(screen, example, path)
        await screen.run("document.querySelectorAll('details').forEach(e => { e.open = true })")
        if path == "/":
            await screen.click("switch-slow")
            await screen.until("document.querySelector('.switches .on') !== null")
        grounds.add(await screen.run("return getComputedStyle(document.body).backgroundColor"))
        worst = await screen.run(CONTRASTS)
        assert len(worst) > 60
        assert worst[0][0] >= 4.5, worst[:5]
    (ground,) = grounds
    assert (sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(",")) > 384) == (scheme == "light")


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 1600, 2560])
async def test_no_width_makes_the_page_scroll_sideways(screen: Screen, example: Sandbox, width: int) -> None:
    example.inject(Status(503), times=None)
    await example.create_customer_group("W" * 500)
    await screen.cdp("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    for path in ("/", f"/_sandbox/campaigns/{example.example.campaigns['Welcome back']}", "/_sandbox/log"):
        await screen.open(example.url + path)
        await screen.run("document.querySelectorAll('details').forEach(e => { e.open = true })")
        assert await screen.run("return document.documentElement.scrollWidth") <= width
    # Side by side where there is room, and one below the other where there is none.
    await follow(screen, example)
    tops = await screen.run("return [...document.querySelectorAll('.column')].map(e => e.getBoundingClientRect().top)")
    assert all((before == after) == (width >= 1280) for before, after in pairwise(tops))


async def test_who_wants_no_motion_gets_none(screen: Screen, example: Sandbox) -> None:
    await screen.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    await follow(screen, example)

    moving = "getComputedStyle(document.querySelector('.switches .mark'), '::after').transitionDuration"
    assert await screen.run(f"return {moving}") == "0s"


async def test_the_page_works_without_its_script(screen: Screen, example: Sandbox) -> None:
    await screen.cdp("Emulation.setScriptExecutionDisabled", value=True)
    await screen.open(example.url + "/")
    assert not await asyncio.to_thread(lambda: screen.chrome.find_element("id", "connection").is_displayed())
    assert not await asyncio.to_thread(lambda: screen.chrome.find_element("id", "pause").is_displayed())

    await screen.click("switch-unavailable")

    def pressed() -> str | None:
        return screen.chrome.find_element("id", "switch-unavailable").get_attribute("aria-pressed")

    assert await asyncio.to_thread(pressed) == "true"
    assert await asyncio.to_thread(lambda: screen.chrome.current_url) == example.url + "/#faults"
    async with client(example) as ns:
        with pytest.raises(ServerError):
            await ns.customer_groups.list(example.workspace_id)
    await screen.click("switch-unavailable")
    async with asyncio.timeout(PATIENCE):
        while example.injections:  # nobody says when the browser has sent a form
            await asyncio.sleep(0.01)
    link = f"group-{example.example.customer_groups['January 1997']}"
    await screen.click(link)
    heading = await asyncio.to_thread(lambda: screen.chrome.find_element("tag name", "h1").text)
    assert heading == "January 1997"


async def test_a_page_for_the_documentation(screen: Screen, tmp_path: Path) -> None:
    """The picture is whole: no part of the page hides another."""
    async with Sandbox(example=True) as sandbox:
        await follow(screen, sandbox)
        overlaps = await screen.run(
            "const boxes = [...document.querySelectorAll('section')].map(e => e.getBoundingClientRect());"
            "return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right && b.left < a.right"
            " && a.top < b.bottom && b.top < a.bottom))"
        )
        assert overlaps is False
        file = tmp_path / "page.png"
        assert await asyncio.to_thread(screen.chrome.save_screenshot, str(file))
        assert file.stat().st_size > 20_000


# --- what was found by attacking it -----------------------------------------------------------------------------------


async def test_a_refused_stream_is_tried_again_as_the_page_says(
    screen: Screen, example: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser gives up a stream that is answered with anything but 200."""
    monkeypatch.setattr("nudgescribe_async.sandbox.page.stream._MOST", 0)
    await screen.open(example.url + "/")
    await screen.until("document.getElementById('connection').innerText.startsWith('Not connected')")
    monkeypatch.undo()

    await screen.until(LIVE)
    await example.create_customer_group("afterwards")
    await screen.until("document.getElementById('groups').innerText.includes('afterwards')")


async def test_no_request_is_listed_twice_after_a_pause(
    screen: Screen, example: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nudgescribe_async.sandbox.page.stream._TURN_SECONDS", 1.5)  # the stream comes late
    await follow(screen, example)
    async with client(example) as ns:
        await screen.click("pause")
        await ns.customer_groups.list(example.workspace_id)
        await screen.click("pause")
        await screen.until("document.querySelectorAll('#log-rows tr').length >= 2")
        await ns.campaigns.list()
        await screen.until("document.getElementById('log-rows').innerText.includes('campaigns.list')")

    rows = [row[1] for row in await screen.table("log")]
    assert rows == ["campaigns.list", "customer_groups.list", "auth.authenticate"]


async def test_the_page_of_a_group_that_is_deleted_says_so(screen: Screen, example: Sandbox) -> None:
    group = await example.create_customer_group("gone soon")
    await follow(screen, example, f"/_sandbox/groups/{group}")
    async with client(example) as ns:
        await ns.customer_groups.delete(example.workspace_id, group)

    await screen.until("document.querySelector('main').innerText.includes('it may have been deleted')")


@pytest.mark.parametrize("width", [800, 1280, 1920])
async def test_tables_are_whole_and_ids_can_be_copied_with_a_click(screen: Screen, width: int) -> None:
    async with Sandbox(example=True, job_time=3_600) as sandbox, client(sandbox) as ns:
        sandbox.inject(Status(503), operation="customer_groups.list", times=3)
        await ns.messages.publish(sandbox.example.campaigns["Spring sale"])
        await screen.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await follow(screen, sandbox)
        await screen.until("document.querySelector('#jobs td.id') !== null")

        cut = (
            "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
            ".map(e => e.getAttribute('aria-labelledby'))"
        )
        assert await screen.run(cut) == []
        for section in ("groups", "campaigns", "jobs"):
            cell = await screen.run(
                "const e = document.querySelector(`#${arguments[0]} td.id`); e.scrollIntoView({block: 'center'});"
                "const box = e.getBoundingClientRect(); return [box.left + 20, box.top + 12]",
                section,
            )
            for kind in ("mousePressed", "mouseReleased"):
                place = {"x": cell[0], "y": cell[1], "button": "left", "clickCount": 1}
                await screen.cdp("Input.dispatchMouseEvent", type=kind, **place)
            assert await screen.run("return getSelection().toString().trim()") == (await screen.table(section))[0][-1]


async def test_a_table_that_is_wider_than_the_page_shows_it(screen: Screen, example: Sandbox) -> None:
    await screen.cdp("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=False)
    await follow(screen, example)

    ground = await screen.run(
        "return getComputedStyle(document.querySelector('#campaigns .scroll')).backgroundAttachment"
    )
    assert ground == "local, local, scroll, scroll"
    caption = "return document.querySelector('#requests caption, #campaigns caption').getBoundingClientRect().right"
    assert await screen.run(caption) <= 360
