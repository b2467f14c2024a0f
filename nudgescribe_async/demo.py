"""``python -m nudgescribe_async.demo``: the whole product once, on real customers, checked row for row.

Starts the sandbox on loopback with a database in a file, and does what an integration does: profile
fields, groups, uploads, paging everything back, an export, publishing, downloading messages, and a rerun
for another group with its journal. Needs the extra ``sandbox``. Exits with 1 if a single row differs.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from nudgescribe_async.client import Nudgescribe
from nudgescribe_async.endpoints.models import CampaignStatus
from nudgescribe_async.profiles import AesGcmProfiles
from nudgescribe_async.rerun import RerunRequest
from nudgescribe_async.sandbox import Sandbox, sample_csv, sample_customers
from nudgescribe_async.sandbox.examples import SAMPLE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nudgescribe_async.endpoints.models import Campaign, Customer
    from nudgescribe_async.rerun import RerunOutcome, RerunReport

__all__ = ["DifferenceError", "Report", "compare", "run"]

CONCURRENCY = 8

Row = dict[str, str]


class DifferenceError(Exception):
    """What came back is not what went up."""


def compare(what: str, sent: Sequence[Mapping[str, object]], received: Sequence[Mapping[str, object]]) -> None:
    """Check two tables row for row and cell for cell.

    Raises:
        DifferenceError: they differ; the text names the first row and column that do.
    """
    for number, (left, right) in enumerate(zip(sent, received, strict=False), start=1):
        if left != right:
            column = next(name for name in (*left, *right) if left.get(name) != right.get(name))
            raise DifferenceError(
                f"{what}: row {number}, column {column!r}: {left.get(column)!r} went up, {right.get(column)!r} came back."
            )
    if len(sent) != len(received):
        raise DifferenceError(f"{what}: {len(sent):,} rows went up, {len(received):,} came back.")


@define
class Report:
    """Prints each step as it is done, and keeps what was verified."""

    verified: list[str] = field(factory=list[str])
    _started: float = field(factory=time.perf_counter)

    def step(self, name: str, what: str, *, rows: int | None = None) -> None:
        """A step is done; its time is what passed since the last one."""
        seconds = time.perf_counter() - self._started
        rate = "" if rows is None else f"{seconds:6.2f} s {rows / seconds:>9,.0f} rows/s"
        say(f"  ✓ {name:<10} {what:<68}{rate}".rstrip())
        self._started = time.perf_counter()

    def checked(self, what: str) -> None:
        """Something was verified."""
        self.verified.append(what)


def say(line: str = "") -> None:
    """A line for the reader, also on a terminal that has no tick."""
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()


async def run(folder: Path, customers: Sequence[Row] | None = None) -> Report:
    """The demonstration, with its database in ``folder``.

    Args:
        folder: where the sandbox keeps its database.
        customers: other customers than the 23,570 shipped with the sandbox.

    Raises:
        DifferenceError: something that came back is not what went up.
    """
    rows = list(customers) if customers is not None else sample_customers()
    report = Report()
    async with (
        Sandbox(db=folder / "sandbox.db", latency=0.002, job_time=0.2) as sandbox,
        Nudgescribe(
            sandbox.credentials, base_url=sandbox.url, profile_decryptor=AesGcmProfiles(sandbox.profile_key)
        ) as ns,
    ):
        report.step("sandbox", f"listening on {sandbox.url}, database in a file")
        workspace = sandbox.workspace_id
        for name, kind, pattern in SAMPLE_FIELDS:
            await ns.profile_fields.create(workspace, name, kind, pattern, is_required=True)
        fields = await ns.profile_fields.list(workspace)
        report.step("profile", f"{len(fields)} fields: {', '.join(item.field_name for item in fields)}")

        everyone = (await ns.customer_groups.create(workspace, "Everyone")).customer_group_id
        loyal = (await ns.customer_groups.create(workspace, "Bought more than once")).customer_group_id
        again = [row for row in rows if int(row["purchases"]) > 1]
        await _upload(ns, sandbox, report, workspace, everyone, rows, as_csv=customers is None)
        await _upload(ns, sandbox, report, workspace, loyal, again, as_csv=False)

        for name, group, sent in (("Everyone", everyone, rows), ("Bought more than once", loyal, again)):
            pages = await ns.customers.count_pages(group)
            received = [customer async for customer in ns.customers.iter(group, concurrency=CONCURRENCY)]
            report.step(
                "page",
                f"{len(received):,} of {name!r} back, {pages} pages, {CONCURRENCY} at a time",
                rows=len(received),
            )
            compare(name, sent, [_profile(customer) for customer in received])
            report.step("decrypt", "and compare", rows=len(received))
            report.checked(f"{len(sent):,} customers of {name!r}: every cell and their order, as uploaded")

        await _export(ns, report, everyone, rows, folder)
        campaign = await sandbox.create_campaign(
            "Thank you", everyone, segment_by={"purchases": [2, 5]}, status="Ready to publish"
        )
        listed = await _campaign(ns, campaign)
        report.step("campaign", f"{listed.campaign_name!r} is {listed.campaign_status!s}")
        await _publish(ns, report, campaign, rows)
        await _download(ns, report, campaign, rows, folder)

        rerun = partial(ns.reruns.run, [RerunRequest(campaign, loyal)], journal=folder / "reruns.db")
        outcome = _succeeded(await rerun(wait=True))
        shape = outcome.comparison
        if shape is not None:
            report.step(
                "rerun",
                f"run {outcome.run_number} made: segments {shape.matched_count} matched, {shape.new_count} new, "
                f"{shape.orphaned_count} orphaned; {outcome.archived_count} messages archived",
            )
        report.step("wait", f"run {outcome.run_number} is {outcome.campaign_status}")
        if outcome.campaign_status != CampaignStatus.READY_TO_PUBLISH:
            # What the API has no operation for: somebody reads the new messages, and approves them.
            await sandbox.approve(campaign)
        outcome = _succeeded(await rerun(publish=True))  # the same call goes on
        report.step("publish", f"run {outcome.run_number}, by the same call with publish=True")
        await _messages(ns, report, campaign, again, run=outcome.run_number)
        history = await ns.reruns.history(campaign)
        numbers = [item.run_number for item in history]
        if numbers != [2, 1]:
            raise DifferenceError(f"The history has the runs {numbers}, and should have 2 and 1.")
        messages = await ns.reruns.messages(campaign, run_number=1)
        report.step("history", f"runs {numbers}; {len(messages)} messages of run 1, archived")
        archive = [row async for row in ns.messages.iter(campaign, run_number=1)]
        _compare_messages("run 1, from the archive", rows, archive)
        report.step("archive", "messages of run 1 read again", rows=len(archive))
        report.checked(f"{len(archive):,} messages of run 1 still there after the rerun")
        if sandbox.effects.get("reruns.initiate") != 1:
            raise DifferenceError(
                f"The sandbox counts {sandbox.effects.get('reruns.initiate')} reruns, and should count 1."
            )
        report.checked("exactly one rerun took place, by the sandbox's own count")
        logins = sandbox.count("auth.authenticate")
        if logins != 1:
            raise DifferenceError(f"The sandbox counts {logins} logins, and should count 1.")
        report.checked(f"{len(sandbox.log):,} requests with one login")
    return report


async def _upload(
    ns: Nudgescribe, sandbox: Sandbox, report: Report, workspace: str, group: str, rows: Sequence[Row], *, as_csv: bool
) -> None:
    receipt = await ns.customers.upload(workspace, group, sample_csv() if as_csv else rows)
    receipt.raise_for_failures()
    await sandbox.drain()
    if receipt.accepted != len(rows):
        raise DifferenceError(f"Of {len(rows):,} rows {receipt.accepted:,} were accepted.")
    kind = "a CSV file" if as_csv else "mappings"
    what = f"{len(rows):,} customers from {kind}, checked, sent in chunks: {len(receipt.chunks)}"
    report.step("upload", what, rows=len(rows))


def _profile(customer: Customer) -> dict[str, str]:
    profile = customer.profile()
    return {name: str(profile[name]) for name, _, _ in SAMPLE_FIELDS}


async def _export(ns: Nudgescribe, report: Report, group: str, rows: Sequence[Row], folder: Path) -> None:
    exported = await ns.customers.export(group, folder / "customers.csv.gz", concurrency=CONCURRENCY)
    report.step("export", f"{exported.rows:,} to customers.csv.gz, {exported.bytes / 1e6:.1f} MB", rows=exported.rows)
    with gzip.open(folder / "customers.csv.gz", "rt", encoding="utf-8", newline="") as file:
        found = [{name: row[name] for name, _, _ in SAMPLE_FIELDS} for row in csv.DictReader(file)]
    compare("the export", rows, found)
    report.checked(f"{len(found):,} customers in the exported file: every cell and their order, as uploaded")


async def _download(ns: Nudgescribe, report: Report, campaign_id: str, rows: Sequence[Row], folder: Path) -> None:
    downloaded = await ns.messages.download(campaign_id, folder / "messages")
    files = [item.path for item in downloaded.files]
    report.step("download", f"{len(files)} files by signed URL, checksums compared", rows=downloaded.rows)
    found: list[Row] = []
    for path in files:
        with path.open(encoding="utf-8", newline="") as file:
            found += csv.DictReader(file)
    _compare_messages("the downloaded messages", rows, found)
    report.checked(f"{len(found):,} messages in the downloaded files: one for each customer, in the right segment")


async def _campaign(ns: Nudgescribe, campaign_id: str) -> Campaign:
    workspaces = await ns.campaigns.list()
    return next(item for workspace in workspaces for item in workspace.campaigns if item.campaign_id == campaign_id)


async def _publish(ns: Nudgescribe, report: Report, campaign_id: str, rows: Sequence[Row]) -> None:
    await ns.messages.publish(campaign_id)
    while (campaign := await _campaign(ns, campaign_id)).campaign_status != CampaignStatus.PUBLISHED:
        await asyncio.sleep(0.05)
    files = await ns.messages.count_pages(campaign_id)
    report.step("publish", f"run {campaign.run_number} to {files} files", rows=len(rows))
    await _messages(ns, report, campaign_id, rows, run=campaign.run_number)


async def _messages(ns: Nudgescribe, report: Report, campaign_id: str, rows: Sequence[Row], *, run: int | None) -> None:
    messages = [row async for row in ns.messages.iter(campaign_id)]
    report.step("messages", f"of run {run} fetched as CSV", rows=len(messages))
    _compare_messages(f"messages of run {run}", rows, messages)
    report.checked(f"{len(messages):,} messages of run {run}: one for each customer, in the right segment")


def _compare_messages(what: str, rows: Iterable[Row], messages: Sequence[Row]) -> None:
    twice = [name for name, count in Counter(row["external_id"] for row in messages).items() if count > 1]
    if twice:
        raise DifferenceError(f"{what}: customer {twice[0]} has more than one message.")
    expected = [{"external_id": row["external_id"], "segment": _segment(int(row["purchases"]))} for row in rows]
    received = [{"external_id": row["external_id"], "segment": row["segment"]} for row in messages]
    expected.sort(key=_external_id)
    received.sort(key=_external_id)
    compare(what, expected, received)
    silent = next((row for row in messages if not row["message"].strip()), None)
    if silent is not None:
        raise DifferenceError(f"{what}: the message for customer {silent['external_id']} is empty.")


def _external_id(row: Row) -> str:
    return row["external_id"]


def _segment(purchases: int) -> str:
    if purchases < 2:
        return "purchases: below 2"
    return "purchases: 2 to below 5" if purchases < 5 else "purchases: 5 and above"


def _succeeded(report: RerunReport) -> RerunOutcome:
    """The outcome of the one campaign of a plan."""
    report.raise_for_failures()
    [outcome] = report.succeeded
    return outcome


def main() -> int:
    """Run the demonstration; 0 if everything that came back is what went up."""
    started = time.perf_counter()
    say("\nNudgescribe, end to end: 23,570 customers of the shop CDNOW (1997-98), the sandbox, one client.\n")
    with tempfile.TemporaryDirectory(prefix="nudgescribe-demo-") as folder:
        try:
            report = asyncio.run(run(Path(folder)))
        except DifferenceError as difference:
            say(f"\n  ✗ {difference}\n")
            return 1
        except KeyboardInterrupt:
            say("\n  Interrupted. Nothing is left behind.\n")
            return 130
    say("\nVerified\n")
    for line in report.verified:
        say(f"  ✓ {line}")
    say(f"\nAll of it in {time.perf_counter() - started:.1f} s.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
