"""Who may be measured, by name."""

from __future__ import annotations

from attrs import frozen

__all__ = ["ENTRANTS", "Entrant"]


@frozen(kw_only=True)
class Entrant:
    """A contender as it is started.

    Attributes:
        name: by which it is asked for.
        title: in tables.
        module: in ``suite.contenders``.
        without_speed: whether the packages of the extra ``speed`` are hidden from it.
        uvloop: whether it runs on uvloop; on the plain event loop of asyncio otherwise.
        packages: whose versions matter.
    """

    name: str
    title: str
    module: str
    without_speed: bool = False
    uvloop: bool = False
    packages: tuple[str, ...] = ()


ENTRANTS = {
    entrant.name: entrant
    for entrant in (
        Entrant(name="floor", title="aiohttp + orjson (the floor)", module="floor", packages=("aiohttp", "orjson")),
        Entrant(
            name="ours",
            title="nudgescribe_async[speed]",
            module="ours",
            packages=("nudgescribe_async", "aiohttp", "attrs", "cattrs", "backoff", "msgspec"),
        ),
        Entrant(name="plain", title="nudgescribe_async", module="ours", without_speed=True),
        Entrant(
            name="pyreqwest",
            title="pyreqwest + msgspec",
            module="pyreqwest_msgspec",
            packages=("pyreqwest", "msgspec"),
        ),
        Entrant(
            name="httpx", title="httpx + pydantic", module="httpx_pydantic", packages=("httpx", "pydantic", "sniffio")
        ),
        Entrant(
            name="generated",
            title="openapi-python-client",
            module="generated",
            packages=("openapi-python-client", "httpx"),
        ),
        Entrant(
            name="requests",
            title="requests in 16 threads + pydantic",
            module="requests_threads",
            packages=("requests", "pydantic"),
        ),
        Entrant(
            name="niquests", title="niquests + pydantic", module="niquests_pydantic", packages=("niquests", "pydantic")
        ),
        Entrant(
            name="floor-uvloop",
            title="aiohttp + orjson, on uvloop",
            module="floor",
            uvloop=True,
            packages=("uvloop",),
        ),
        Entrant(name="ours-uvloop", title="nudgescribe_async[speed], on uvloop", module="ours", uvloop=True),
        Entrant(
            name="ours-pyreqwest",
            title="nudgescribe_async[speed,pyreqwest]",
            module="ours_pyreqwest",
            packages=("pyreqwest",),
        ),
        Entrant(
            name="ours-httpx",
            title="nudgescribe_async[speed,httpx]",
            module="ours_httpx",
            packages=("httpx", "httpcore"),
        ),
        Entrant(
            name="ours-pyreqwest-uvloop",
            title="nudgescribe_async[speed,pyreqwest], on uvloop",
            module="ours_pyreqwest",
            uvloop=True,
        ),
        Entrant(name="layers", title="layers", module="layers"),
        Entrant(name="parts", title="parts", module="parts"),
        Entrant(name="starting", title="the first call", module="starting"),
        Entrant(name="decoding", title="decoding", module="decoding"),
        Entrant(name="decoding-plain", title="decoding without speed", module="decoding", without_speed=True),
    )
}
