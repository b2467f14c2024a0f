"""The templates, and how they write what they are given.

Everything that a template writes goes through :func:`_written` and is escaped then, so a hostile name is a text like
any other, and a secret of this sandbox is masked wherever it comes from. Jinja2 is imported here only, with the first page that is asked for: a sandbox that nobody looks at costs
nothing, and runs without it.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context

from nudgescribe_async.sandbox.page.masking import mask_own, shortened, visible
from nudgescribe_async.sandbox.values import parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jinja2.runtime import Context
    from markupsafe import Markup

_NAME_LIMIT = 120  # characters of a name


def render(template: str, secrets: Collection[str], **context: object) -> str:
    """A page, or a part of one, without these secrets."""
    return _environment().get_template(template).render(context, secrets=secrets)


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


@pass_context
def _written(context: Context, value: object) -> object:
    # Markup is what templates have made of escaped texts already, in macros.
    if not isinstance(value, str) or _is_markup(value):
        return value
    return visible(mask_own(value, context["secrets"]))


def _is_markup(value: str | Markup) -> bool:
    return hasattr(value, "__html__")


def _moment(value: datetime | str) -> str:
    moment = parse_timestamp(value) if isinstance(value, str) else value
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _clock(value: datetime) -> str:
    return f"{value:%H:%M:%S}.{value.microsecond // 1_000:03d}"


def _number(value: float) -> str:
    return f"{value:,}"


@pass_context
def _short(context: Context, text: str) -> str:
    return shortened(mask_own(text, context["secrets"]), _NAME_LIMIT)  # in this order: half a secret is not found


def _combine(query: Mapping[str, object], name: str, value: object) -> dict[str, object]:
    """What a link asks for: as it is now, but for one thing."""
    return {**query, name: value}
