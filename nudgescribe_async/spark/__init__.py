"""Reads from and writes to the service with Spark."""
