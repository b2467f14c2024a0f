"""Looks where the service differs from the contract."""
