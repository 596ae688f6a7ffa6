"""Training and evaluation on folders of drawn cells, with a network small enough for a test."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from wbc_batch.classifier import Classifier, Predictions
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.errors import InputError, RunError
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cell
from wbc_batch.training.augmentation import Augmentation, augment
from wbc_batch.training.datasets import read_dataset, sampling_weights
from wbc_batch.training.evaluate import measure
from wbc_batch.training.folders import evaluate_folders, named_folders, train_folders
from wbc_batch.training.loss import training_loss
from wbc_batch.training.train import Settings

TINY = Settings(
    arguments={"widths": [16, 16, 32, 32], "dropout": 0.0},
    preprocessing=Preprocessing(size=40),
    epochs=4,
    cells_per_epoch=400,
    batch_size=16,
    averaging=0.8,
    device="cpu",
)


def _write(folder: Path, per_class: int, seed: int) -> Path:
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for n in range(per_class):
            image = draw_cell(label, seed + n, size=160)
            cv2.imwrite(str(folder / label / f"cell-{n}.png"), image[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cells")
    return {"train": _write(root / "train", 8, 100), "val": _write(root / "val", 3, 900)}


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("training") / "run"
    train_folders("tiny", {"a": folders["train"]}, {"b": folders["val"]}, output, TINY)
    return output


def test_training_leaves_a_bundle_that_learned_something(trained, folders):
    evaluation = evaluate_folders(trained / "bundle", {"train": folders["train"]}, device="cpu")
    assert evaluation["train"].accuracy > 0.4  # one in five is chance
    classifier = Classifier.load(trained / "bundle")
    assert classifier.name == "tiny"
    assert classifier.input_size == 40
    assert classifier.bundle.training["cells"]["a"]["monocyte"] == 8


def test_the_history_has_a_row_per_epoch_and_a_picture(trained):
    with (trained / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert "accuracy_b" in rows[0]
    picture = cv2.imread(str(trained / "history.png"))
    assert picture is not None


def test_the_same_seed_gives_the_same_weights(trained, folders, tmp_path):
    again = train_folders(
        "tiny", {"a": folders["train"]}, {"b": folders["val"]}, tmp_path / "again", TINY
    )
    assert again.sha256 == Classifier.load(trained / "bundle").sha256
    other = train_folders(
        "tiny",
        {"a": folders["train"]},
        {"b": folders["val"]},
        tmp_path / "other",
        replace(TINY, seed=1, epochs=1),
    )
    assert other.sha256 != again.sha256


def test_drawn_cells_can_be_added(folders, tmp_path):
    bundle = train_folders(
        "tiny",
        {"a": folders["train"]},
        {"b": folders["val"]},
        tmp_path / "run",
        replace(TINY, epochs=1),
        drawn=10,
    )
    assert sum(bundle.training["cells"]["drawn"].values()) == 10


def test_a_directory_that_holds_something_is_left_alone(folders, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        train_folders("tiny", {"a": folders["train"]}, {"b": folders["val"]}, tmp_path, TINY)


def test_unusable_data_are_named_before_training(folders, tmp_path):
    def start(training: Path, name: str = "a") -> None:
        train_folders("t", {name: training}, {"b": folders["val"]}, tmp_path / "run", TINY)

    with pytest.raises(InputError, match="nowhere"):
        start(tmp_path / "nowhere")
    with pytest.raises(InputError, match="both training and validation"):
        start(folders["val"], "b")
    with pytest.raises(InputError, match="no training data set 'c' to call noisy"):
        train_folders(
            "t",
            {"a": folders["train"]},
            {"b": folders["val"]},
            tmp_path / "run",
            replace(TINY, noisy=("c",)),
        )

    copy = Path(shutil.copytree(folders["train"], tmp_path / "copy"))
    (copy / "monocyte" / "cell-1.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"cell-1\.png cannot be used"):
        start(copy)
    shutil.rmtree(copy / "monocyte")
    with pytest.raises(InputError, match="no training cells of monocyte"):
        start(copy)
    (copy / "blast").mkdir()
    shutil.copy(copy / "basophil" / "cell-0.png", copy / "blast")
    with pytest.raises(InputError, match="'blast', which is no class"):
        start(copy)
    assert not (tmp_path / "run").exists()


def test_evaluation_writes_figures_and_the_card(trained, folders, tmp_path):
    bundle = Path(shutil.copytree(trained / "bundle", tmp_path / "bundle"))
    evaluations = evaluate_folders(
        bundle,
        {"held out": folders["val"]},
        drawn=5,
        device="cpu",
        output=tmp_path / "figures.json",
        card=True,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"held out", "drawn"}
    assert figures["held out"]["accuracy"] == evaluations["held out"].accuracy
    card = (bundle / "README.md").read_text()
    assert "held out" in card
    assert f"{100 * evaluations['held out'].accuracy:.1f}" in card
    assert "research use only" in card
    assert Classifier.load(bundle).bundle.metrics == figures


def test_measures_match_a_count_by_hand():
    # two basophils, one called monocyte; two monocytes, both right; one neutrophil called monocyte
    labels = np.array([0, 0, 3, 3, 4])
    probabilities = np.full((5, 5), 0.05, np.float32)
    probabilities[np.arange(5), [0, 3, 3, 3, 3]] = 0.8
    name = np.array(["x"] * 5)
    label = np.array(["basophil", "unidentified", "monocyte", "monocyte", "monocyte"])
    column = np.zeros(5, np.float32)
    evaluation = measure(Predictions(probabilities, name, label, column, column, column), labels)
    assert evaluation.accuracy == pytest.approx(3 / 5)
    assert evaluation.balanced_accuracy == pytest.approx((0.5 + 1 + 0) / 3)
    assert evaluation.classes["monocyte"].precision == pytest.approx(2 / 4)
    assert evaluation.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert evaluation.identified == pytest.approx(4 / 5)
    assert evaluation.accuracy_identified == pytest.approx(3 / 4)
    assert evaluation.confusion[0] == [1, 0, 0, 1, 0]
    assert evaluation.to_dict()["classes"]["eosinophil"]["recall"] is None


def test_classes_and_kinds_are_balanced(tmp_path):
    image = cv2.imencode(".png", draw_cell("neutrophil", 1, size=60))[1].tobytes()
    for name in ["neutrophil/BNE_%d", "neutrophil/SNE_%d", "monocyte/MO_%d"]:
        for n in range(4 if "BNE" in name else 1):
            path = tmp_path / (name % n + ".png")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(image)
    cells = read_dataset("pbc", tmp_path, Preprocessing(size=16))
    weights = dict(zip(cells.members, sampling_weights(cells), strict=True))
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["monocyte/MO_0.png"] == pytest.approx(0.5)
    assert weights["neutrophil/SNE_0.png"] == pytest.approx(0.5 / 3)
    assert weights["neutrophil/BNE_0.png"] == pytest.approx(0.5 * 2 / 3 / 4)


def test_labels_that_the_network_speaks_against_are_forgiven_where_they_are_noisy():
    sure = torch.tensor([[6.0, 0, 0, 0, 0]], requires_grad=True)
    wrong, right = torch.tensor([3]), torch.tensor([0])

    def pull(labels, noisy):
        loss = training_loss(sure, labels, torch.tensor([noisy]), smoothing=0.0)
        return torch.autograd.grad(loss, sure)[0].abs().sum().item()

    assert pull(wrong, True) < 0.05 * pull(wrong, False)
    assert pull(right, True) == pytest.approx(pull(right, False), rel=0.05)


def test_augmentation_hangs_on_its_generator_alone():
    crop = draw_cell("eosinophil", 5, size=56)
    first, again, other = (
        augment(crop, 40, Augmentation(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (40, 40, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_data_sets_are_named():
    named = named_folders(["pbc=some/train", "other/raabin"])
    assert named == {"pbc": Path("some/train"), "raabin": Path("other/raabin")}
    with pytest.raises(InputError, match="two data sets are called 'x'"):
        named_folders(["x=a", "b/x"])
