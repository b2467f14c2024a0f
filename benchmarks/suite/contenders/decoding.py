"""Decoding alone: bytes that are here, to objects."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pkgutil import iter_modules
from types import NoneType
from typing import Any, get_args, get_origin

import attrs
from server import page_body

from nudgescribe_async import endpoints
from nudgescribe_async.codec import Codec
from nudgescribe_async.endpoint import Endpoint
from nudgescribe_async.endpoints.customers import LIST
from suite.contender import Base

TEXT = "9a3d6a55-1f0b-4d39-8d3f-0a6f2f1a7c22"
MOMENT = "2026-01-29T13:09:11.123Z"


def sample(kind: Any) -> Any:
    """A value as it comes in JSON, for a type of the contract."""
    values = {str: TEXT, int: 48_213, bool: True, datetime: MOMENT}
    if kind in values:
        return values[kind]
    if get_origin(kind) is list:
        return [sample(get_args(kind)[0])]
    if get_origin(kind) is dict:
        return {"alg": "A256GCM", "kid": "k1"}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return next(iter(kind)).value
    if attrs.has(kind):
        attrs.resolve_types(kind)
        return {field.name: sample(field.type) for field in attrs.fields(kind) if field.name != "extra"}
    return sample(next(argument for argument in get_args(kind) if argument is not NoneType))


def answers() -> dict[str, tuple[Endpoint[Any], bytes]]:
    """By type of answer: an operation that has it, and a sample."""
    found: dict[str, tuple[Endpoint[Any], bytes]] = {}
    for module in iter_modules(endpoints.__path__, "nudgescribe_async.endpoints."):
        for endpoint in vars(importlib.import_module(module.name)).values():
            if isinstance(endpoint, Endpoint) and endpoint.answer not in (str, None):
                name = getattr(endpoint.answer, "__name__", str(endpoint.answer))
                name = name if get_origin(endpoint.answer) is None else f"list[{get_args(endpoint.answer)[0].__name__}]"
                value = sample(endpoint.answer)
                if endpoint.unwrap and not isinstance(value, list):
                    value = {endpoint.unwrap[0]: value}
                found.setdefault(name, (endpoint, json.dumps(value, separators=(",", ":")).encode()))
    return dict(sorted(found.items()))


class Contender(Base):
    """Each way gives back the seconds of CPU of one decoding."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._codec = Codec()
        self._answers = answers()

    def _decoder(self, how: str, endpoint: Endpoint[Any], body: bytes) -> Callable[[], object]:
        if how == "ours":
            return lambda: self._codec.decode(endpoint, body)
        loads: Callable[[bytes], object] = importlib.import_module(how).loads
        return lambda: loads(body)

    async def names(self) -> list[str]:
        return [*self._answers]

    async def page(self, *, how: str, records: int, times: int, readable: bool = False) -> float:
        body = page_body(records, readable=readable, page=b"00000001")
        return _seconds(self._decoder(how, LIST, body), times)

    async def model(self, *, how: str, name: str, times: int) -> float:
        return _seconds(self._decoder(how, *self._answers[name]), times)


def _seconds(decode: Callable[[], object], times: int) -> float:
    decode()
    started = time.process_time()
    for _ in range(times):
        decode()
    return (time.process_time() - started) / times
