"""Message files into a directory, each whole and checked, and continued where an earlier call broke off."""

from nudgescribe_async.bulk.download.report import DownloadedFile, DownloadReport

__all__ = ["DownloadReport", "DownloadedFile"]
