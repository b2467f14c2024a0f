"""The manifest while it changes: written after each change, and once for many that come together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from attrs import evolve

from nudgescribe_async.threads import in_thread

if TYPE_CHECKING:
    from nudgescribe_async.bulk.download.folder import Folder
    from nudgescribe_async.bulk.download.manifest import Checkpoint, FinishedPage, Manifest

__all__ = ["Journal"]


class Journal:
    """Notes what is finished, and how far the rest is. Whoever awaits a note knows that it is on disk.

    Before it has begun, parts are noted in a draft: the manifest of what was there before stands until a page is to
    take its place.

    Args:
        folder: keeps it.
        manifest: what is noted so far.
        begun: whether that is on disk already.

    Raises (while noting):
        OSError: it cannot be written. What was noted before stands.
    """

    def __init__(self, folder: Folder, manifest: Manifest, *, begun: bool) -> None:
        self._folder = folder
        self._manifest = manifest
        self.finished = dict(manifest.finished)
        self.unfinished = dict(manifest.unfinished)
        self._writing = asyncio.Lock()
        self._noted = self._written = 0
        self._begun = begun

    async def begin(self) -> None:
        """A page is to take its place: return once the manifest no longer says that anything else is here."""
        if self._begun:
            return
        async with self._writing:
            if not self._begun:  # else somebody has done it meanwhile
                await in_thread(self._folder.write_manifest, self._manifest_now())
                self._begun = True

    async def finish(self, page: int, entry: FinishedPage) -> None:
        """A page is in its place."""
        self.finished[page] = entry
        self.unfinished.pop(page, None)
        await self._write()

    async def reopen(self, page: int) -> None:
        """A page is not what it was, and comes again: until then not all is here."""
        if self.finished.pop(page, None) is not None:
            self._manifest = evolve(self._manifest, complete=False)
            await self._write()

    async def forget(self) -> None:
        """Nobody knows what belongs together: all comes again. What stands from before it has begun is left as it is."""
        self.finished.clear()
        self.unfinished.clear()
        self._manifest = evolve(self._manifest, complete=False)
        await self._write()

    async def keep(self, page: int, checkpoint: Checkpoint) -> None:
        """A page has come so far."""
        if self.unfinished.get(page) != checkpoint:
            self.unfinished[page] = checkpoint
            await self._write()

    async def complete(self) -> None:
        """All is here."""
        self._manifest = evolve(self._manifest, complete=True)
        await self._write()

    async def _write(self) -> None:
        self._noted += 1
        wanted = self._noted
        async with self._writing:
            if self._written >= wanted:
                return  # somebody who came later has written it too
            noted = self._noted
            write = self._folder.write_manifest if self._begun else self._folder.write_draft
            await in_thread(write, self._manifest_now())
            self._written = noted

    def _manifest_now(self) -> Manifest:
        return evolve(self._manifest, finished=dict(self.finished), unfinished=dict(self.unfinished))
