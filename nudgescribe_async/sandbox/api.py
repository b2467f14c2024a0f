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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from nudgescribe_async.sandbox import campaigns, customers, fields, groups, messages, reruns, tokens
from nudgescribe_async.sandbox.bodies import Form, read_form, read_json
from nudgescribe_async.sandbox.messages import CsvAnswer, LinkAnswer
from nudgescribe_async.sandbox.uploads import Upload
from nudgescribe_async.sandbox.values import LogRecord, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nudgescribe_async.sandbox.contract import Contract, Operation
    from nudgescribe_async.sandbox.jobs import Jobs
    from nudgescribe_async.sandbox.storage import Storage
    from nudgescribe_async.sandbox.store import Database, Store
    from nudgescribe_async.sandbox.tokens import TokenOffice
    from nudgescribe_async.sandbox.values import Caller, RefusalKind, Settings

    Work = Callable[[Database, Caller, dict[str, Any]], object]
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_logger = logging.getLogger(__name__)
# aiohttp 3.14 warns of keys that are texts, and earlier versions have no other.
_RECORD: Any = web.RequestKey("record", dict[str, Any]) if hasattr(web, "RequestKey") else "nudgescribe_sandbox.record"
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
    ) -> None:
        self._contract = contract
        self._store = store
        self._office = office
        self._jobs = jobs
        self._settings = settings
        self.log: deque[LogRecord] = deque(maxlen=log_size)
        self.counts: Counter[tuple[str | None, int]] = Counter()
        self.effects: Counter[str] = Counter()
        self.waiting = 0  # answers that are held back at the moment
        self.app = self._build_app()
        self.storage_app = web.Application(middlewares=[self._answer])
        self.storage_app.router.add_get("/files/{file_id}", storage.download)
        self.storage_app.on_response_prepare.append(_add_request_id)
        self._storage = storage

    def _build_app(self) -> web.Application:
        app = web.Application(middlewares=[self._answer])
        app.on_response_prepare.append(_add_request_id)
        app.router.add_get("/", self._about, allow_head=False)
        app.router.add_get("/openapi.json", self._openapi, allow_head=False)
        for operation in self._contract.operations():
            if self._settings.edition < 3 and operation.operation_id.startswith("reruns."):
                continue
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
            request[_RECORD]["operation"] = operation.operation_id
            return await chosen(request, operation)

        return handle

    # --- what surrounds every request -------------------------------------------------------------------------

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        record: dict[str, Any] = {"operation": None, "request_id": uuid.uuid4().hex, "when": datetime.now(UTC)}
        request[_RECORD] = record
        start = time.perf_counter()
        answer: web.StreamResponse
        try:
            answer = await handler(request)
        except Refusal as refusal:
            status = _STATUSES[refusal.kind][self._settings.edition == 1]
            answer = _error(status, refusal.kind, refusal.message)
        except web.HTTPException as refused:
            answer = _error(refused.status, refused.reason.lower().replace(" ", "_"), refused.reason)
            if "Allow" in refused.headers:
                answer.headers["Allow"] = refused.headers["Allow"]
        except Exception:
            _logger.exception("The sandbox failed at %s %s", request.method, request.path)
            answer = _error(500, "server_error", "Server Error")
        if self._settings.latency:
            self.waiting += 1
            try:
                await asyncio.sleep(self._settings.latency)
            finally:
                self.waiting -= 1
        self.counts[record["operation"], answer.status] += 1
        self.log.append(
            LogRecord(
                operation=record["operation"],
                method=request.method,
                path=request.path,
                status=answer.status,
                when=record["when"],
                seconds=time.perf_counter() - start,
                request_id=record["request_id"],
                origin="api" if request.app is self.app else "storage",
                body=record.get("body"),
            )
        )
        return answer

    def _caller(self, request: web.Request, kind: tokens.Kind = "access") -> tuple[Caller, dict[str, Any]]:
        caller, claims = self._office.verify(request.headers.get("Authorization"), kind)
        _check_context(request)
        return caller, claims

    async def _body(self, request: web.Request, operation: Operation, limit: int) -> dict[str, Any]:
        size, body = await read_json(request, limit, self._store.call)
        request[_RECORD]["body"] = _masked(body) if size <= _LOG_LIMIT else None
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
        work = _WORK[operation.operation_id]

        def perform(db: Database) -> object:
            result = work(db, caller, body)
            return result if isinstance(result, bytes | CsvAnswer | LinkAnswer) else _dumps(result)

        if operation.effect == "read":
            result = await self._store.read(perform)
        else:
            result = await self._store.write(perform)
            self.effects[operation.operation_id] += 1
            self._jobs.wake()
        if isinstance(result, CsvAnswer):
            return web.Response(body=result.content, content_type="text/csv", charset="utf-8")
        if isinstance(result, LinkAnswer):
            result = _dumps(self._storage.sign(result.file_id))
        return _json(result)

    async def _authenticate(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        _check_context(request)
        body = await self._body(request, operation, _JSON_LIMIT)
        api_key = request.headers.get("x-api-key", "")
        return _json(_dumps(self._office.log_in(api_key, body["email"], body["password"])))

    async def _reauthenticate(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        caller, claims = self._caller(request, "refresh")
        if self._settings.rotate_refresh_tokens:
            await self._store.write(lambda db: tokens.use_up(db, claims))
        self.effects[operation.operation_id] += 1
        return _json(_dumps(self._office.renew(caller.account_id)))

    async def _check(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        caller, _ = self._caller(request)
        limit = self._settings.max_upload_bytes
        if request.content_type != "multipart/form-data":
            body = await self._body(request, operation, limit)
            return _json(await self._upload(operation, caller, body, None))
        form: Form = await read_form(request, limit, self._store.call)
        try:
            request[_RECORD]["body"] = {**form.fields, "file": f"<{form.size} bytes>"}
            assert operation.form_schema is not None  # noqa: S101 - the contract has a form here
            self._contract.check(operation.form_schema, form.fields)
            return _json(await self._upload(operation, caller, form.fields, form))
        finally:
            await self._store.call(form.close)

    async def _upload(self, operation: Operation, caller: Caller, body: dict[str, Any], form: Form | None) -> bytes:
        file = None if form is None else form.file
        upload = await self._store.write(lambda db: Upload(db, caller, body, file))
        try:
            while await self._store.write(upload.stage):
                pass
            receipt = await self._store.write(lambda db: _dumps(upload.finish(db)))
        except BaseException:
            await self._store.write(upload.abandon)
            raise
        self.effects[operation.operation_id] += 1
        self._jobs.wake()
        return receipt

    async def _about(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=_ABOUT.format(edition=self._settings.edition))

    async def _openapi(self, _: web.Request) -> web.StreamResponse:
        return _json(self._contract.text)


async def _add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    # aiohttp refuses some requests by itself, before the middleware sees them.
    record = request.get(_RECORD)
    response.headers["x-request-id"] = uuid.uuid4().hex if record is None else record["request_id"]


def _check_context(request: web.Request) -> None:
    if "x-auth-context" not in request.headers:
        return
    try:
        context: object = json.loads(request.headers["x-auth-context"])
    except (ValueError, RecursionError):
        context = None
    if not isinstance(context, dict) or not {"api_access", "api_code"} <= set(context):  # pyright: ignore[reportUnknownArgumentType]
        raise Refusal("bad_request", "Bad Request: x-auth-context must be JSON with api_access and api_code")


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _json(body: object) -> web.Response:
    assert isinstance(body, bytes)  # noqa: S101 - serialised on the thread already
    return web.Response(body=body, content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    body = _dumps({"success": False, "message": message, "code": code})
    return web.Response(status=status, body=body, content_type="application/json")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        return {name: "***" if _plain(name) in _SECRET else _masked(item) for name, item in items.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
