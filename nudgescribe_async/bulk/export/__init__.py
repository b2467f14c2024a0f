"""All customers of a group into files: NDJSON, CSV or Parquet, on the disk or in a storage, continued after any crash.

=============  ==========================================================================================
``plan``       what was asked for, checked
``columns``    which columns there are, and what of a customer stands in which
``values``     whether a value fits its column without a loss
``text``       NDJSON and CSV
``arrow``      Parquet; the only module that knows pyarrow
``files``      files that survive a crash, and locks
``checkpoint`` where an export stands
``target``     the disk
``remote``     storages with a URL; the only module that knows fsspec
``writing``    all of that, page by page, blocking
``job``        the coroutine around it
``report``     what it says of itself
=============  ==========================================================================================
"""

from __future__ import annotations

from nudgescribe_async.bulk.export.report import ExportPart, ExportProgress, ExportReport

__all__ = ["ExportPart", "ExportProgress", "ExportReport"]
