"""The sandbox's page: what a browser shows at the sandbox's address. See ``docs/sandbox-page.md``.

============  =======================================================================================
``site``      the routes, and the way past the service: what is asked here is no request of the log
``guard``     who may ask: the names of this host, and of actions only those of the page's own forms
``views``     what is read from the database: small pages of it, each a short piece of work
``record``    the log as it is shown: numbered, shortened
``masking``   what is never shown
``switches``  faults that are switched on and off by a click
``forms``     faults that are made with a form
``stream``    server-sent events: what has been logged, and that something has changed
``looks``     the templates
============  =======================================================================================

There is no state of its own but which faults were switched on here, and no task: a browser that follows is a request
like any other, and ends with the sandbox.
"""

from nudgescribe_async.sandbox.page.site import Page

__all__ = ["Page"]
