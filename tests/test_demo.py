"""The demonstration shows what it says, and would say so if it did not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nudgescribe_async import AesGcmProfiles, demo
from nudgescribe_async.sandbox import sample_customers


async def test_the_demo_verifies_all_of_its_promises_on_fewer_customers(tmp_path: Path) -> None:
    report = await demo.run(tmp_path, sample_customers()[:300])
    assert len(report.verified) == 9
    assert "exactly one rerun took place, by the sandbox's own count" in report.verified


async def test_the_demo_fails_if_one_cell_comes_back_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = AesGcmProfiles.decrypt

    def dishonest(key: AesGcmProfiles, customer_id: str, profile: Mapping[str, Any]) -> Mapping[str, Any]:
        cells: dict[str, Any] = dict(honest(key, customer_id, profile))
        if cells["external_id"] == "00007":
            cells["total_spend"] = "0.01"
        return cells

    monkeypatch.setattr(AesGcmProfiles, "decrypt", dishonest)
    with pytest.raises(demo.DifferenceError, match="row 7, column 'total_spend'"):
        await demo.run(tmp_path, sample_customers()[:20])


def test_main_says_what_differs_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def differs(folder: Path) -> demo.Report:
        raise demo.DifferenceError("row 3 is lost")

    monkeypatch.setattr(demo, "run", differs)
    assert demo.main() == 1
    assert "row 3 is lost" in capsys.readouterr().out


def test_main_exits_with_130_if_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(folder: Path) -> demo.Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    assert demo.main() == 130


@pytest.mark.parametrize(
    ("sent", "received", "message"),
    [
        ([{"a": "1"}], [], "1 rows went up, 0 came back"),
        ([], [{"a": "1"}], "0 rows went up, 1 came back"),
        ([{"a": "1"}, {"a": "2"}], [{"a": "2"}, {"a": "1"}], "row 1, column 'a'"),
        ([{"a": "1"}], [{"a": "1", "b": "2"}], "column 'b': None went up, '2' came back"),
        ([{"a": "1", "b": "2"}], [{"a": "1"}], "column 'b'"),
    ],
)
def test_compare_names_the_first_difference(
    sent: list[dict[str, object]], received: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(demo.DifferenceError, match=message):
        demo.compare("table", sent, received)


def test_compare_accepts_what_is_equal() -> None:
    demo.compare("table", [{"a": "1"}], [{"a": "1"}])
