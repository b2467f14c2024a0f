"""What the doctor has found, in words that hold nothing of a customer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from attrs import field, frozen

from nudgescribe_async.contract_doctor.contract import Contract, Pointer, name_of
from nudgescribe_async.contract_doctor.patch import patch_of

if TYPE_CHECKING:
    from nudgescribe_async.shapes import JSON

__all__ = [
    "BREAKS",
    "Asked",
    "Assumption",
    "ContractReport",
    "Difference",
    "FieldShape",
    "Finding",
    "Standing",
    "standings",
]

Standing: TypeAlias = Literal["confirmed", "contradicted", "not seen", "not asked"]
"""What became of an assumption: ``"not asked"`` is what belongs to operations that change something."""

STANDINGS: Final[tuple[Standing, ...]] = ("confirmed", "contradicted", "not seen", "not asked")


class Difference(StrEnum):
    """How an answer may differ from the contract."""

    NEW_FIELD = "new field"
    """The contract does not know it. Clients keep it in ``extra``."""

    MISSING_FIELD = "missing field"
    """It did not come: a required one once, or an optional one in no object at all."""

    SPELLING = "other spelling"
    """White space around a key. Clients take it off."""

    WRONG_TYPE = "another type"
    """A text instead of a number, for one."""

    UNEXPECTED_NULL = "unexpected null"
    """Where the contract allows none."""

    OTHER_FORMAT = "another format"
    """The type is right, and it is written in another way: a timestamp without milliseconds, for one."""

    UNKNOWN_VALUE = "unknown value"
    """None of those that the contract lists. Clients keep it as it came."""

    ENVELOPE = "another envelope"
    """The answer is wrapped in something, or is something else altogether."""

    NOT_JSON = "no JSON"
    """The answer cannot be read at all."""

    CONTENT_TYPE = "another content type"
    """The answer can be read, and says that it is something else."""

    UNLISTED_STATUS = "unlisted status"
    """The contract does not list it for the operation."""

    MISSING_OPERATION = "missing operation"
    """404 or 405: the service does not know the path or the method."""

    PAGE_BASE = "pages begin elsewhere"
    """The first page has another number. See ``Nudgescribe(first_page=...)``."""

    PAGE_COUNT = "another number of pages"
    """There are more or fewer pages than the service says."""

    PAGE_SIZE = "pages of several sizes"
    """Pages before the last one have different sizes."""

    PAGES_REPEATED = "repeated pages"
    """Pages with different numbers have the same content."""

    ORDER = "another order"
    """Items come in another order than the contract says."""

    IGNORED_ARGUMENT = "ignored argument"
    """An argument of a request made no difference."""


BREAKS = frozenset(
    {
        Difference.WRONG_TYPE,
        Difference.UNEXPECTED_NULL,
        Difference.ENVELOPE,
        Difference.NOT_JSON,
        Difference.MISSING_OPERATION,
        Difference.PAGE_BASE,
        Difference.PAGE_COUNT,
        Difference.PAGES_REPEATED,
        Difference.IGNORED_ARGUMENT,
    }
)


@frozen(kw_only=True)
class Finding:
    """One difference.

    Attributes:
        kind: how the answers differ.
        operation: the operation that was asked.
        where: the place in the answer: ``$`` is all of it, ``[]`` each item of a list, ``refusal`` the body of a refusal.
        expected: what the contract says.
        received: what came instead, in words that hold nothing of it.
        count: how often.
        of: of how many.
        breaks: whether clients made from this contract fail, or read something wrong.
    """

    kind: Difference
    operation: str
    where: str
    expected: str
    received: str
    count: int = 1
    of: int = 1
    breaks: bool = False

    def __str__(self) -> str:
        times = "" if self.of == 1 else f" ({self.count:,} of {self.of:,})"
        return f"{self.where}: {self.kind}: {self.received}; the contract has {self.expected}{times}"


@frozen(kw_only=True)
class Assumption:
    """Something that the contract assumes, and what became of it.

    Attributes:
        name: what it is, such as ``"Campaign.run_number"``.
        standing: ``"confirmed"``, ``"contradicted"``, ``"not seen"`` in the answers, or ``"not asked"``, since it belongs to
            operations that change something.
        pointer: where it stands in the contract.
    """

    name: str
    standing: Standing
    pointer: Pointer = field(repr=False)


@frozen(kw_only=True)
class FieldShape:
    """What was seen at one place of the answers of an operation.

    Attributes:
        where: the place, as in ``Finding``.
        forms: what the values looked like, and how many of each.
    """

    where: str
    forms: Mapping[str, int]


@frozen(kw_only=True)
class Asked:
    """What one operation has answered.

    Attributes:
        operation: the operation.
        statuses: how often each came.
        content_types: of the answers, without parameters.
        headers: names only.
        shapes: place by place.
    """

    operation: str
    statuses: Mapping[int, int]
    content_types: tuple[str, ...]
    headers: tuple[str, ...]
    shapes: tuple[FieldShape, ...]


@frozen(kw_only=True)
class ContractReport:
    """Where the service differs from the contract, and what it confirmed.

    It holds shapes only: names of fields, types, formats, counts. No value of the service is in it, but for those that
    the contract lists. ``str()`` is for people.

    Attributes:
        contract: the edition of the contract.
        requests: how many were sent.
        findings: the differences, in the order of the operations.
        assumptions: all that the contract assumes.
        asked: what was asked, and what the answers looked like.
        remarks: what was noticed besides, such as the size of a page, which the contract does not state.
        unanswered: what was asked, and not answered as it should be, with the reason: such answers show nothing.
        skipped: what could not be asked, since nothing was there to ask about, or the limit of requests was reached.
        complete: whether all that was asked was answered, and no limit has cut it short.
    """

    contract: str
    requests: int
    findings: tuple[Finding, ...]
    assumptions: tuple[Assumption, ...]
    asked: tuple[Asked, ...]
    remarks: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    complete: bool = True

    @property
    def conforms(self) -> bool:
        """Whether nothing that came differs from the contract. Look at ``unanswered`` and ``skipped``, too."""
        return not self.findings

    @property
    def confirmed(self) -> tuple[Assumption, ...]:
        """The assumptions that answers have confirmed: what ``patch()`` marks."""
        return self.standing("confirmed")

    def standing(self, standing: Standing) -> tuple[Assumption, ...]:
        """The assumptions that stand so."""
        return tuple(each for each in self.assumptions if each.standing == standing)

    def patch(self) -> str:
        """What turns ``assumed`` into ``observed`` in ``openapi.yaml``, for ``git apply`` or ``patch -p1`` in the checkout.

        Comments and layout stay as they are. Empty if nothing was confirmed. Reading YAML may take a second: do it off the
        event loop.

        Raises:
            ConfigurationError: the extra ``contract`` is not installed, or ``openapi.yaml`` was edited, and what is
                generated from it was not made anew.
        """
        return patch_of([each.pointer for each in self.confirmed])

    def as_dict(self) -> dict[str, JSON]:
        """All of it, as JSON has it."""
        counts = Counter(each.standing for each in self.assumptions)
        return {
            "conforms": self.conforms,
            "complete": self.complete,
            "contract": self.contract,
            "requests": self.requests,
            "findings": [
                {
                    "kind": each.kind.value,
                    "operation": each.operation,
                    "where": each.where,
                    "expected": each.expected,
                    "received": each.received,
                    "count": each.count,
                    "of": each.of,
                    "breaks": each.breaks,
                }
                for each in self.findings
            ],
            "assumptions": {
                "counts": {standing: counts[standing] for standing in STANDINGS},
                **{
                    standing: [each.name for each in self.assumptions if each.standing == standing]
                    for standing in STANDINGS
                },
            },
            "remarks": list(self.remarks),
            "unanswered": list(self.unanswered),
            "skipped": list(self.skipped),
            "asked": [
                {
                    "operation": each.operation,
                    "statuses": {str(status): count for status, count in each.statuses.items()},
                    "content_types": list(each.content_types),
                    "headers": list(each.headers),
                    "shapes": {shape.where: dict(shape.forms) for shape in each.shapes},
                }
                for each in self.asked
            ],
        }

    def to_json(self, *, indent: int = 2) -> str:
        """The report as JSON: ASCII only."""
        return json.dumps(self.as_dict(), indent=indent)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [_headline(len(self.findings), self.requests)]
        for operation, found in _by_operation(self.findings).items():
            lines += ["", operation]
            lines += [f"  {'!' if each.breaks else ' '} {each}" for each in found]
        if any(each.breaks for each in self.findings):
            lines += ["", "! marks what clients of this version fail at, or read wrong."]
        lines += ["", self._standings()]
        lines += _names("Contradicted", self.standing("contradicted"))
        lines += _names("Not seen", self.standing("not seen"))
        for title, texts in (
            ("Noticed", self.remarks),
            ("Not answered", self.unanswered),
            ("Not asked", self.skipped),
        ):
            lines += [f"{title}: {text}." for text in texts]
        return lines

    def _standings(self) -> str:
        counts = Counter(each.standing for each in self.assumptions)
        return (
            f"Of the {len(self.assumptions):,} assumptions of the contract {counts['confirmed']:,} are confirmed, "
            f"{counts['contradicted']:,} contradicted, and {counts['not seen']:,} were not seen; {counts['not asked']:,} are "
            "about operations that change something, which were not asked."
        )


def _headline(findings: int, requests: int) -> str:
    asked = f"{requests:,} request{'' if requests == 1 else 's'}"
    if not findings:
        return f"Nothing differs from the contract in the answers to {asked}."
    differences = f"{findings:,} difference{'' if findings == 1 else 's'}"
    return f"{differences} from the contract in the answers to {asked}."


def _by_operation(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for each in findings:
        found.setdefault(each.operation, []).append(each)
    return found


def _names(title: str, assumptions: Sequence[Assumption]) -> list[str]:
    return [f"{title}: {', '.join(each.name for each in assumptions)}."] if assumptions else []


def standings(
    contract: Contract, *, confirmed: set[Pointer], contradicted: set[Pointer], reachable: set[Pointer]
) -> tuple[Assumption, ...]:
    """What became of each assumption of the contract."""

    def standing(pointer: Pointer) -> Standing:
        if pointer in contradicted:
            return "contradicted"
        if pointer in confirmed:
            return "confirmed"
        return "not seen" if pointer in reachable else "not asked"

    return tuple(
        Assumption(name=name_of(pointer), standing=standing(pointer), pointer=pointer)
        for pointer in contract.assumptions()
    )
