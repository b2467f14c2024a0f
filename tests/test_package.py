"""What is installed is what was built, and whole."""

import importlib.metadata
import importlib.resources
import os
from pathlib import Path

import pytest

import nudgescribe_async

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.skipif(
    "NUDGESCRIBE_TEST_INSTALLED" not in os.environ, reason="not run by nox: an editable install is fine"
)
def test_the_tests_see_the_installed_wheel_and_not_the_checkout() -> None:
    assert CHECKOUT / "nudgescribe_async" not in Path(nudgescribe_async.__file__).parents
    assert "site-packages" in nudgescribe_async.__file__


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "contract/openapi.yaml",
        "contract/openapi.json",
        "sandbox/data/cdnow_customers.csv.gz",
        "sandbox/page/templates/base.html",
        "sandbox/page/static/page.css",
        "sandbox/page/static/page.js",
    ],
)
def test_the_package_carries_its_data(name: str) -> None:
    assert importlib.resources.files("nudgescribe_async").joinpath(name).is_file()


def test_the_version_is_the_one_of_the_distribution_and_of_the_changelog() -> None:
    assert importlib.metadata.version("nudgescribe_async") == nudgescribe_async.__version__
    changelog = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {nudgescribe_async.__version__} (" in changelog


def test_the_core_depends_on_the_four_packages_of_the_design_alone() -> None:
    requirements = importlib.metadata.requires("nudgescribe_async") or []
    core = sorted(line.partition(">")[0] for line in requirements if "extra ==" not in line)
    assert core == ["aiohttp", "attrs", "backoff", "cattrs"]
