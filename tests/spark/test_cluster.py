"""The short form of ``benchmarks/spark_cluster.py``: two executors, processes that are killed, and a limit on requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "spark_cluster.py"


@pytest.mark.usefixtures("spark_is_here")
def test_spark_is_here_where_it_is_demanded() -> None:
    """Without PySpark, other modules are skipped as a whole, and none of their fixtures can say so."""


@pytest.mark.slow
@pytest.mark.usefixtures("spark_is_here")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked for in /proc")
def test_two_executors_read_what_an_export_does_whatever_is_killed_and_keep_the_limit() -> None:
    # The scripts import what stands beside them.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--small", "--json"],
        capture_output=True,
        check=False,
        env={**inherited, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable},
    )
    assert run.stdout, run.stderr.decode()
    found = json.loads(run.stdout)
    assert found["faults"] == []
    assert run.returncode == 0
    plain, whole, killed, exported, limited, written = found["runs"]
    assert plain["rows"]["count"] == plain["rows"]["ids"] == 20_000
    assert plain["rows"] == whole["rows"] == killed["rows"]
    assert [kind.split()[0] for kind in killed["killed"]] == ["Python", "executor"]
    # What a lost task had read is read again. Each of the 8 tasks may ask for a page beyond its own.
    assert 200 <= whole["page_requests"] <= 208
    assert whole["page_requests"] <= killed["page_requests"]
    assert whole["logins"] == 1
    assert limited["rows"] == exported["rows"]
    assert limited["refused"] == 0
    assert limited["most_in_a_second"] <= 50
    assert written["rows"]["count"] == 20_000
