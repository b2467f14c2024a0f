"""The engines of jobs, which importing the package and building a client do not load.

Most services never start a job. One that does loads its engine with the first, in a thread: reading and running its
modules takes 10 to 40 ms, for which no other call shall wait.
"""

from __future__ import annotations

import sys
from importlib import import_module

from nudgescribe_async.threads import in_own_thread

__all__ = ["load_engine"]


async def load_engine(*modules: str) -> None:
    """Load modules off the event loop, those that are not loaded yet. To ``import`` from them costs nothing afterwards.

    Callers that arrive while one is being loaded wait for it as well, in threads of their own. Cancelling waits for its end.
    """
    for module in modules:
        parent, _, name = module.rpartition(".")
        # The parent has the module as an attribute when it is loaded to its end; sys.modules has it before.
        if not hasattr(sys.modules.get(parent), name):
            await in_own_thread(import_module, module)
