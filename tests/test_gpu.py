"""Runs on a GPU, through the doors that they have everywhere. Skipped where there is none."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image
from report_runs import write_blanks

from wbc_batch.classifier import Classifier
from wbc_batch.engine.machine import cores
from wbc_batch.errors import ExitCode, WbcError
from wbc_batch.ledger import committed
from wbc_batch.run import classify_paths
from wbc_batch.schema import PROBABILITY_COLUMNS
from wbc_batch.synthetic import draw_cells

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CELLS, COPIES = 60, 8


@pytest.fixture(scope="module", autouse=True)
def _without_drawings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbc_batch.report.drawings.write_drawings", write_blanks)
        yield


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    return list(draw_cells(CELLS, seed=77, size=240)[0])


@pytest.fixture(scope="module")
def copies(drawn: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides that hold the same cells, each at another place of its shard."""
    folder = tmp_path_factory.mktemp("cells")
    for number, image in enumerate(drawn):
        original = folder / f"{number:02d}.png"
        Image.fromarray(image).save(original)
        for copy in range(COPIES):
            slide = folder / "slides" / f"slide-{copy}"
            slide.mkdir(parents=True, exist_ok=True)
            os.link(original, slide / f"{(number + 7 * copy) % CELLS:02d}-{number:02d}.png")
    return folder / "slides"


@pytest.fixture(scope="module")
def on_gpu(copies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an undisturbed run on the GPU of this machine."""
    run_dir = tmp_path_factory.mktemp("runs") / "gpu"
    summary = classify_paths(copies, run_dir, device="cuda")
    assert (summary.exit_code, summary.cells, summary.errors) == (ExitCode.OK, CELLS * COPIES, 0)
    return run_dir


@pytest.fixture(scope="module")
def exact() -> Classifier:
    return Classifier.load(device="cpu", precision="fp32", backend="torch")


def _rows(run_dir: Path) -> pd.DataFrame:
    """The rows of a run, each with the number of its drawing."""
    rows = pd.read_csv(run_dir / "cells.csv", dtype={"cell_id": str})
    return rows.assign(drawing=rows["member"].str.extract(r"-(\d+)\.png$")[0].astype(int))


def test_a_run_says_what_it_ran_on(on_gpu: Path) -> None:
    record = json.loads((on_gpu / "run.json").read_text())
    assert (record["device"], record["backend"]) == ("cuda", "torch")
    assert record["precision"] in ("bf16", "fp16")
    assert (record["workers"], record["threads_per_worker"]) == (1, cores())


def test_a_run_agrees_with_the_cpu(
    on_gpu: Path, exact: Classifier, drawn: list[np.ndarray]
) -> None:
    expected = exact.predict(drawn)
    rows = _rows(on_gpu)
    share = np.mean(rows["label"].to_numpy() == expected.label[rows["drawing"]])
    assert share >= 0.95  # 16 bits move a cell at a threshold
    found = rows[list(PROBABILITY_COLUMNS)].to_numpy()
    assert np.abs(found - expected.probabilities[rows["drawing"]]).mean() < 0.01


def test_the_company_of_a_cell_does_not_matter(on_gpu: Path) -> None:
    computed = ["label", "predicted", "confidence", "margin", "novelty", *PROBABILITY_COLUMNS]
    rows = _rows(on_gpu)
    assert (rows.groupby("drawing")[computed].nunique(dropna=False) == 1).all(axis=None)


def test_a_stopped_run_ends_in_the_same_bytes(copies: Path, on_gpu: Path, tmp_path: Path) -> None:
    def stop(done: int, _all: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classify_paths(copies, tmp_path / "run", device="cuda", progress=stop)
    assert 0 < sum(shard.cells for shard in committed(tmp_path / "run")) < CELLS * COPIES
    classify_paths(copies, tmp_path / "run", device="cuda")
    ours = (tmp_path / "run" / "cells.csv").read_bytes()
    assert ours == (on_gpu / "cells.csv").read_bytes()


def test_a_gpu_cluster_is_started_from_a_file_and_closed(
    copies: Path, on_gpu: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dask_cuda")
    (tmp_path / "cluster.yaml").write_text("class: LocalCUDACluster\n")
    before = set(psutil.Process().children(recursive=True))
    classify_paths(copies, tmp_path / "run", cluster=tmp_path / "cluster.yaml")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["device"], record["workers"]) == ("cuda", torch.cuda.device_count())
    ours = (tmp_path / "run" / "cells.csv").read_bytes()
    assert ours == (on_gpu / "cells.csv").read_bytes()
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [process for process in left if "spawn_main" in " ".join(process.cmdline())]


def test_fp32_is_what_it_says(exact: Classifier, drawn: list[np.ndarray]) -> None:
    cuda = Classifier.load(device="cuda", precision="fp32").predict(drawn)
    expected = exact.predict(drawn)
    # TF32, which cuDNN would take, is as coarse as 1e-3.
    np.testing.assert_allclose(cuda.probabilities, expected.probabilities, atol=1e-4)
    assert cuda.label.tolist() == expected.label.tolist()


def test_a_gpu_short_of_memory_takes_smaller_batches(drawn: list[np.ndarray]) -> None:
    classifier = Classifier.load(device="cuda")
    whole = classifier.batch_size
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    expected = classifier.predict(drawn)
    needed = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(needed / 4 / total)
    try:
        predictions = classifier.predict(drawn)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= classifier.batch_size < whole
    # cuDNN may add in another order in smaller batches: 16 bits move a cell at a threshold.
    assert np.mean(predictions.label == expected.label) >= 0.95
    np.testing.assert_allclose(predictions.probabilities, expected.probabilities, atol=0.02)


def test_a_gpu_without_memory_for_the_model_is_said() -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(WbcError, match="not have enough memory for the model"):
            Classifier.load(device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
