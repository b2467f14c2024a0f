"""The templates, and how they write what they are given.

Everything that a template writes goes through :func:`_written` and is escaped then, so a hostile name is a text like
any other. Jinja2 is imported here only, with the first page that is asked for: a sandbox that nobody looks at costs
nothing, and runs without it.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nudgescribe_async.sandbox.page.masking import shortened, visible
from nudgescribe_async.sandbox.values import parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

_NAME_LIMIT = 120  # characters of a name


def render(template: str, **context: object) -> str:
    """A page, or a part of one."""
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nudgescribe_async.sandbox.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_written,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Any] = environment.filters
    filters |= {"moment": _moment, "clock": _clock, "number": _number, "short": _short, "combine": _combine}
    return environment


def _written(value: object) -> object:
    # Markup is what templates have made of escaped texts already, in macros.
    return visible(value) if isinstance(value, str) and not _is_markup(value) else value


def _is_markup(value: str | Markup) -> bool:
    return hasattr(value, "__html__")


def _moment(value: datetime | str) -> str:
    moment = parse_timestamp(value) if isinstance(value, str) else value
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _clock(value: datetime) -> str:
    return f"{value:%H:%M:%S}.{value.microsecond // 1_000:03d}"


def _number(value: float) -> str:
    return f"{value:,}"


def _short(text: str) -> str:
    return shortened(text, _NAME_LIMIT)


def _combine(query: Mapping[str, object], name: str, value: object) -> dict[str, object]:
    """What a link asks for: as it is now, but for one thing."""
    return {**query, name: value}
