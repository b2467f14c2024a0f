"""Full garbage collections are put off while very much is collected, and only then."""

from __future__ import annotations

import gc
import os
import threading
from typing import TYPE_CHECKING

import pytest

from nudgescribe_async.garbage import full_collections_put_off

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(600, 9, 8)
    yield
    gc.set_threshold(*before)


def collections() -> int:
    return int(gc.get_stats()[2]["collections"])


def pile() -> list[list[object]]:
    return [[index, []] for index in range(200_000)]


def test_no_full_collection_runs_within_it_and_young_objects_are_looked_at() -> None:
    gc.collect()
    before, young = collections(), gc.get_stats()[0]["collections"]
    kept = pile()
    assert collections() > before  # without it there are some
    del kept
    with full_collections_put_off():
        before, young = collections(), gc.get_stats()[0]["collections"]
        kept = pile()
        assert collections() == before
        assert gc.get_stats()[0]["collections"] > young + 100
    assert len(kept) == 200_000
    assert gc.get_threshold() == (600, 9, 8)


def test_the_last_one_to_end_puts_it_back_whatever_the_order() -> None:
    first, second = full_collections_put_off(), full_collections_put_off()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[2] > 10**6
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (600, 9, 8)


def test_an_error_puts_it_back_too() -> None:
    with pytest.raises(RuntimeError), full_collections_put_off():
        raise RuntimeError
    assert gc.get_threshold() == (600, 9, 8)


def test_what_somebody_else_has_set_meanwhile_is_left_alone() -> None:
    with full_collections_put_off():
        gc.set_threshold(1_000, 20, 30)
    assert gc.get_threshold() == (1_000, 20, 30)


def test_what_somebody_else_has_set_meanwhile_for_young_objects_stays() -> None:
    with full_collections_put_off():
        *_, last = gc.get_threshold()
        gc.set_threshold(1_000, 20, last)
    assert gc.get_threshold() == (1_000, 20, 8)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_that_is_forked_meanwhile_collects_as_before() -> None:
    seen, told = os.pipe()
    with full_collections_put_off():
        child = os.fork()
        if child == 0:  # pragma: no cover - in a process without coverage
            with full_collections_put_off():
                inside = gc.get_threshold()[2] > 10**6
            os.write(told, repr((inside, gc.get_threshold())).encode())
            os._exit(0)
        os.waitpid(child, 0)
    assert os.read(seen, 100) == b"(True, (600, 9, 8))"
    os.close(seen)
    os.close(told)
    assert gc.get_threshold() == (600, 9, 8)


def test_any_number_of_threads() -> None:
    def work() -> None:
        for _ in range(300):
            with full_collections_put_off():
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gc.get_threshold() == (600, 9, 8)
