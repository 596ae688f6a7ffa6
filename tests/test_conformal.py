"""Prediction sets hold the truth as often as they promise, class by class."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from commands import invoke
from safetensors.numpy import load_file, save

from wbc_batch.classifier import read_bundle
from wbc_batch.classifier.conformal import (
    conformal_scores,
    conformal_thresholds,
    prediction_sets,
)
from wbc_batch.errors import ModelError
from wbc_batch.schema import CLASSES as NAMES
from wbc_batch.synthetic import write_slides

CLASSES = 5

pytestmark = pytest.mark.usefixtures("blank_drawings")


def simulated(rng, cells):
    """Probabilities of a fair but unsure classifier, with a rare last class."""
    labels = rng.choice(CLASSES, cells, p=[0.3, 0.3, 0.2, 0.15, 0.05])
    logits = rng.normal(0.0, 1.5, (cells, CLASSES))
    logits[np.arange(cells), labels] += rng.normal(2.0, 1.0, cells) - (labels == 4)
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_cover_each_class(coverage):
    rng = np.random.default_rng(0)
    held = np.zeros((200, CLASSES))
    for trial in held:
        thresholds = conformal_thresholds(conformal_scores(*simulated(rng, 800)), coverage)
        probabilities, labels = simulated(rng, 2000)
        sets = prediction_sets(probabilities, thresholds)
        trial[:] = [sets[labels == k, k].mean() for k in range(CLASSES)]
    assert (held.mean(axis=0) >= coverage - 0.005).all()
    assert (held.mean(axis=0)[:4] <= coverage + 0.02).all()  # and no more than they need to


def test_a_class_with_too_few_validation_cells_is_never_excluded():
    probabilities, labels = simulated(np.random.default_rng(1), 500)
    few = np.flatnonzero(labels != 2)
    few = np.append(few, np.flatnonzero(labels == 2)[:10])  # 10 cells cannot promise 95 %
    thresholds = conformal_thresholds(conformal_scores(probabilities[few], labels[few]), 0.95)
    sets = prediction_sets(probabilities, thresholds)
    assert sets[:, 2].all()
    assert not sets.all()


def test_the_threshold_is_the_score_of_the_rank_as_it_is_written():
    scores = [np.arange(1, 100, dtype=np.float32) / 100]
    for percent in range(1, 100):
        assert conformal_thresholds(scores, percent / 100) == scores[0][percent - 1]


def test_a_higher_coverage_gives_larger_sets():
    probabilities, labels = simulated(np.random.default_rng(2), 1000)
    scores = conformal_scores(probabilities, labels)
    sizes = [
        prediction_sets(probabilities, conformal_thresholds(scores, c)).sum()
        for c in (0.5, 0.8, 0.95, 0.99)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def classify(*arguments):
    return invoke("classify", *arguments, "--workers", 1)


def test_the_command_adds_a_column_with_the_sets(tmp_path):
    write_slides(tmp_path / "drawn", slides=1, cells=20, seed=3)
    broken = tmp_path / "drawn" / "slides" / "broken.png"
    broken.write_bytes(b"no picture")
    ran = classify(tmp_path / "drawn" / "slides", "-o", tmp_path / "run", "--coverage", 0.95)
    assert ran.exit_code == 3, ran.output
    rows = pd.read_csv(tmp_path / "run" / "cells.csv", keep_default_na=False)
    assert list(rows.columns)[-1] == "prediction_set"
    asked = json.loads((tmp_path / "run" / "run.json").read_text())["prediction_sets"]
    assert asked["coverage"] == 0.95
    for row in rows[rows["status"] == "ok"].to_dict("records"):
        wanted = [
            name
            for name, threshold in zip(NAMES, asked["thresholds"], strict=True)
            if 1.0 - float(row[f"prob_{name}"]) <= threshold
        ]
        assert row["prediction_set"] == "|".join(wanted)
    assert (rows.loc[rows["status"] == "error", "prediction_set"] == "").all()


def test_sets_are_optional(undisturbed):
    assert "prediction_set" not in pd.read_csv(undisturbed / "cells.csv").columns


@pytest.mark.parametrize("coverage", ["0", "1", "1.5", "nan"])
def test_an_impossible_coverage_is_refused_before_any_work(tmp_path, coverage):
    write_slides(tmp_path / "drawn", slides=1, cells=3, seed=3)
    ran = classify(tmp_path / "drawn" / "slides", "-o", tmp_path / "run", "--coverage", coverage)
    assert ran.exit_code == 2
    assert "between 0 and 1" in ran.output
    assert not (tmp_path / "run").exists()


def test_a_model_without_validation_scores_says_so(tmp_path):
    shutil.copytree(read_bundle().path, tmp_path / "old")
    weights = tmp_path / "old" / "model.safetensors"
    kept = {k: v for k, v in load_file(weights).items() if not k.startswith("conformal.")}
    weights.write_bytes(save(kept))
    described = json.loads((tmp_path / "old" / "model.json").read_text())
    described["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (tmp_path / "old" / "model.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="leave --coverage out"):
        read_bundle(tmp_path / "old").conformal_scores()
