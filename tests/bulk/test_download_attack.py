"""What an attacker, an odd storage or an edit by hand made a download believe, and it must not."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from message_shop import SIGNATURE, Shop, break_off, serve_with_ranges, table

from nudgescribe_async import CallOptions, DownloadError, ResponseDecodeError, RetryPolicy
from nudgescribe_async.bulk.download import content as content_module
from nudgescribe_async.bulk.download.content import DamageError, examine
from nudgescribe_async.bulk.download.digests import noted, offered, restored
from nudgescribe_async.bulk.download.manifest import Manifest, ManifestError
from nudgescribe_async.bulk.files import replace_file
from nudgescribe_async.transport import Headers

FILE = table(4_000)
OTHER = FILE.replace(b"Dear", b"Deer")  # as long, and as good
CSV = {"Content-Type": "text/csv"}
RANGES = {**CSV, "ETag": '"one"', "Accept-Ranges": "bytes"}
ONCE = CallOptions(retries=RetryPolicy(attempts=1))


async def failure(shop: Shop, directory: Path, **options: Any) -> DownloadError:
    async with shop.client() as ns:
        with pytest.raises(DownloadError) as caught:
            await ns.messages.download("c", directory, **options)
    return caught.value


def manifest_in(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    return found


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


# --- what the manifest says ----------------------------------------------------------------------------------------------


async def test_a_directory_that_lacks_a_page_is_not_called_complete(tmp_path: Path) -> None:
    async with Shop((FILE, table(10, page=2))) as shop:
        async with shop.client() as ns:
            await ns.messages.download("c", tmp_path)
        assert manifest_in(tmp_path)["complete"]
        (tmp_path / "page-00001.csv").unlink()

        async def serve(_: web.Request, __: int) -> web.Response:
            return web.Response(status=500)

        shop.serve = serve
        await failure(shop, tmp_path, options=ONCE)
        assert not manifest_in(tmp_path)["complete"]
        assert list(manifest_in(tmp_path)["files"]) == ["2"]
        shop.serve = shop.serve_whole
        async with shop.client() as ns:
            await ns.messages.download("c", tmp_path)
    assert manifest_in(tmp_path)["complete"]


Edit = Callable[[dict[str, Any]], object]


def renamed(name: str) -> Edit:
    return lambda parts: parts["files"]["1"].update(name=name)


def copied_to(key: str) -> Edit:
    return lambda parts: parts["files"].update({key: parts["files"]["1"]})


def unfinished(**changes: Any) -> Edit:
    entry = {"etag": '"one"', "total": 9, "bytes": 3, "sha256": "", "digests": []} | changes
    return lambda parts: parts["unfinished"].update({"2": entry})


@pytest.mark.parametrize(
    "edit",
    [
        renamed("page-\0"),
        renamed("page-\ud800"),
        renamed("page-.."),
        renamed("page-00001.csv.partial"),
        renamed(f"page-{'1' * 300}.csv"),
        renamed("page-00001.csv\n"),
        copied_to("01"),
        copied_to("1" * 5_000),
        copied_to("\u0662"),
        lambda parts: parts["files"]["1"].update(bytes=10**4_000),
        lambda parts: parts.update(pages=10**4_000),
        unfinished(digests=None),
        unfinished(digests=["sha256:zz"]),
        unfinished(digests=["sha256:abc"]),
        unfinished(digests=["blake2b:ab"]),
        unfinished(digests=[7]),
    ],
)
def test_a_manifest_with_something_odd_in_it_cannot_be_read(edit: Edit) -> None:
    page = {"name": "page-00001.csv", "bytes": 3, "rows": 0, "sha256": "", "via": "url"}
    parts: dict[str, Any] = {
        "version": 1,
        "query": "q",
        "campaign_id": "c",
        "run_number": None,
        "current_run": 1,
        "pages": 2,
        "complete": False,
        "files": {"1": page},
        "unfinished": {},
    }
    assert Manifest.from_json(json.dumps(parts)).finished[1].bytes == 3
    edit(parts)
    with pytest.raises(ManifestError, match="is damaged"):
        Manifest.from_json(json.dumps(parts))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"version": ' + "1" * 5_000 + "}"])
async def test_a_manifest_that_is_no_sensible_json_is_refused_as_such(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    async with Shop((FILE,)) as shop:
        assert "manifest.json is no JSON" in str(await failure(shop, tmp_path))


# --- links in the file system ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
async def test_no_link_in_the_directory_leads_out_of_it(tmp_path: Path, *, there: bool) -> None:
    directory, victim = tmp_path / "directory", tmp_path / "victim"
    directory.mkdir()
    if there:
        victim.write_text("precious")
    (directory / "manifest.json.new").symlink_to(victim)
    async with Shop((FILE,)) as shop, shop.client() as ns:
        await ns.messages.download("c", directory)
    assert victim.exists() is there
    assert not there or victim.read_text() == "precious"
    assert not (directory / "manifest.json").is_symlink()


async def test_a_part_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    directory, victim = tmp_path / "directory", tmp_path / "victim"
    victim.write_text("precious")
    async with Shop((FILE,)) as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            (directory / "page-00001.csv.partial").unlink(missing_ok=True)
            (directory / "page-00001.csv.partial").symlink_to(victim)
            return await serve_with_ranges(request, FILE)

        shop.serve = serve
        error = await failure(shop, directory)
    assert "page-00001.csv.partial cannot be read or written" in str(error)
    assert isinstance(error.__cause__, OSError)
    assert victim.read_text() == "precious"


def test_what_a_crash_left_does_not_keep_a_file_from_being_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.json.new").write_bytes(b"half, and longer than the whole")
    replace_file(tmp_path / "a.json", b"whole")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"whole"}


async def test_what_was_rejected_stays_until_the_page_comes_right(tmp_path: Path) -> None:
    rejected = tmp_path / "page-00001.csv.rejected"
    async with Shop((b"a,b\n1\n",)) as shop:
        await failure(shop, tmp_path)
        assert rejected.read_bytes() == b"a,b\n1\n"

        async def serve(_: web.Request, __: int) -> web.Response:
            return web.Response(status=500)

        shop.serve = serve
        await failure(shop, tmp_path, options=ONCE)
        assert rejected.exists()
        shop.serve, shop.files = shop.serve_whole, [FILE]
        async with shop.client() as ns:
            await ns.messages.download("c", tmp_path)
    assert not rejected.exists()


# --- parts of a file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", [{}, {"ETag": ""}, {"ETag": 'W/"one"'}])
async def test_a_part_that_does_not_say_of_which_file_it_is_is_not_taken(tmp_path: Path, etag: dict[str, str]) -> None:
    async with Shop((OTHER,)) as shop, shop.client() as ns:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            if len(shop.storage.requests) == 1:
                return await break_off(request, FILE, len(FILE) // 2, headers=RANGES)
            response = await serve_with_ranges(request, OTHER)  # whatever If-Range says
            if response.status == 206:
                del response.headers["ETag"]
                response.headers.update(etag)
            return response

        shop.serve = serve
        report = await ns.messages.download("c", tmp_path)
        assert [bool(wanted) for wanted in shop.ranges] == [False, True, False]
    assert (tmp_path / "page-00001.csv").read_bytes() == OTHER
    assert not report.files[0].resumed


@pytest.mark.parametrize("said", ["bytes 5-13/100", "bytes 0-8/100", "bytes 0-8/*", "bytes */9", "", "items 0-8/9"])
async def test_a_part_that_is_called_a_whole_file_is_refused(tmp_path: Path, said: str) -> None:
    async with Shop((b"id,m\n1,2\n",)) as shop:

        async def serve(_: web.Request, __: int) -> web.Response:
            return web.Response(body=shop.files[0], headers={**CSV, "Content-Range": said})

        shop.serve = serve
        error = await failure(shop, tmp_path)
        assert "is a part of the file" in str(error)
        assert isinstance(error.__cause__, ResponseDecodeError)
        said = "bytes 0-8/9"
        async with shop.client() as ns:
            await ns.messages.download("c", tmp_path)


async def test_a_part_that_is_called_a_whole_file_and_does_not_tell_its_length_is_refused(tmp_path: Path) -> None:
    async with Shop((FILE,)) as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            response = web.StreamResponse(headers={**CSV, "Content-Range": "bytes 0-8/100"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(b"id,m\n1,2\n")
            return response

        shop.serve = serve
        assert "is a part of the file" in str(await failure(shop, tmp_path))


# --- checksums -----------------------------------------------------------------------------------------------------------

GOOD, BAD = (encoded(hashlib.sha256(data).digest()) for data in (FILE, b"x"))
GOOD_MD5, BAD_MD5 = (encoded(hashlib.md5(data).digest()) for data in (FILE, b"x"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Repr-Digest": f"sha-256=:{BAD}:", "x-amz-checksum-sha256": GOOD},
        {"Repr-Digest": f"sha-256=:{GOOD}:", "x-amz-checksum-sha256": BAD},
        {"Repr-Digest": f"sha-256=:{BAD}:, sha-256=:{GOOD}:"},
        {"Repr-Digest": f"sha-256=:{GOOD}:, sha-256=:{BAD}:"},
        {"x-goog-hash": f"md5={BAD_MD5}", "Content-MD5": GOOD_MD5},
        {"x-goog-hash": f"md5={GOOD_MD5}", "Content-MD5": BAD_MD5},
    ],
)
async def test_of_two_checksums_none_is_ignored(tmp_path: Path, headers: dict[str, str]) -> None:
    async with Shop((FILE,)) as shop:

        async def serve(_: web.Request, __: int) -> web.Response:
            return web.Response(body=FILE, headers=CSV | headers)

        shop.serve = serve
        assert "checksum that the storage gave with it" in str(await failure(shop, tmp_path))
    assert not (tmp_path / "page-00001.csv").exists()


@pytest.mark.parametrize("first", [True, False])
async def test_the_checksums_of_all_answers_to_a_file_count(tmp_path: Path, *, first: bool) -> None:
    async with Shop((FILE,)) as shop, shop.client() as ns:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            if len(shop.storage.requests) == 1:
                said = {"Repr-Digest": f"sha-256=:{BAD if first else GOOD}:"}
                return await break_off(request, FILE, len(FILE) // 2, headers=RANGES | said)
            response = await serve_with_ranges(request, FILE)
            if len(shop.storage.requests) == 2:
                response.headers["Repr-Digest"] = f"sha-256=:{GOOD if first else BAD}:"
            return response

        shop.serve = serve
        report = await ns.messages.download("c", tmp_path)
        assert [bool(wanted) for wanted in shop.ranges] == [False, True, False], "it came anew"
    assert not report.files[0].resumed


@pytest.mark.parametrize(("rest", "fits"), [(FILE, True), (OTHER, False)])
async def test_a_later_call_remembers_the_checksums_of_an_earlier_one(
    tmp_path: Path, rest: bytes, *, fits: bool
) -> None:
    async with Shop((rest,)) as shop:

        async def serve(request: web.Request, _: int) -> web.StreamResponse:
            if len(shop.storage.requests) == 1:
                headers = RANGES | {"Content-MD5": GOOD_MD5, "Repr-Digest": f"sha-256=:{GOOD}:"}
                return await break_off(request, FILE, len(FILE) // 2, headers=headers)
            return await serve_with_ranges(request, rest)

        shop.serve = serve
        await failure(shop, tmp_path, options=ONCE)
        digests = manifest_in(tmp_path)["unfinished"]["1"]["digests"]
        assert digests == [f"md5:{hashlib.md5(FILE).hexdigest()}", f"sha256:{hashlib.sha256(FILE).hexdigest()}"]
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)
        assert [bool(wanted) for wanted in shop.ranges] == [False, True] if fits else [False, True, False]
    assert report.files[0].resumed is fits
    assert (tmp_path / "page-00001.csv").read_bytes() == rest


def test_checksums_come_back_from_their_text() -> None:
    digests = offered(Headers({"x-amz-checksum-sha256": GOOD, "Content-MD5": GOOD_MD5}), part=False)
    assert len(digests) == 2
    assert restored(noted(digests)) == digests
    assert restored(()) == frozenset()


# --- links to files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["a" * 300, "a..b"])
async def test_a_link_that_cannot_be_followed_is_done_without(tmp_path: Path, host: str) -> None:
    async with Shop((FILE,)) as shop, shop.client() as ns:
        shop.link = lambda _: web.json_response({"url": f"https://{host}/x?sig={SIGNATURE}", "expires_in": 60})
        report = await ns.messages.download("c", tmp_path, options=ONCE)
        assert (report.files[0].via, shop.csvs) == ("csv", 1)
    assert report.notes[0].startswith("Signed URLs were not to be had: one cannot be followed.")
    assert SIGNATURE not in repr(report)


# --- rows that are larger than any letter ------------------------------------------------------------------------------


def examined(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return examine(path, Headers(CSV), frozenset(), threading.Event()).rows


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"id\n" + b"," * 3_000_000, "after row 0, near line 1: a row has more than", id="cells"),
        pytest.param(b"," * 3_000_000, "after row 0, near line 0: a row has more than", id="columns"),
        pytest.param(b"id\n" + b'"\n",' * 300_000, "a row has more than", id="cells in several lines"),
        pytest.param(b'id\n"' + b"as it goes on\n" * 400_000, "a row is longer than", id="an open quote"),
        pytest.param(b"id\n" + b"x" * 30_000_000, "a row is longer than", id="a line"),
    ],
)
def test_a_row_takes_little_memory_however_it_is_made(tmp_path: Path, data: bytes, problem: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DamageError, match=problem):
            examined(tmp_path / "a.csv", data)
        assert tracemalloc.get_traced_memory()[1] < 35e6
    finally:
        tracemalloc.stop()


def test_rows_are_not_gathered(tmp_path: Path) -> None:
    data = b"id,m\n" + (b"1," + b"x" * 1_000_000 + b"\n") * 40
    tracemalloc.start()
    try:
        assert examined(tmp_path / "a.csv", data) == 40
        assert tracemalloc.get_traced_memory()[1] < 25e6
    finally:
        tracemalloc.stop()


def test_only_what_is_of_one_row_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_module, "_MOST", 5)
    monkeypatch.setattr(content_module, "_LONGEST", 20)
    path = tmp_path / "a.csv"

    assert examined(path, b"a,b,c\n" + b"1,2,3\n" * 1_000) == 1_000
    assert examined(path, b'a,b\n1,"x,\n,y,\n,"\n') == 1
    with pytest.raises(DamageError, match="after row 1, near line 4: a row has more than 5 commas"):
        examined(path, b'a,b\n1,2\n1,"x,\n,y,\n,,,"\n')
    assert examined(path, b'a,b\n1,"0123456789\n0123"\n1,2\n') == 2
    with pytest.raises(DamageError, match="after row 0, near line 2: a row is longer than 20 letters"):
        examined(path, b'a,b\n1,"0123456789\n01234"\n1,2\n')


# --- whether it is one run ---------------------------------------------------------------------------------------------

PAGES = (table(5), table(5, page=2))
UNKNOWN = "which run is the current one"


async def half_of(shop: Shop, directory: Path) -> None:
    """Page 1 is there, and page 2 is not."""

    async def serve(request: web.Request, page: int) -> web.StreamResponse:
        return web.Response(status=500) if page == 2 else await shop.serve_whole(request, page)

    shop.serve = serve
    await failure(shop, directory, options=ONCE, concurrency=1)
    shop.serve = shop.serve_whole


@pytest.mark.parametrize(("first", "second"), [(1, None), (None, 1)])
async def test_a_history_that_is_away_for_a_while_is_no_rerun(
    tmp_path: Path, first: int | None, second: int | None
) -> None:
    async with Shop(PAGES) as shop:
        shop.run = first
        await half_of(shop, tmp_path)
        assert manifest_in(tmp_path)["current_run"] == first
        shop.run = second
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)
            assert [file.skipped for file in report.files] == [True, False]
            assert UNKNOWN in report.notes[0]
            assert len(report.notes) == 1
            assert report.current_run == manifest_in(tmp_path)["current_run"] == 1
        shop.run = 2
        assert "it was rerun meanwhile" in str(await failure(shop, tmp_path))


async def test_what_is_learned_of_the_run_is_noted_though_all_is_there(tmp_path: Path) -> None:
    async with Shop(PAGES) as shop:
        shop.run = None
        async with shop.client() as ns:
            assert (await ns.messages.download("c", tmp_path)).current_run is None
            shop.run = 1
            report = await ns.messages.download("c", tmp_path)
            assert all(file.skipped for file in report.files)
            assert manifest_in(tmp_path)["current_run"] == 1
            assert manifest_in(tmp_path)["complete"]
        shop.run = 2
        assert "it was rerun meanwhile" in str(await failure(shop, tmp_path))


@pytest.mark.parametrize(("start", "end"), [(1, None), (None, 1)])
async def test_a_history_that_goes_or_comes_within_a_call_is_no_rerun(
    tmp_path: Path, start: int | None, end: int | None
) -> None:
    async with Shop(PAGES) as shop, shop.client() as ns:

        async def serve(request: web.Request, page: int) -> web.StreamResponse:
            shop.run = end
            return await shop.serve_whole(request, page)

        shop.run, shop.serve = start, serve
        report = await ns.messages.download("c", tmp_path)
    assert report.current_run == manifest_in(tmp_path)["current_run"] == start
    assert [UNKNOWN in note for note in report.notes] == [True]


async def test_a_rerun_is_noticed_at_the_end_by_what_an_earlier_call_knew(tmp_path: Path) -> None:
    async with Shop(PAGES) as shop:
        await half_of(shop, tmp_path)

        async def serve(request: web.Request, page: int) -> web.StreamResponse:
            shop.run = 2
            return await shop.serve_whole(request, page)

        shop.run, shop.serve = None, serve
        assert "downloaded of run 1 of the campaign, and the current run is 2" in str(await failure(shop, tmp_path))


async def test_a_campaign_without_runs_in_its_history_that_gets_one_was_rerun(tmp_path: Path) -> None:
    async with Shop(PAGES) as shop:
        shop.run = 0  # the history is empty
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)
            assert (report.current_run, report.notes) == (None, ())
            assert all(file.skipped for file in (await ns.messages.download("c", tmp_path)).files)
        shop.run = 1
        assert "the current run is 1: it was rerun meanwhile" in str(await failure(shop, tmp_path))


@pytest.mark.parametrize("rerun", [False, True])
async def test_files_that_may_be_of_two_runs_all_come_anew(tmp_path: Path, *, rerun: bool) -> None:
    old, new = PAGES, (table(6, page=8), table(6, page=9))
    async with Shop(old) as shop:

        async def serve(request: web.Request, page: int) -> web.StreamResponse:
            if rerun:
                shop.run = 2
            else:
                shop.files = [*old, table(1)]
            return await serve_with_ranges(request, old[page - 1])

        shop.serve = serve
        error = await failure(shop, tmp_path)
        assert ("it was rerun meanwhile" if rerun else "the same call downloads them anew") in str(error)
        assert manifest_in(tmp_path)["files"] == manifest_in(tmp_path)["unfinished"] == {}
        assert not manifest_in(tmp_path)["complete"]
        shop.files, shop.serve, shop.run = list(new), shop.serve_whole, None if rerun else 1
        async with shop.client() as ns:
            report = await ns.messages.download("c", tmp_path)
    assert not any(file.skipped for file in report.files)
    assert [file.path.read_bytes() for file in report.files] == list(new)


async def test_a_rerun_that_a_missing_page_shows_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    async with Shop(PAGES) as shop:

        async def serve(request: web.Request, page: int) -> web.StreamResponse:
            if page == 1:
                return await shop.serve_whole(request, page)
            shop.run = 2
            return web.Response(status=404)

        shop.serve = serve
        error = await failure(shop, tmp_path, concurrency=1)
        assert "it was rerun meanwhile" in str(error)
        assert manifest_in(tmp_path)["files"] == {}
