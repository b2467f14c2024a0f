"""What must be true of the site as it was built. ``mkdocs build --strict`` fails if it is not.

- Every public name of the package, and every operation, has its place in the reference.
- Nothing is loaded from another host when a page is opened.

And one thing is put right on the way: the ``::`` of docstrings.
"""  # noqa: INP001 - mkdocs loads it by its path

from __future__ import annotations

import importlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocstrings import Inventory

import nudgescribe_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig

MODULES = ("", ".errors", ".events", ".sandbox", ".testing", ".transport")
RESOURCES = ("auth", "campaigns", "customer_groups", "customers", "messages", "profile_fields", "reruns")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|embed|object)\b[^>]*\b(?:src|data)=["']?(?:https?:)?//[^\s"'>]*"""
    r"""|<link\b(?![^>]*\brel=["']?canonical)[^>]*\bhref=["']?(?:https?:)?//[^\s"'>]*"""
    r"""|url\(["']?(?:https?:)?//[^)]*|@import\s+["'](?:https?:)?//[^"']*""",
    re.IGNORECASE,
)
EMPTY_MARK = re.compile(r"<p>::</p>\s*")
MARK = re.compile(r"::</p>(?=\s*<(?:div class=\"[^\"]*highlight|pre))")
log = logging.getLogger("mkdocs.hooks.site_checks")


def on_page_content(html: str, **_: object) -> str:
    """Take off the marks that docstrings have before a block of code, which Markdown does not know."""
    return MARK.sub(":</p>", EMPTY_MARK.sub("", html))


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of each thing that is not as it must be."""
    site = Path(config.site_dir)
    with (site / "objects.inv").open("rb") as file:
        known = set(Inventory.parse_sphinx(file))
    for names in (*_public_names(), *_operations()):
        if not known.intersection(names):
            log.warning("%s has no place in the reference", names[0])
    for page in (*site.rglob("*.html"), *site.rglob("*.css")):
        for found in LOADED.findall(page.read_text(encoding="utf-8")):
            log.warning("%s loads something from another host: %s", page.relative_to(site), found)


def _public_names() -> Iterator[tuple[str, ...]]:
    """The names under which each may be listed: that of the module which exports it, and its own."""
    for module in MODULES:
        package = importlib.import_module(f"nudgescribe_async{module}")
        for name in package.__all__:
            home = getattr(getattr(package, name), "__module__", package.__name__)
            yield f"{package.__name__}.{name}", f"{home}.{name}"


def _operations() -> Iterator[tuple[str, ...]]:
    credentials = nudgescribe_async.Credentials(api_key="k", email="someone@example.org", password="p")  # noqa: S106
    client = nudgescribe_async.Nudgescribe(credentials)
    for resource in RESOURCES:
        kind = type(getattr(client, resource))
        for name in dir(kind):
            if not name.startswith("_") and callable(getattr(kind, name)):
                yield (f"{kind.__module__}.{kind.__qualname__}.{name}",)
