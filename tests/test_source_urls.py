"""Stores that are named by URL, fetched over HTTP or from S3 by the workers themselves."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from aiohttp import web
from commands import invoke
from moto.server import ThreadedMotoServer
from report_runs import write_blanks
from runs import draw

from wbc_batch.engine.plan import Job, plan_shards
from wbc_batch.engine.work import run_shard
from wbc_batch.errors import ExitCode, InputError
from wbc_batch.sources import list_cells, read_image, readers
from wbc_batch.sources.pack import pack

CELLS, PLAIN = 48, 32
WBC_BATCH = (sys.executable, "-c", "from wbc_batch.cli import main; main()")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed store of drawn cells, and the array inside it as one of no known origin."""
    folder = tmp_path_factory.mktemp("served")
    for number in range(CELLS):
        draw(folder / "slides" / f"slide-{number % 3}" / f"{number:02d}.png", number)
    (folder / "slides" / "slide-1" / "zz.png").write_bytes(b"not a picture")
    pack([folder / "slides"], folder / "packed.zarr")
    crops = zarr.open_group(folder / "packed.zarr", mode="r")["crops"][:PLAIN]
    shape = crops.shape[1:]
    zarr.create_array(folder / "plain.zarr", data=crops, chunks=(8, *shape), shards=(16, *shape))
    return folder


# How often a request for a file whose name ends so is not answered, and how that is done.
OUTAGES: dict[str, list[str]] = {}


@web.middleware
async def _failing(request: web.Request, handler: Any) -> web.StreamResponse:
    for name, ways in OUTAGES.items():
        if request.path.endswith(name) and ways:
            way = ways.pop()
            if way.isdigit():
                return web.Response(status=int(way))
            cut = web.StreamResponse(headers={"Content-Length": "1000"})
            await cut.prepare(request)
            await cut.write(b"half")
            request.transport.close()
            return cut
    return await handler(request)


@pytest.fixture
def outages(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    monkeypatch.setattr("wbc_batch.sources.remote._PAUSES", (0.01, 0.01, 0.01))
    yield OUTAGES
    OUTAGES.clear()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """A server that answers requests for parts of files, as object stores do."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    application = web.Application(middlewares=[_failing])
    application.router.add_static("/", folder)
    runner = web.AppRunner(application)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1]

    port = asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=30)
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=30)
    loop.close()


@pytest.fixture
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same in a bucket of an object store that speaks S3, on this machine."""
    service = ThreadedMotoServer("127.0.0.1", port=0)
    service.start()
    host, port = service.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")  # reaches the workers, too
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("cells")
    for store in ("plain.zarr", "packed.zarr"):
        fsspec.filesystem("s3").put(str(folder / store), f"cells/{store}", recursive=True)
    yield "s3://cells"
    service.stop()


def test_the_crops_of_an_array_by_url_are_its_crops(folder: Path, server: str) -> None:
    crops = zarr.open_array(folder / "plain.zarr", mode="r")[:]
    for url in (f"{server}/plain.zarr", f"file://{folder}/plain.zarr"):
        cells = list(list_cells([url]))
        assert [(cell.source, cell.index, cell.group) for cell in cells] == [
            (url, number, "plain") for number in range(PLAIN)
        ]
        for cell, crop in zip(cells, crops, strict=True):
            np.testing.assert_array_equal(read_image(cell), crop)


def rows_of(store: str, run_dir: Path) -> bytes:
    options = ["-o", run_dir, "--device", "cpu", "--workers", 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbc_batch.report.drawings.write_drawings", write_blanks)
        result = invoke("classify", store, *options)
    assert result.exit_code == ExitCode.CELL_ERRORS, result.output
    return (run_dir / "cells.csv").read_bytes()


@pytest.fixture(scope="module")
def local(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The rows of the packed store, read where it is."""
    return rows_of(str(folder / "packed.zarr"), tmp_path_factory.mktemp("local") / "run")


@pytest.mark.parametrize("place", ["server", "bucket"])
def test_a_packed_store_by_url_gives_the_rows_of_the_local_one(
    local: bytes, place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"{request.getfixturevalue(place)}/packed.zarr"
    assert local.count(b"\n") == CELLS + 2
    assert rows_of(url, tmp_path / "run") == local


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{server}/none.zarr", "cannot be opened"),
        ("http://127.0.0.1:1/crops.zarr", "Cannot connect to host"),
        ("nowhere://bucket/crops.zarr", "Protocol not known"),
    ],
)
def test_a_url_that_leads_nowhere_is_named(url: str, reason: str, server: str) -> None:
    url = url.format(server=server)
    with pytest.raises(InputError, match=reason) as refused:
        list(list_cells([url]))
    assert str(refused.value).startswith(url)


def test_a_server_that_is_gone_makes_no_rows(server: str, job: Job) -> None:
    (spec, *_) = plan_shards(list_cells([f"{server}/plain.zarr"]), job, 8)
    for url, reason in (
        (f"{server}/gone.zarr", "no longer exists"),
        ("http://127.0.0.1:1/a.zarr", "does not"),
    ):
        cells = tuple(replace(cell, source=url, place=None) for cell in spec.cells)
        with pytest.raises(ConnectionError, match=reason):
            run_shard(replace(spec, cells=cells))
    assert not list(Path(job.shards).iterdir())


@pytest.mark.parametrize("ways", [["503", "503"], ["cut", "cut"]])
def test_a_short_outage_is_no_damage(
    ways: list[str], folder: Path, server: str, outages: dict[str, list[str]]
) -> None:
    crops = zarr.open_array(folder / "plain.zarr", mode="r")[:]
    cells = list(list_cells([f"{server}/plain.zarr"]))
    outages["c/1/0/0/0"] = ways
    for crop, read in zip(crops, readers(cells), strict=True):
        np.testing.assert_array_equal(read(), crop)
    assert not ways


@pytest.mark.parametrize("way", ["503", "403", "cut"])
def test_a_long_outage_makes_no_rows(
    way: str, server: str, outages: dict[str, list[str]], job: Job
) -> None:
    for store, file in (("plain", "c/1/0/0/0"), ("packed", "crops/c/0/0/0/0")):
        (spec,) = plan_shards(list_cells([f"{server}/{store}.zarr"]), job, CELLS)
        outages[file] = 100 * [way]
        with pytest.raises(ConnectionError, match=f"{file} cannot be read from the zarr store"):
            run_shard(spec)
    assert not list(Path(job.shards).iterdir())


def test_an_object_store_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    # Its retries end at different times, and those that are late were told by Python in tracebacks.
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
    refused = subprocess.run(
        [*WBC_BATCH, "classify", "s3://cells/crops.zarr", "-o", str(tmp_path / "run")],
        env=os.environ | nobody | keys,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode == ExitCode.USAGE
    (sentence,) = refused.stderr.splitlines()
    assert "s3://cells/crops.zarr" in sentence
    assert "Could not connect" in sentence
