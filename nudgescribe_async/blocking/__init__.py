"""The client for those who do not await: scripts, notebooks, threads, Spark drivers.

::

    from nudgescribe_async import blocking

    with blocking.Nudgescribe.from_env() as ns:
        for customer in ns.customers.iter(customer_group_id):
            ...

Everything is done by the async client, in an event loop in a thread of its own; what stands here waits for it. So all
that is said of the async client holds: what is retried, what a cancelled call leaves, who continues what. In short:

==========================================  ============================================================================
what happens                                then
==========================================  ============================================================================
several threads call at once                their calls run side by side in the one event loop
Ctrl-C while a call waits                   it is cancelled and waited for, then ``KeyboardInterrupt`` is raised, whose
                                            ``__cause__`` is what the call raised: with its notes, and its report
Ctrl-C while rows to upload come of a call  that call is cancelled with it
Ctrl-C again                                it is cancelled once more, which cuts short its grace
Ctrl-C a third time                         nobody waits any more
a loop over an iterator is left             what is in flight is cancelled
``close()``                                 as ``aclose()``; then the thread is ended
the client is forgotten                     ``ResourceWarning``; the thread closes it
the interpreter exits                       as if forgotten; it is waited for, ten seconds at most
a call after ``close()``                    ``ClientClosedError``
a call in the thread of the loop            ``ConfigurationError``, since it would wait for itself
``close()`` in what a call waits for        ``ConfigurationError`` too; such as in an iterator that an upload reads from
a call in a coroutine of another loop       it works, as in a notebook, but holds that loop up: ``RuntimeWarning``
a call in a forked process                  ``ConfigurationError``; a client that was not used before may be used there
an attempt to pickle it                     ``TypeError``
==========================================  ============================================================================

Context variables are those of the caller. The event loop is uvloop's, where that is installed (extra ``speed``).

Do not use it in services that have an event loop: await ``nudgescribe_async.Nudgescribe`` there.
"""

from nudgescribe_async.blocking.client import Nudgescribe
from nudgescribe_async.blocking.pages import PageIterator

__all__ = ["Nudgescribe", "PageIterator"]
