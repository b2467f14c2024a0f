"""The routes of the page, and the way past the service to them.

What is asked here is no request to the service: it is not in the log, counts nowhere, and no fault or latency befalls
it. The root belongs to both: a browser, which accepts HTML, gets the page, everybody else what the service says.
"""

from __future__ import annotations

import logging
import re
import secrets
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aiohttp import web

from nudgescribe_async.sandbox.page import views
from nudgescribe_async.sandbox.page.forms import KINDS, FormError
from nudgescribe_async.sandbox.page.guard import HEADERS, Guard
from nudgescribe_async.sandbox.page.masking import mask, mask_own, on_one_line, shortened, ways_to_write
from nudgescribe_async.sandbox.page.record import OUTCOMES, Record, wants
from nudgescribe_async.sandbox.page.stream import Streams
from nudgescribe_async.sandbox.page.switches import Switchboard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from nudgescribe_async.sandbox.api import Api
    from nudgescribe_async.sandbox.page.record import Row
    from nudgescribe_async.sandbox.store import Store
    from nudgescribe_async.sandbox.tokens import TokenOffice
    from nudgescribe_async.sandbox.values import Settings

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    Action = Callable[[Mapping[str, str]], str]

_logger = logging.getLogger(__name__)
_PREFIX = "/_sandbox"
_STATIC = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_LIVE = {"overview.html", "group.html", "campaign.html"}  # those that follow
_LIVE_ROWS = 50  # of the log, on the overview
_LOG_ROWS = 100  # of it on its own page
_TEXT = 1_000  # characters of a value or of a message
_SAID = 500  # of what is wrong with a form
_FORM = "application/x-www-form-urlencoded"
_WITHOUT_JINJA = 'The page needs one more package: pip install "nudgescribe_async[sandbox]".\n'


class Page:
    """The page of one sandbox.

    Args:
        api: the service that it is about. Its applications are not frozen yet.
        store: the database.
        office: knows the accounts.
        settings: how the service behaves.
        host: what the sandbox listens on.
    """

    def __init__(self, *, api: Api, store: Store, office: TokenOffice, settings: Settings, host: str) -> None:
        self._api = api
        self._store = store
        self._office = office
        self._settings = settings
        self._guard = Guard(host)
        self._record = Record(api, self._secrets)
        self._board = Switchboard(api.trouble)
        self._streams = Streams(boot=secrets.token_hex(8), record=self._record, look=self._look, render=self._rows)
        self._known_secrets: list[str] = []
        self._of_accounts: set[str] = set()
        self._counts: dict[str, views.Count] = {}  # by group
        self._mount()

    # --- between the service and the page -------------------------------------------------------------------------

    def _mount(self) -> None:
        app = self._api.app
        app.middlewares.insert(0, self._pass_by)
        app.on_shutdown.append(self._end)
        add = app.router.add_get
        add(_PREFIX + "/groups/{id}", self._group)
        add(_PREFIX + "/campaigns/{id}", self._campaign)
        add(_PREFIX + "/files/{id}", self._file)
        add(_PREFIX + "/log", self._log)
        add(_PREFIX + "/static/{name}", self._static)
        add(_PREFIX + "/events", self._events, allow_head=False)
        actions: dict[str, Action] = {
            "switch": lambda form: self._board.switch(form.get("name", ""), on=form.get("on") == "yes"),
            "inject": self._board.inject,
            "remove": lambda form: self._board.remove(form.get("number", "")),
            "clear": lambda _: self._board.clear(),
        }
        for name, action in actions.items():
            app.router.add_post(f"{_PREFIX}/faults/{name}", partial(self._act, action))

    @web.middleware
    async def _pass_by(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer what is asked of the page, and let everything else go on to the service."""
        path = request.path
        if path == "/" and request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return await self._answer(request, self._overview)
        if path == _PREFIX or path.startswith(_PREFIX + "/"):
            return await self._answer(request, request.match_info.handler)
        return await handler(request)

    async def _end(self, _: web.Application) -> None:
        self._streams.end()

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._guard.check_host(request)
            self._guard.check_reader(request)
            if self._streams.ended:  # an application that others drive may outlive its sandbox
                raise web.HTTPServiceUnavailable(text="The sandbox has stopped.")
            answer = await handler(request)
        except web.HTTPException as refused:
            answer = self._refusal(refused.status, refused.reason, refused.text or "")
            if "Allow" in refused.headers:
                answer.headers["Allow"] = refused.headers["Allow"]
        except Exception:
            path = mask(on_one_line(request.path), self._secrets())
            _logger.exception("The sandbox's page failed at %s %s", request.method, path)
            answer = self._refusal(500, "The page failed", "The log of the sandbox's process says more.")
        if not answer.prepared:
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
        return answer

    def _refusal(self, status: int, reason: str, text: str) -> web.Response:
        said = "" if text == f"{status}: {reason}" else text  # what aiohttp says by itself
        return self._html("refused.html", status=status, reason=reason, said=said)

    # --- pages ----------------------------------------------------------------------------------------------------

    async def _overview(
        self, request: web.Request, *, error: str = "", entered: Mapping[str, str] | None = None
    ) -> web.Response:
        read = self._store.read
        groups = await read(lambda db: views.groups(db, _number(request, "groups")))
        counts = await self._count(groups)
        workspaces = await read(views.workspaces)
        fields = await read(views.profile_fields)
        campaigns = await read(lambda db: views.campaign_list(db, _number(request, "campaigns")))
        states = await read(views.campaign_states)
        jobs = await read(views.jobs)
        total = self._record.total  # what comes later is told by the stream
        # The script that follows has the log already, and asks for everything else.
        wants_log = "x-sandbox-without-log" not in request.headers
        answer = self._html(
            "overview.html",
            total,
            status=422 if error else 200,
            title="Overview",
            workspaces=workspaces,
            groups=groups,
            counts=counts,
            fields=fields,
            campaigns=campaigns,
            states=states,
            jobs=jobs,
            requests=self._requests(),
            log=await self._record.newest(_LIVE_ROWS, before=total + 1) if wants_log else [],
            query={name: request.query[name] for name in ("groups", "campaigns") if name in request.query},
            error=error,
            entered=entered,
            **self._faults(),
        )
        answer.headers["Vary"] = "Accept"
        return answer

    async def _count(self, groups: views.Part) -> dict[str, int]:
        """How many customers each group has. A job that only reads does not make the page count anew."""
        counts: dict[str, views.Count] = {}
        for group in groups.rows:
            group_id: str = group["customer_group_id"]
            known = self._counts.get(group_id)
            count = partial(views.customer_count, customer_group_id=group_id, known=known)
            counts[group_id] = await self._store.read(count)
        self._counts = counts
        return {group_id: count.customers for group_id, count in counts.items()}

    def _faults(self) -> dict[str, Any]:
        return {
            "switches": self._board.positions(),
            "active": self._board.active(),
            "kinds": KINDS,
            "operations": self._board.operations,
        }

    def _requests(self) -> list[dict[str, Any]]:
        """How the requests of each operation were answered, busiest first."""
        found: dict[str | None, dict[str, Any]] = {}
        for (operation, status), n in self._api.counts.items():
            row = found.setdefault(
                operation,
                {"operation": operation, "total": 0, "good": 0, "refused": 0, "failed": 0, "lost": 0, "effects": 0},
            )
            row["total"] += n
            name = "lost" if status == 0 else "failed" if status >= 500 else "refused" if status >= 400 else "good"
            row[name] += n
            row["effects"] = self._api.effects[operation] if operation else 0
        return sorted(found.values(), key=lambda row: -int(row["total"]))

    async def _group(self, request: web.Request) -> web.Response:
        group = await self._store.read(lambda db: views.group(db, request.match_info["id"]))
        if group is None:
            raise web.HTTPNotFound(text="There is no such customer group: it may have been deleted.")
        customers = await self._store.read(lambda db: views.customers(db, group, _number(request, "page"), self._short))
        return self._html("group.html", title=group["group_name"], group=group, customers=customers)

    async def _campaign(self, request: web.Request) -> web.Response:
        campaign = await self._store.read(lambda db: views.campaign(db, request.match_info["id"]))
        if campaign is None:
            raise web.HTTPNotFound(text="There is no such campaign.")
        campaign_id: str = campaign["campaign_id"]
        run = _number(request, "run") if "run" in request.query else None
        listed = partial(views.message_list, campaign=campaign, short=self._short, run_number=run)
        read = self._store.read
        return self._html(
            "campaign.html",
            title=campaign["campaign_name"],
            campaign=campaign,
            run=run,
            runs=await read(lambda db: views.runs(db, campaign_id)),
            active=await read(lambda db: listed(db, archived=False, number=_number(request, "active"))),
            archived=await read(lambda db: listed(db, archived=True, number=_number(request, "archived"))),
            files=await read(lambda db: views.files(db, campaign_id, _number(request, "files"))),
            query={
                name: request.query[name] for name in ("run", "active", "archived", "files") if name in request.query
            },
        )

    async def _file(self, request: web.Request) -> web.Response:
        number = _number(request, "page")
        file = await self._store.read(lambda db: views.file(db, request.match_info["id"], number, self._short))
        if file is None:
            raise web.HTTPNotFound(text="There is no such file.")
        return self._html("file.html", title=f"File {file.page} of {file.campaign_name}", file=file)

    async def _log(self, request: web.Request) -> web.Response:
        operation = request.query.get("operation") or None
        outcome = request.query.get("outcome") or None
        before = _number(request, "before") if "before" in request.query else None
        rows = await self._record.search(_LOG_ROWS, wants(operation, outcome), before=before)
        return self._html(
            "log.html",
            title="Log of requests",
            log=rows,
            kept=len(self._api.log),
            operation=operation,
            outcome=outcome,
            before=before,
            outcomes=OUTCOMES,
            operations=self._board.operations,
            more=len(rows) == _LOG_ROWS,
        )

    # --- the rest -------------------------------------------------------------------------------------------------

    async def _act(self, action: Action, request: web.Request) -> web.Response:
        self._guard.check_origin(request)  # before anything of it is read
        form = await _form(request)
        self._guard.check_action(request, form)
        try:
            action(form)
        except FormError as error:
            return await self._overview(request, error=shortened(self._own(str(error)), _SAID), entered=form)
        return web.Response(status=303, headers={"Location": "/#faults"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self._guard.check_origin(request)
        return await self._streams.follow(request, HEADERS)

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in _STATIC:
            raise web.HTTPNotFound
        return web.Response(body=_content(name), content_type=_STATIC[name], charset="utf-8")

    def _html(self, template: str, total: int | None = None, *, status: int = 200, **context: object) -> web.Response:
        total = self._record.total if total is None else total
        try:
            from nudgescribe_async.sandbox.page.looks import render  # noqa: PLC0415 - see there
        except ImportError:
            return web.Response(status=501, text=_WITHOUT_JINJA)
        text = render(
            template,
            self._secrets(),
            **{"title": context.get("reason"), "live": template in _LIVE, "here": template} | context,
            edition=self._settings.edition,
            total=total,
            position=self._streams.id_of(total),
            token=self._guard.token,
        )
        return web.Response(status=status, text=text, content_type="text/html")

    async def _look(self) -> object:
        return await self._store.read(views.changes), self._board.state(), self._record.total

    # --- secrets --------------------------------------------------------------------------------------------------

    def _secrets(self) -> Collection[str]:
        """All that must not be shown, longest first: one may be a part of another."""
        accounts = self._office.accounts
        if accounts.keys() != self._of_accounts:
            texts = [
                text
                for account in accounts.values()
                for secret in (account.api_key, account.password, account.email)
                for text in ways_to_write(secret)
            ]
            self._known_secrets, self._of_accounts = sorted(texts, key=len, reverse=True), {*accounts}
        return self._known_secrets

    def _own(self, text: str) -> str:
        return mask_own(text, self._secrets())

    def _short(self, text: str) -> str:
        return shortened(self._own(text), _TEXT)

    def _rows(self, rows: Sequence[Row]) -> str:
        from nudgescribe_async.sandbox.page.looks import render  # noqa: PLC0415 - see there

        return render("rows.html", self._secrets(), log=rows)


async def _form(request: web.Request) -> dict[str, str]:
    """What a form of the page has sent; nothing if it is of another type than those, which is not read."""
    if request.content_type != _FORM:
        return {}
    try:
        return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    except (ValueError, LookupError):
        raise web.HTTPBadRequest(text="The form is not text in the encoding that it names.") from None


@cache
def _content(name: str) -> bytes:
    return files("nudgescribe_async.sandbox.page").joinpath("static", name).read_bytes()


def _number(request: web.Request, name: str) -> int:
    """A number in the query, from 1 on; 1 if there is none."""
    text = request.query.get(name, "")
    return max(int(text), 1) if re.fullmatch(r"[0-9]{1,9}", text) else 1
