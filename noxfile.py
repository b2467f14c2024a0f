"""The tasks of the project: ``nox -l`` lists them, ``nox -s NAME`` runs one."""

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_external_run = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
# All but Spark, which is large.
EXTRAS = "sandbox,contract,speed,parquet,fsspec,crypto,cli,keyring,httpx,pyreqwest,otel"

# Safe path: otherwise Python puts the checkout on the path, where it hides the installed wheel.
INSTALLED = {"NUDGESCRIBE_TEST_INSTALLED": "1", "PYTHONSAFEPATH": "1"}


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session
def demo(session: nox.Session) -> None:
    """The whole product once, on 23,570 real customers, against the sandbox."""
    session.install(".[sandbox,speed]", silent=True)
    # Away from the checkout, so that it is the installed package that is shown.
    session.chdir(session.create_tmp())
    session.run("python", "-m", "nudgescribe_async.demo")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests against the installed wheel, with coverage."""
    session.install(f".[{EXTRAS}]", *group("tests"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=INSTALLED)
    elsewhere = "*/nudgescribe_async/spark/*"  # see the session `spark`
    session.run("coverage", "report", "--fail-under=97", "--skip-covered", f"--omit={elsewhere}")


@nox.session
def tests_debug(session: nox.Session) -> None:
    """The same in asyncio's debug mode and Python's development mode, without ``speed`` and without the slow ones."""
    session.install(f".[{EXTRAS}]", *group("tests"))
    session.run("pip", "uninstall", "--yes", "--quiet", "msgspec", "uvloop")
    debug = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"}
    session.run("pytest", "-m", "not slow", *session.posargs, env=INSTALLED | debug)


@nox.session
def spark(session: nox.Session) -> None:
    """The tests with Spark, in ``local[2]`` and on worker processes: wants Java 17."""
    session.install(".[spark,sandbox,speed]", *group("spark"))
    report = {"COVERAGE_FILE": str(Path(session.create_tmp()) / "coverage")}
    environment = INSTALLED | {"NUDGESCRIBE_TEST_SPARK": "1"} | report
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or ["tests/spark"]), env=environment)
    if not session.posargs:
        session.run("coverage", "report", "--include=*/nudgescribe_async/spark/*", "--fail-under=95", env=report)


@nox.session
def spark_cluster(session: nox.Session) -> None:
    """A million rows read by two worker processes, one of them killed, and a limit kept; ``-- --small`` shows it works."""
    session.install(".[spark,sandbox,speed]", *group("spark"))
    where = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": str(Path(session.bin) / "python")}
    session.run("python", "benchmarks/spark_cluster.py", *session.posargs, env=where)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and which module may import which."""
    session.install(".", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy strict on everything, pyright strict on the package."""
    session.install(
        "-e",
        f".[{EXTRAS},spark]",
        *group("types"),
        *group("tests"),
        *group("bench"),
        "nox",
    )
    session.run("mypy")
    session.run("pyright")


@nox.session
def generate(session: nox.Session) -> None:
    """Write what is generated from the contract, and from the help of the command; ``-- --check`` only compares."""
    session.install("-e", ".[contract,cli]", "openapi-spec-validator")
    session.run("openapi-spec-validator", "nudgescribe_async/contract/openapi.yaml")
    session.run("python", "-m", "nudgescribe_async.contract", *session.posargs)
    if not session.posargs:  # else the tests compare it, whose version of cyclopts may lay it out otherwise
        session.run("python", "tests/documentation_command.py")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; ``-- NAME`` runs one, ``-- --small`` only shows that they work, ``-- --write`` keeps the results."""
    session.install(".[speed,sandbox,contract]", *group("bench"))
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """200,000 mixed calls at 5 % faults, and every promise checked; ``-- --calls 10000`` is the short form."""
    session.install(".[sandbox,speed]")
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session
def matrix(session: nox.Session) -> None:
    """Every operation, every fault, every transport; CI has all of it over aiohttp, and what is thorough over the others."""
    session.install(f".[{EXTRAS}]", *group("tests"))
    session.run("pytest", "tests/test_matrix.py", *session.posargs, env={"NUDGESCRIBE_TEST_MATRIX": "whole"})


@nox.session
def crash(session: nox.Session) -> None:
    """Ten ``kill -9`` of an export of 200,000 customers in each format, and of a download; CI has a short form."""
    session.install(".[sandbox,speed,parquet,fsspec,crypto]", *group("tests"))
    size = {"NUDGESCRIBE_EXPORT_KILLS": "10", "NUDGESCRIBE_EXPORT_CUSTOMERS": "200000"}
    files = ("tests/bulk/test_export_crash.py", "tests/bulk/test_download_crash.py")
    session.run("pytest", *files, "-k", "kill", "-v", *session.posargs, env=size)


@nox.session
def chaos(session: nox.Session) -> None:
    """400 campaigns run again through lost answers and ten ``kill -9``, with 20 seeds; CI has one."""
    session.install(".[sandbox,speed]")
    session.run("python", "benchmarks/rerun_chaos.py", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """10,000 campaigns run again on a virtual clock: how many requests, and how long."""
    session.install(".[speed]")
    session.run("python", "benchmarks/rerun_simulation.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, strictly, into ``site/``."""
    session.install(".[sandbox,cli]", *group("docs"))
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def build(session: nox.Session) -> None:
    """The wheel and the source distribution, and a look at what is in the wheel."""
    session.install("build", "twine")
    target = Path(session.create_tmp()) / "dist"
    session.run("python", "-m", "build", "--outdir", os.fspath(target))
    session.run("twine", "check", "--strict", *map(os.fspath, target.iterdir()))


if __name__ == "__main__":
    sys.exit("Run me with nox: nox -s tests")
