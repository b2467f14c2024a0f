"""The contract: ``openapi.yaml``, what is generated from it, and the generator.

``openapi.yaml`` is edited by hand, and says of each operation and each property how well it is
known. ``python -m nudgescribe_async.contract`` (or ``nox -s generate``) writes from it ``openapi.json``
(the same, for programs without a YAML reader), the modules in ``nudgescribe_async/endpoints`` and the
page ``docs/operations.md``. It needs the extra ``contract``.
"""
