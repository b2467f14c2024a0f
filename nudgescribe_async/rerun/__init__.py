"""Many campaigns run again, each exactly once: planned, checked, started, watched, published, fetched, reported."""

from nudgescribe_async.rerun.item import RerunStep
from nudgescribe_async.rerun.plan import RerunPlan, RerunRequest
from nudgescribe_async.rerun.report import RerunOutcome, RerunReport

__all__ = ["RerunOutcome", "RerunPlan", "RerunReport", "RerunRequest", "RerunStep"]
