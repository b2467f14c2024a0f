"""The operations of the contract, one module per resource.

Generated from ``contract/openapi.yaml`` by ``nox -s generate``: do not edit.
"""
