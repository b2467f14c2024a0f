"""Customers from any table into a group, checked on the way, with an account of every row."""

from __future__ import annotations

from nudgescribe_async.bulk.upload.report import RowProblem, UploadChunk, UploadReport
from nudgescribe_async.bulk.upload.sources import UploadSource

__all__ = ["RowProblem", "UploadChunk", "UploadReport", "UploadSource"]
