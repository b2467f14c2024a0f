"""Looks where the service differs from the contract, and what it confirms. See ``docs/contract-doctor.md``.

``examine()`` logs in, makes harmless reads, and gives a ``ContractReport``: shapes only, no data of anybody. Sessions
can be recorded and replayed, every value replaced.
"""

from nudgescribe_async.contract_doctor.examination import examine, examine_recording
from nudgescribe_async.contract_doctor.recording import NotRecordedError, RecordingTransport, ReplayingTransport
from nudgescribe_async.contract_doctor.report import Asked, Assumption, ContractReport, Difference, FieldShape, Finding

__all__ = [
    "Asked",
    "Assumption",
    "ContractReport",
    "Difference",
    "FieldShape",
    "Finding",
    "NotRecordedError",
    "RecordingTransport",
    "ReplayingTransport",
    "examine",
    "examine_recording",
]
