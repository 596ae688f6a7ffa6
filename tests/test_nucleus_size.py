"""What the size of the nucleus says of the class."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wbc_batch.classifier import Classifier, read_bundle
from wbc_batch.classifier.bundle import find_bundle
from wbc_batch.classifier.nucleus_size import SizeEvidence, fit_size_evidence
from wbc_batch.engine.plan import model_digest
from wbc_batch.errors import ModelError
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cells

USUAL = np.array([2.0, 1.9, 1.5, 2.1, 1.7])
LYMPHOCYTE, MONOCYTE = CLASSES.index("lymphocyte"), CLASSES.index("monocyte")


def sample(each: int, usual: np.ndarray = USUAL, spread: float = 0.12, seed: int = 0):
    """Sizes of as many nuclei of each class, and their classes."""
    labels = np.repeat(np.arange(5), each)
    noise = np.random.default_rng(seed).normal(0, spread, len(labels))
    return (usual[labels] * np.exp(noise)).astype(np.float32), labels


def test_usual_sizes_are_learned_whatever_goes_wrong_with_some():
    sizes, labels = sample(400)
    sizes[::9], sizes[1::10] = np.nan, 9.0
    evidence = fit_size_evidence(sizes, labels, ["a"] * len(sizes), 5)
    assert evidence is not None
    assert evidence.medians == pytest.approx(USUAL, rel=0.04)
    assert evidence.spread == pytest.approx(0.12, rel=0.25)


def test_every_data_set_that_knows_all_classes_counts_alike():
    many, many_labels = sample(300)
    few, few_labels = sample(30, USUAL * 1.2, seed=1)
    some, some_labels = sample(29, USUAL * 5, seed=2)  # not enough
    evidence = fit_size_evidence(
        np.concatenate([many, few, some]),
        np.concatenate([many_labels, few_labels, some_labels]),
        ["many"] * len(many) + ["few"] * len(few) + ["some"] * len(some),
        5,
    )
    assert evidence is not None
    assert evidence.medians == pytest.approx(USUAL * np.sqrt(1.2), rel=0.04)
    assert fit_size_evidence(some, some_labels, ["some"] * len(some), 5) is None


def test_a_size_speaks_for_the_classes_that_have_it_and_nan_for_none():
    evidence = SizeEvidence(tuple(USUAL), 0.12)
    small, large, unknown, absurd = evidence.log_likelihood(
        np.array([1.45, 2.1, np.nan, 40.0], np.float32)
    )
    assert small.argmax() == LYMPHOCYTE
    assert large.argmax() == MONOCYTE
    assert small[LYMPHOCYTE] - small[MONOCYTE] > 1
    assert unknown.tolist() == [0] * 5
    assert np.ptp(absurd) < 0.01  # what cannot be says nothing
    assert np.ptp(small) < 3.1  # no size alone settles the class


def test_the_size_moves_what_the_network_says_of_the_pixels():
    classifier = Classifier.load(device="cpu", precision="fp32")
    classifier.bundle = replace(classifier.bundle, size_evidence=SizeEvidence(tuple(USUAL), 0.12))
    crops = np.stack([classifier.prepare(image).pixels for image in draw_cells(6, seed=3)[0]])

    def lymphocyte(size: float) -> np.ndarray:
        sizes = np.full(len(crops), size, np.float32)
        return classifier.predict_prepared(crops, sizes).probabilities[:, LYMPHOCYTE]

    plain = classifier.predict_prepared(crops).probabilities[:, LYMPHOCYTE]
    assert (lymphocyte(1.45) > plain).all()
    assert (lymphocyte(2.1) < plain).all()
    assert lymphocyte(np.nan).tolist() == plain.tolist()


def test_a_picture_is_classified_by_its_pixels_and_its_size():
    classifier = Classifier.load(device="cpu", precision="fp32")
    images = draw_cells(6, seed=3)[0]
    crops = [classifier.prepare(image) for image in images]
    assert classifier.bundle.size_evidence is not None
    ours = classifier.predict(images).probabilities
    pixels, sizes = np.stack([c.pixels for c in crops]), np.array([c.nucleus_size for c in crops])
    np.testing.assert_allclose(
        ours, classifier.predict_prepared(pixels, sizes).probabilities, atol=1e-5
    )
    assert np.abs(ours - classifier.predict_prepared(pixels).probabilities).max() > 1e-3


def test_the_evidence_is_part_of_the_model(tmp_path: Path):
    place = Path(shutil.copytree(find_bundle("default"), tmp_path / "bundle"))
    known = read_bundle(place)
    other = replace(known, size_evidence=SizeEvidence(tuple(USUAL), 0.3))
    other.describe("# other\n")
    assert read_bundle(place).size_evidence == SizeEvidence(tuple(USUAL), 0.3)
    assert model_digest(read_bundle(place)) != model_digest(known)
    described = json.loads((place / "model.json").read_text())
    described["size_evidence"] = None
    (place / "model.json").write_text(json.dumps(described))
    assert read_bundle(place).size_evidence is None
    described["size_evidence"] = {"medians": [1, 2, 3, 4, 5], "width": 1}
    (place / "model.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="not a usable model description"):
        read_bundle(place)


@pytest.mark.realdata
def test_sizes_of_real_cells_are_what_haematologists_know(real_cells):
    """Lymphocytes are the small ones, in two laboratories with different cameras, and by the same measure."""
    from wbc_batch.datasets.labelled import read_dataset

    ratios = []
    for name in ("pbc/val", "raabin"):
        cells = read_dataset("some", real_cells / name, read_bundle().preprocessing)
        known = np.isfinite(cells.sizes)
        assert known.mean() > 0.9
        lymphocyte, monocyte = (
            np.median(cells.sizes[known & (cells.labels == k)]) for k in (LYMPHOCYTE, MONOCYTE)
        )
        assert 1.4 < lymphocyte < 1.75
        ratios.append(monocyte / lymphocyte)
    assert min(ratios) > 1.2
    bccd = read_dataset("close", real_cells / "bccd", read_bundle().preprocessing)
    assert np.isnan(bccd.sizes).mean() > 0.95  # cut out around the cell: no red cells to measure
