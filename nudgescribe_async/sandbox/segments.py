"""Segments: which message a customer gets.

``segment_by`` maps profile fields to how they divide customers. ``None`` makes a segment of every value. A sequence
of numbers makes bins: ``{"purchases": [2, 5]}`` gives "below 2", "2 to below 5" and "5 and above". Customers without
a value are a segment of their own, "none". Several fields divide together; no field at all makes one segment of all.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import TYPE_CHECKING

from nudgescribe_async.sandbox.values import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nudgescribe_async.sandbox.profiles import Key
    from nudgescribe_async.sandbox.store import Database
    from nudgescribe_async.sandbox.validation import Field, Value

SegmentBy = dict[str, list[float] | None]
Segment = dict[str, str]


def normalise(segment_by: Mapping[str, Sequence[float] | None], known: Mapping[str, Field]) -> SegmentBy:
    """Check a way of dividing against the fields of the workspace."""
    result: SegmentBy = {}
    for name, edges in segment_by.items():
        if name not in known:
            raise SandboxError(f"segment_by names {name!r}, and the workspace has no such profile field.")
        if edges is not None:
            if known[name].type not in {"number", "currency"}:
                raise SandboxError(f"segment_by bins {name!r}, and only number and currency fields have bins.")
            if not edges:
                raise SandboxError(f"segment_by gives no edges for the bins of {name!r}.")
        result[name] = None if edges is None else sorted(set(edges))
    return result


def segment_of(segment_by: SegmentBy, profile: Mapping[str, Value]) -> Segment:
    """The segment of one customer."""
    segment: Segment = {}
    for name, edges in segment_by.items():
        if name not in profile:
            segment[name] = "none"
        elif edges is None:
            segment[name] = str(profile[name])
        else:
            segment[name] = _bin(edges, float(profile[name]))
    return segment


def _bin(edges: list[float], value: float) -> str:
    place = bisect_right(edges, value)
    if place == 0:
        return f"below {edges[0]:g}"
    if place == len(edges):
        return f"{edges[-1]:g} and above"
    return f"{edges[place - 1]:g} to below {edges[place]:g}"


def label(segment: Segment) -> str:
    """A segment in one line."""
    return ", ".join(f"{name}: {value}" for name, value in segment.items()) or "everyone"


def segment_key(key: Key, segment: Segment) -> str:
    """What tells whether two segments are the same, without giving away the values in it."""
    return key.blind(json.dumps(segment, sort_keys=True))


def of_group(db: Database, account_id: str, customer_group_id: str, segment_by: SegmentBy) -> dict[str, Segment]:
    """The segments that the customers of a group fall into, by key, in the order of their first customer."""
    key = db.key(account_id)
    found: dict[tuple[str, ...], Segment] = {}
    query = "SELECT customer_id, profile FROM customers WHERE customer_group_id = ? ORDER BY seq"
    for row in db.all(query, customer_group_id):
        segment = segment_of(segment_by, key.open_profile(row["customer_id"], row["profile"]))
        found.setdefault(tuple(segment.values()), segment)
    return {segment_key(key, segment): segment for segment in found.values()}
