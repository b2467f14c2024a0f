"""The client that openapi-python-client generates from the contract of this package.

It parses an answer where it is fetched, and leaves timestamps as text. Its users pass options on to httpx.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import httpx

from suite.contender import GROUP, TOKEN, Windowed


def generate(folder: Path) -> None:
    """Write the package ``generated_client`` into a folder."""
    from openapi_python_client import generate as generate_client
    from openapi_python_client.config import Config, ConfigFile, MetaType

    with as_file(files("nudgescribe_async") / "contract" / "openapi.yaml") as contract:
        config = Config.from_sources(
            config_file=ConfigFile(post_hooks=[], package_name_override="generated_client"),
            meta_type=MetaType.NONE,
            document_source=contract,
            file_encoding="utf-8",
            overwrite=True,
            output_path=folder / "generated_client",
        )
        with contextlib.redirect_stdout(io.StringIO()):
            errors = generate_client(config=config)
    if any(error.level.name == "ERROR" for error in errors):
        raise RuntimeError(f"openapi-python-client failed: {errors}")


class Contender(Windowed):
    """One client, kept."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._folder = tempfile.TemporaryDirectory()
        generate(Path(self._folder.name))
        sys.path.insert(0, self._folder.name)
        client = importlib.import_module("generated_client.client")
        models = importlib.import_module("generated_client.models")
        self._list = importlib.import_module("generated_client.api.customers.customers_list")
        self._count = importlib.import_module("generated_client.api.customers.customers_count_pages")
        self._page_request = models.ListCustomersBody
        self._count_request = models.CountCustomerPagesBody
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=300)
        self._client = client.AuthenticatedClient(
            base_url=url, token=TOKEN, httpx_args={"limits": limits, "trust_env": False}
        )

    async def aclose(self) -> None:
        await self._client.get_async_httpx_client().aclose()
        self._folder.cleanup()

    async def count(self) -> int:
        answer = await self._count.asyncio(client=self._client, body=self._count_request(**GROUP))
        return int(answer.pages)

    async def fetch(self, page: int) -> Any:
        return await self._list.asyncio(client=self._client, body=self._page_request(**GROUP, page=page))

    def decode(self, body: Any) -> list[Any]:
        return body  # type: ignore[no-any-return]  # it is decoded already
