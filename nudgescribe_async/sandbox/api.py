"""The HTTP face: routes, tokens, bodies, statuses, the log.

What is judged first decides the answer: the path (404), the method (405), the token, ``x-auth-context``, the body,
and only then what the operation itself has to say.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aiohttp import web

from nudgescribe_async.sandbox import answers, campaigns, customers, fields, groups, messages, reruns, tokens
from nudgescribe_async.sandbox.bodies import Form, read_form, read_json
from nudgescribe_async.sandbox.messages import CsvAnswer, LinkAnswer
from nudgescribe_async.sandbox.trouble import DOWNLOAD, Trouble, drop
from nudgescribe_async.sandbox.uploads import Upload
from nudgescribe_async.sandbox.values import LogRecord, Refusal, Visit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from nudgescribe_async.sandbox.contract import Contract, Operation
    from nudgescribe_async.sandbox.jobs import Jobs
    from nudgescribe_async.sandbox.storage import Storage
    from nudgescribe_async.sandbox.store import Database, Store
    from nudgescribe_async.sandbox.tokens import TokenOffice
    from nudgescribe_async.sandbox.values import Caller, RefusalKind, Settings

    Work = Callable[[Database, Caller, dict[str, Any]], object]
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_T = TypeVar("_T")

_logger = logging.getLogger(__name__)
# aiohttp 3.14 warns of keys that are texts, and earlier versions have no other.
_VISIT: Any = web.RequestKey("visit", Visit) if hasattr(web, "RequestKey") else "nudgescribe_sandbox.visit"
_JSON_LIMIT = 64 * 2**20  # bytes of a JSON body other than an upload
_LOG_LIMIT = 64 * 2**10  # bytes of a body that is kept in the log
_SECRET = {"email", "password", "accesstoken", "refreshtoken", "token", "apikey", "apicode", "authorization"}

_WORK: Mapping[str, Work] = {
    "customers.count_pages": customers.count_pages,
    "customers.list": customers.page,
    "customers.update": customers.update,
    "customers.delete": customers.delete,
    "customer_groups.create": groups.create,
    "customer_groups.list": groups.list_all,
    "customer_groups.update": groups.update,
    "customer_groups.delete": groups.delete,
    "profile_fields.create": fields.create,
    "profile_fields.list": fields.list_all,
    "profile_fields.update": fields.update,
    "profile_fields.delete": fields.delete,
    "campaigns.list": campaigns.list_all,
    "messages.publish": messages.publish,
    "messages.count_pages": messages.count_pages,
    "messages.fetch": messages.fetch,
    "reruns.history": reruns.history,
    "reruns.messages": reruns.messages,
    "reruns.initiate": reruns.initiate,
}
# The work of which the pages of a group can be shifted.
_SHIFTED: Mapping[str, Callable[..., object]] = {
    "customers.count_pages": customers.count_pages,
    "customers.list": customers.page,
}
# Editions 2 and 3 first, edition 1 second.
_STATUSES: Mapping[RefusalKind, tuple[int, int]] = {
    "bad_request": (400, 400),
    "missing_fields": (401, 400),
    "invalid_workspace": (401, 400),
    "unauthorised": (403, 401),
    "quota_exceeded": (402, 402),
    "payload_too_large": (413, 413),
}
_ABOUT = """The sandbox of the Nudgescribe client API: the service, embedded, for tests.

It speaks edition {edition} of the API. The contract is at /openapi.json.
Nothing here is sent anywhere, and no message reaches anybody.
"""


class Api:
    """Builds the two applications, and keeps the log of what they answered."""

    def __init__(
        self,
        *,
        contract: Contract,
        store: Store,
        office: TokenOffice,
        jobs: Jobs,
        storage: Storage,
        settings: Settings,
        log_size: int,
        fault_seed: int | None,
    ) -> None:
        self._contract = contract
        self._store = store
        self._office = office
        self._jobs = jobs
        self._settings = settings
        self.log: deque[LogRecord] = deque(maxlen=log_size)
        self._under_way: set[asyncio.Task[Any]] = set()
        self.counts: Counter[tuple[str | None, int]] = Counter()  # by operation; None is for what is none
        self.effects: Counter[str] = Counter()
        self.waiting = 0  # answers that are held back at the moment
        self._storage = storage
        operations = [
            operation
            for operation in contract.operations()
            if settings.edition == 3 or not operation.operation_id.startswith("reruns.")
        ]
        self.trouble = Trouble(
            operations=[operation.operation_id for operation in operations],
            refused_token=self._status("unauthorised"),
            hold=self._hold,
            revoke=self.revoke_tokens,
            seed=fault_seed,
        )
        self.app = self._build_app(operations)
        self.storage_app = web.Application(middlewares=[self._answer])
        self.storage_app.router.add_get("/files/{file_id}", self._download)
        self.storage_app.on_response_prepare.append(_add_request_id)

    def _build_app(self, operations: Iterable[Operation]) -> web.Application:
        app = web.Application(middlewares=[self._answer])
        app.on_response_prepare.append(_add_request_id)
        app.router.add_get("/", self._about, allow_head=False)
        app.router.add_get("/openapi.json", self._openapi, allow_head=False)
        for operation in operations:
            app.router.add_route(operation.method, operation.path, self._handler(operation))
        return app

    def _handler(self, operation: Operation) -> Handler:
        handlers: dict[str, Callable[[web.Request, Operation], Awaitable[web.StreamResponse]]] = {
            "auth.authenticate": self._authenticate,
            "auth.reauthenticate": self._reauthenticate,
            "customers.check": self._check,
        }
        chosen = handlers.get(operation.operation_id, self._operate)

        async def handle(request: web.Request) -> web.StreamResponse:
            visit: Visit = request[_VISIT]
            visit.operation = operation.operation_id

            async def work() -> web.StreamResponse:
                return await self._judge(request, lambda request: chosen(request, operation))

            return await self.trouble.befall(request, visit, operation.operation_id, work)

        return handle

    # --- what surrounds every request -------------------------------------------------------------------------

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        visit = request[_VISIT] = Visit()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - aiohttp gives each request one
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            answer = await self._judge(request, handler)
            if self._settings.latency:
                await self._hold(self._settings.latency)
        except asyncio.CancelledError:
            self._note(request, visit, 0)
            raise
        self._note(request, visit, 0 if visit.lost else answer.status)
        if visit.lost:
            drop(request)  # whoever learns of it finds it in the log
        return answer

    async def _judge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What a handler answers, refusals and failures included."""
        try:
            return await handler(request)
        except Refusal as refusal:
            return answers.error(self._status(refusal.kind), refusal.kind, refusal.message)
        except web.HTTPException as refused:
            answer = answers.error(refused.status, answers.code_of(refused.reason), refused.reason)
            if "Allow" in refused.headers:
                answer.headers["Allow"] = refused.headers["Allow"]
            return answer
        except Exception:
            _logger.exception("The sandbox failed at %s %s", request.method, request.path)
            return answers.error(500, "server_error", "Server Error")

    def _status(self, kind: RefusalKind) -> int:
        return _STATUSES[kind][self._settings.edition == 1]

    async def end(self) -> None:
        """End what still works on a request whose client has gone: nobody else does."""
        left = [*self._under_way]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _hold(self, seconds: float) -> None:
        self.waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.waiting -= 1

    def _note(self, request: web.Request, visit: Visit, status: int) -> None:
        self.counts[DOWNLOAD if visit.download else visit.operation, status] += 1
        self.log.append(
            LogRecord(
                operation=visit.operation,
                method=request.method,
                path=request.path,
                status=status,
                when=visit.when,
                seconds=time.perf_counter() - visit.start,
                request_id=visit.request_id,
                origin="api" if request.app is self.app else "storage",
                body=visit.body,
                fault="+".join(visit.faults) or None,
                effect=visit.effect,
            )
        )

    async def _change(self, request: web.Request, operation: Operation, work: Callable[[Database], _T]) -> _T:
        """Do the work in which an operation changes something, and count it."""
        writing = asyncio.ensure_future(self._store.write(work))
        try:
            result = await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The thread cannot be stopped, and the log has to know what it did.
            await asyncio.wait({writing})
            if not writing.cancelled() and writing.exception() is None:
                self._changed(request, operation)
                self._jobs.wake()
            raise
        self._changed(request, operation)
        return result

    def _changed(self, request: web.Request, operation: Operation) -> None:
        self.effects[operation.operation_id] += 1
        request[_VISIT].effect = True

    async def revoke_tokens(self, refresh_tokens: bool) -> None:
        """Refuse every access token that exists from now on, and every refresh token too if asked."""
        kinds: tuple[tokens.Kind, ...] = ("access", "refresh") if refresh_tokens else ("access",)
        moments = {kind: self._office.revoke(kind) for kind in kinds}

        def keep(db: Database) -> None:
            for kind, moment in moments.items():
                db.set_meta(f"revoked {kind}", repr(moment).encode())

        await self._store.write(keep)

    def _caller(self, request: web.Request, kind: tokens.Kind = "access") -> tuple[Caller, dict[str, Any]]:
        caller, claims = self._office.verify(request.headers.get("Authorization"), kind)
        _check_context(request)
        return caller, claims

    async def _body(self, request: web.Request, operation: Operation, limit: int) -> dict[str, Any]:
        size, body = await read_json(request, limit, self._store.call)
        request[_VISIT].body = _masked(body) if size <= _LOG_LIMIT else None
        assert operation.json_schema is not None  # noqa: S101 - every operation with a body takes JSON
        # A large body is checked on the thread; for a small one the way there costs more than the check.
        if size > _LOG_LIMIT:
            await self._store.call(self._contract.check, operation.json_schema, body)
        else:
            self._contract.check(operation.json_schema, body)
        if not size:
            raise Refusal("bad_request", "Bad Request: the body is empty, it must be a JSON object")
        return body

    # --- operations --------------------------------------------------------------------------------------------

    async def _operate(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        caller, _ = self._caller(request)
        body = await self._body(request, operation, _JSON_LIMIT)
        if operation.first_page is not None:  # behind here, pages count from 1
            body = dict(body, page=int(body["page"]) - operation.first_page + 1)
        work = _WORK[operation.operation_id]
        if operation.operation_id in _SHIFTED:
            shift = self.trouble.shift(request[_VISIT], operation.operation_id, body["customer_group_id"])
            work = partial(_SHIFTED[operation.operation_id], shift=shift)

        def perform(db: Database) -> object:
            result = work(db, caller, body)
            return result if isinstance(result, bytes | CsvAnswer | LinkAnswer) else answers.dumps(result)

        if operation.effect == "read":
            result = await self._store.read(perform)
        else:
            result = await self._change(request, operation, perform)
            self._jobs.wake()
        if isinstance(result, CsvAnswer):
            return web.Response(body=result.content, content_type="text/csv", charset="utf-8")
        if isinstance(result, LinkAnswer):
            result = answers.dumps(self._storage.sign(result.file_id))
        return answers.as_json(result)

    async def _authenticate(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        _check_context(request)
        body = await self._body(request, operation, _JSON_LIMIT)
        api_key = request.headers.get("x-api-key", "")
        return answers.as_json(answers.dumps(self._office.log_in(api_key, body["email"], body["password"])))

    async def _reauthenticate(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        caller, claims = self._caller(request, "refresh")
        if self._settings.rotate_refresh_tokens:
            await self._change(request, operation, lambda db: tokens.use_up(db, claims))
        else:
            self._changed(request, operation)
        return answers.as_json(answers.dumps(self._office.renew(caller.account_id)))

    async def _check(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        caller, _ = self._caller(request)
        limit = self._settings.max_upload_bytes
        if request.content_type != "multipart/form-data":
            body = await self._body(request, operation, limit)
            return answers.as_json(await self._upload(request, operation, caller, body, None))
        form: Form = await read_form(request, limit, self._store.call)
        try:
            request[_VISIT].body = {**form.fields, "file": f"<{form.size} bytes>"}
            assert operation.form_schema is not None  # noqa: S101 - the contract has a form here
            self._contract.check(operation.form_schema, form.fields)
            return answers.as_json(await self._upload(request, operation, caller, form.fields, form))
        finally:
            await self._store.call(form.close)

    async def _upload(
        self, request: web.Request, operation: Operation, caller: Caller, body: dict[str, Any], form: Form | None
    ) -> bytes:
        file = None if form is None else form.file
        upload = await self._store.write(lambda db: Upload(db, caller, body, file))
        try:
            while await self._store.write(upload.stage):
                pass
            receipt = await self._change(request, operation, lambda db: answers.dumps(upload.finish(db)))
        except BaseException:
            if not request[_VISIT].effect:
                await self._store.write(upload.abandon)
            raise
        self._jobs.wake()
        return receipt

    async def _download(self, request: web.Request) -> web.StreamResponse:
        visit: Visit = request[_VISIT]
        visit.download = True
        work = partial(self._judge, request, self._storage.download)
        return await self.trouble.befall(request, visit, DOWNLOAD, work)

    async def _about(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=_ABOUT.format(edition=self._settings.edition))

    async def _openapi(self, _: web.Request) -> web.StreamResponse:
        return answers.as_json(self._contract.text)


async def _add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    # aiohttp refuses some requests by itself, before the middleware sees them.
    visit: Visit | None = request.get(_VISIT)
    response.headers["x-request-id"] = uuid.uuid4().hex if visit is None else visit.request_id


def _check_context(request: web.Request) -> None:
    if "x-auth-context" not in request.headers:
        return
    try:
        context: object = json.loads(request.headers["x-auth-context"])
    except (ValueError, RecursionError):
        context = None
    if not isinstance(context, dict) or not {"api_access", "api_code"} <= set(context):  # pyright: ignore[reportUnknownArgumentType]
        raise Refusal("bad_request", "Bad Request: x-auth-context must be JSON with api_access and api_code")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        return {name: "***" if _plain(name) in _SECRET else _masked(item) for name, item in items.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
