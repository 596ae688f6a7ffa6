"""Evaluation: figures against counts by hand, what is written, cells of no class, and leave one out."""

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import invoke, room_for
from trainings import SMALL, blank_histories, write_cells

from wbc_batch.classifier import Classifier, Predictions, read_bundle
from wbc_batch.datasets.naming import named_folders
from wbc_batch.datasets.prepare import prepare_dataset
from wbc_batch.errors import IncompleteRunError, InputError, RunError
from wbc_batch.evaluation.figures import measure
from wbc_batch.evaluation.files import file_names
from wbc_batch.evaluation.folders import evaluate_folders
from wbc_batch.evaluation.leave_one_out import leave_one_out, recipes
from wbc_batch.evaluation.pictures import coverage
from wbc_batch.evaluation.unknown import auroc, read_unknown
from wbc_batch.report.limits import exact_limits
from wbc_batch.schema import CLASSES
from wbc_batch.training.folders import train_folders

TINY = replace(SMALL, epochs=2, cells_per_epoch=128, noisy=("a",))

pytestmark = pytest.mark.usefixtures("one_thread")

ODD = "<b>&'\" $1"


@pytest.fixture(scope="module", autouse=True)
def _blank_histories():
    with blank_histories():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cells")
    sets = {name: write_cells(root / name, 6, 100 * n) for n, name in enumerate("abc")}
    (root / "other" / "ghost <i>").mkdir(parents=True)
    (root / "other" / "blot").mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        noise = rng.integers(0, 256, (80, 80, 3), np.uint8)
        cv2.imwrite(str(root / "other" / "ghost <i>" / f"{n}.png"), noise)
        cv2.imwrite(str(root / "other" / "blot" / f"{n}.png"), noise // 2)
    return sets | {"other": root / "other"}


@pytest.fixture(scope="module")
def bundle(folders, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("training") / "run"
    train_folders("tiny", {"a": folders["a"]}, {"b": folders["b"]}, output, TINY, drawn=5)
    return output / "bundle"


@pytest.fixture(scope="module")
def evaluated(bundle, folders, tmp_path_factory):
    """An evaluation with an awkward name, its folder, and a copy of the model that got its card."""
    place = tmp_path_factory.mktemp("evaluated")
    model = Path(shutil.copytree(bundle, place / "model"))
    assessment = evaluate_folders(
        model,
        {"b": folders["b"], ODD: folders["c"]},
        drawn=5,
        device="cpu",
        output=place / "out",
        card=True,
        unknown={"other": folders["other"]},
        command="wbc-batch evaluate model b=b",
    )
    return assessment, place / "out", model


def predictions(probabilities: np.ndarray, label: list[str] | None = None) -> Predictions:
    probabilities = probabilities.astype(np.float32)
    predicted = np.asarray(CLASSES)[probabilities.argmax(axis=1)]
    confidence = probabilities.max(axis=1)
    label_ = predicted if label is None else np.array(label)
    return Predictions(probabilities, predicted, label_, confidence, confidence, confidence)


def sure_of(classes: list[int], confidence: list[float]) -> np.ndarray:
    rest = (1 - np.array(confidence)) / 4
    probabilities = np.repeat(rest[:, None], 5, axis=1)
    probabilities[np.arange(len(classes)), classes] = confidence
    return probabilities


def test_measures_match_a_count_by_hand():
    # two basophils, one called monocyte; two monocytes, both right; one neutrophil called monocyte
    labels = np.array([0, 0, 3, 3, 4])
    label = ["basophil", "unidentified", "monocyte", "monocyte", "monocyte"]
    evaluation = measure(predictions(sure_of([0, 3, 3, 3, 3], [0.8] * 5), label), labels)
    assert evaluation.accuracy == pytest.approx(3 / 5)
    assert evaluation.balanced_accuracy == pytest.approx((0.5 + 1 + 0) / 3)
    assert evaluation.classes["monocyte"].precision == pytest.approx(2 / 4)
    assert evaluation.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert evaluation.identified == pytest.approx(4 / 5)
    assert evaluation.accuracy_identified == pytest.approx(3 / 4)
    assert evaluation.confusion[0] == [1, 0, 0, 1, 0]
    assert evaluation.log_loss == pytest.approx(-(3 * np.log(0.8) + 2 * np.log(0.05)) / 5, rel=1e-5)
    assert np.isnan(evaluation.classes["eosinophil"].recall)


def test_exact_limits_are_those_of_the_published_tables():
    assert exact_limits(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert exact_limits(0, 20) == pytest.approx((0.0, 0.1684), abs=1e-4)
    assert np.isnan(exact_limits(0, 0)).all()


def test_bins_of_confidence_add_up_to_the_calibration_error():
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.25, 1.0, 200).round(2)
    labels = rng.integers(0, 5, 200)
    evaluation = measure(predictions(sure_of(rng.integers(0, 5, 200).tolist(), confidence)), labels)
    bins = [b for b in evaluation.reliability if b.cells]
    assert sum(b.cells for b in bins) == 200
    assert all(b.lower <= b.confidence <= b.upper for b in bins)
    gap = sum(b.cells * abs(b.confidence - b.accuracy) for b in bins) / 200
    assert gap == pytest.approx(evaluation.calibration_error, abs=1e-6)


def test_coverage_leaves_out_the_least_confident_first():
    confidence = [0.9, 0.8, 0.7, 0.6]
    evaluation = measure(predictions(sure_of([0, 0, 0, 0], confidence)), np.array([0, 0, 0, 1]))
    assert evaluation.accuracy_at(1.0) == pytest.approx(3 / 4)
    assert evaluation.accuracy_at(0.8) == pytest.approx(3 / 4)  # 3.2 cells are 4
    assert evaluation.coverage[25].accuracy == pytest.approx(1.0)
    assert evaluation.coverage[25].confidence == pytest.approx(0.7)
    # of cells with one confidence, none comes first
    even = measure(predictions(sure_of([0] * 4, [0.9] * 4)), np.array([0, 0, 0, 1]))
    assert {point.accuracy for point in even.coverage} == {0.75}


@pytest.mark.parametrize("identified", [100, 5, 0])
def test_the_dot_of_a_model_lies_in_the_picture_however_little_it_identifies(identified):
    labels = ["basophil"] * identified + ["unidentified"] * (100 - identified)
    evaluation = measure(predictions(sure_of([0] * 100, [0.9] * 100), labels), np.zeros(100, int))
    (axes,) = coverage({"lab": evaluation}).axes
    (at,) = axes.lines[1].get_xdata()
    most, least = axes.get_xlim()
    assert least < at < most
    assert least <= 9


def test_band_and_segmented_neutrophils_are_told_by_their_file_names():
    labels = np.array([4, 4, 4, 4, 3, 4])
    members = (
        "x/BNE_1.jpg",
        "BNE_2.jpg",
        "BNE_3.jpg",
        "SNE_9.jpg",
        "BNE_4.jpg",
        "NEUTROPHIL_1.jpg",
    )
    said = predictions(sure_of([4, 4, 3, 3, 4, 4], [0.9] * 6))
    evaluation = measure(said, labels, members)
    assert evaluation.neutrophils["band"].cells == 3
    assert evaluation.neutrophils["band"].recall == pytest.approx(2 / 3)
    assert evaluation.neutrophils["segmented"].recall == 0.0
    assert evaluation.neutrophils_balanced == pytest.approx(1 / 3)
    assert measure(said, labels).neutrophils == {}


def test_auroc_counts_pairs():
    known, unknown = np.array([0.1, 0.4, 0.4, 0.7]), np.array([0.4, 0.9])
    pairs = [(u > k) + 0.5 * (u == k) for u in unknown for k in known]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
    assert auroc(known, known + 1) == 1.0
    assert auroc(known, known) == 0.5


def test_the_folder_has_figures_tables_pictures_and_a_page(evaluated):
    assessment, out, _ = evaluated
    figures = json.loads((out / "evaluation.json").read_text())
    assert figures == assessment.to_dict()
    assert list(figures["data_sets"]) == ["b", ODD, "drawn"]
    assert figures["data_sets"]["b"]["role"] == "chosen on"
    with (out / "confusion-b.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true", *CLASSES]
    counts = [[int(n) for n in row[1:]] for row in rows[1:]]
    assert counts == figures["data_sets"]["b"]["confusion"]
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert len(pictures) == 5
    for name in pictures:
        assert cv2.imread(str(out / name)).std() > 1


def test_nothing_that_cannot_be_counted_is_a_number_in_json(bundle, folders, tmp_path):
    some = Path(shutil.copytree(folders["b"] / "monocyte", tmp_path / "one" / "monocyte")).parent
    assessment = evaluate_folders(bundle, {"one": some}, device="cpu", output=tmp_path / "out")
    text = (tmp_path / "out" / "evaluation.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["data_sets"]["one"]["classes"]["basophil"]["recall"] is None
    assert np.isnan(assessment.data_sets["one"].classes["basophil"].recall)


class _Page(HTMLParser):
    """Collects what a page would load, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        self.ids += [values["id"]] if "id" in values else []


def test_the_page_is_self_contained_and_escapes_names(evaluated):
    _, out, _ = evaluated
    text = (out / "evaluation.html").read_text()
    page = _Page()
    page.feed(text)
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in page.links)
    assert not {"script", "iframe", "link", "b>", "i"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert "&lt;b&gt;&amp;&#39;&#34; $1" in text
    assert "ghost &lt;i&gt;" in text
    assert len(text) < 5_000_000


def test_the_worst_mistakes_come_first(evaluated):
    assessment, out, _ = evaluated
    text = (out / "evaluation.html").read_text()
    section = text[text.index('id="set-1"') : text.index('id="set-2"')]
    shown = re.findall(r'verdict">(\w+) → (\w+) <b>.*?title="([^"]+)"', section, re.DOTALL)
    judged = assessment.known["b"]
    wrong = judged.predictions.predicted != np.asarray(CLASSES)[judged.cells.labels]
    assert len(shown) == min(wrong.sum(), 24)
    order = [judged.cells.members.index(member) for _, _, member in shown]
    confidence = judged.predictions.confidence[order]
    assert (np.diff(confidence) <= 0).all()
    assert confidence[0] == judged.predictions.confidence[wrong].max()
    for place, (true, predicted, _) in zip(order, shown, strict=True):
        assert true == CLASSES[judged.cells.labels[place]] != predicted


def test_cells_of_no_class_are_held_against_known_ones(evaluated):
    assessment, _, _ = evaluated
    found = assessment.unknown_sets["other"]
    assert set(found.kinds) == {"blot", "ghost <i>"}
    assert found.overall.cells == 6
    separation = found.overall.auroc["b"]
    known, other = assessment.known["b"].predictions, assessment.unknown["other"].predictions
    assert separation.novelty == pytest.approx(auroc(known.novelty, other.novelty))
    assert found.overall.unidentified == pytest.approx((other.label == "unidentified").mean())


def test_a_known_class_among_the_unknown_is_refused(folders):
    with pytest.raises(InputError, match="one of the classes"):
        read_unknown("other", folders["a"], TINY.preprocessing)


def test_cells_of_no_class_are_those_that_were_prepared(folders, tmp_path):
    cells = Path(shutil.copytree(folders["b"], tmp_path / "cells"))
    shutil.copytree(folders["other"] / "blot", cells / "blot")
    labels = {"blot": "out_of_class"}
    prepare_dataset(tmp_path / "d", folders={"cells": cells}, labels=labels)
    (part,) = named_folders([str(tmp_path / "d")], "out_of_class").values()
    assert read_unknown("other", part, TINY.preprocessing).kinds == ("blot",) * 3
    shutil.copy(next(cells.glob("basophil/*")), cells / "blot" / "1.png")
    with pytest.raises(
        InputError, match=r"blot/1\.png has changed since the data set was prepared"
    ):
        read_unknown("other", part, TINY.preprocessing)


def test_the_card_states_what_was_measured(evaluated):
    assessment, _, model = evaluated
    card = (model / "README.md").read_text()
    figures = assessment.data_sets["b"]
    assert "wbc-batch evaluate model b=b" in card
    assert f"computed on {assessment.facts['Computed on']}; other devices" in card
    assert "research use only" in card
    assert f"| b | chosen on | 30 | {100 * figures.accuracy:.1f} (" in card
    kept = " | ".join(f"{100 * figures.accuracy_at(c):.1f}" for c in (1.0, 0.95, 0.9, 0.8))
    assert f"| b | {kept} |" in card
    area = assessment.unknown_sets["other"].overall.auroc["b"].novelty
    assert re.search(rf"\| other: all \| 6 \| [\d.]+ \| {area:.3f} \|", card)
    assert f"Training started from {read_bundle(model).training['start']}" in card
    metrics = Classifier.load(model).bundle.metrics
    assert metrics == assessment.metrics()
    assert len(metrics["data_sets"]["b"]["coverage"]) == 4


def test_a_folder_of_something_else_is_left_alone(bundle, folders, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        evaluate_folders(bundle, {"b": folders["b"]}, device="cpu", output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_earlier_evaluation_is_replaced(bundle, folders, tmp_path):
    out = tmp_path / "out"
    for name in ("b", "c"):
        evaluate_folders(bundle, {name: folders[name]}, device="cpu", output=out)
    assert [path.name for path in sorted(out.glob("*.csv"))] == ["confusion-c.csv"]


def test_an_earlier_evaluation_stays_where_there_is_no_newer_one(bundle, folders, tmp_path):
    cells = Path(shutil.copytree(folders["b"], tmp_path / "cells"))
    out = tmp_path / "out"

    def evaluate() -> None:
        evaluate_folders(bundle, {"b": cells}, device="cpu", output=out)

    evaluate()
    earlier = {path.name: path.read_bytes() for path in out.iterdir()}
    next(cells.glob("*/*.png")).unlink()
    with room_for(1_000), pytest.raises(IncompleteRunError, match="out cannot be written"):
        evaluate()  # there is room for tables, but for no pictures
    assert {path.name: path.read_bytes() for path in out.iterdir()} == earlier
    next(cells.glob("*/*.png")).write_bytes(b"x")
    with pytest.raises(InputError, match=r"cannot be used: "):
        evaluate()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == earlier


def test_names_that_clash_are_refused(bundle, folders):
    with pytest.raises(InputError, match="called 'drawn'"):
        evaluate_folders(bundle, {"drawn": folders["b"]}, drawn=5, device="cpu")
    with pytest.raises(InputError, match="as known and as unknown"):
        evaluate_folders(bundle, {"b": folders["b"]}, device="cpu", unknown={"b": folders["other"]})
    with pytest.raises(InputError, match="no data set was given"):
        evaluate_folders(bundle, {}, device="cpu")


@pytest.fixture(scope="module")
def left_out(bundle, folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("leave") / "out"
    sources = {name: folders[name] for name in "ab"}
    leave_one_out(bundle, sources, {"c": folders["c"]}, output, 1, "cpu")
    return output


def test_each_data_set_is_left_out_once(left_out):
    figures = json.loads((left_out / "leave-one-out.json").read_text())["data_sets"]
    assert list(figures) == ["a", "b", "c, a left out", "c, b left out"]
    assert figures["a"]["role"] == "left out"
    assert figures["c, a left out"]["role"] == "never trained on"
    for name, other in (("a", "b"), ("b", "a")):
        training = read_bundle(left_out / f"without-{name}" / "bundle").training
        assert set(training["cells"]) == {other, "drawn"}
        assert set(training["validation_cells"]) == {other}
        assert sum(training["cells"]["drawn"].values()) == 5  # as in the recipe
        assert sum(training["validation_cells"][other].values()) in range(3, 7)
        assert training["settings"]["arguments"] == TINY.arguments
        assert training["settings"]["epochs"] == 1
    assert (left_out / "leave-one-out.html").is_file()


def test_what_is_trained_is_not_trained_again(left_out, bundle, folders):
    weights = left_out / "without-a" / "bundle" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    sources = {name: folders[name] for name in "ab"}
    again = leave_one_out(bundle, sources, {}, left_out, 1, "cpu")
    assert weights.stat().st_mtime_ns == before
    assert list(again.data_sets) == ["a", "b"]


def test_a_recipe_survives_its_way_through_json(bundle):
    (recipe,) = recipes(read_bundle(bundle))
    assert recipe.settings == TINY
    assert recipe.drawn == 5


def test_what_has_no_recipe_cannot_be_left_out_of(bundle, folders, tmp_path):
    known = read_bundle(bundle)
    with pytest.raises(InputError, match="does not say how it was trained"):
        recipes(replace(known, training={}))
    settings = known.training["settings"] | {"start": "some/model"}
    with pytest.raises(InputError, match="may have seen"):
        recipes(replace(known, training={"settings": settings}))
    with pytest.raises(InputError, match="two or more"):
        leave_one_out(bundle, {"a": folders["a"]}, {}, tmp_path / "out")
    sources = {name: folders[name] for name in "ab"}
    with pytest.raises(InputError, match="give it only once"):
        leave_one_out(bundle, sources, {"a": folders["c"]}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_would_end_a_later_training_is_said_before_the_first(bundle, folders, tmp_path):
    out = tmp_path / "out"
    sources = {name: folders[name] for name in "ab"}
    with pytest.raises(InputError, match="both training and test cells"):
        leave_one_out(bundle, sources, {"c": folders["a"]}, out, 1, "cpu")
    lacking = Path(shutil.copytree(folders["b"], tmp_path / "lacking"))
    shutil.rmtree(lacking / "basophil")
    with pytest.raises(InputError, match="no training cells of basophil"):
        leave_one_out(bundle, {"b": lacking, "a": folders["a"]}, {}, out, 1, "cpu")
    few = {
        name: write_cells(tmp_path / name, 3, 100 * n) for n, name in enumerate(("a b", "a_b"), 5)
    }
    with pytest.raises(
        InputError, match=r"without 'a b' .* too few cells of basophil.* 10% of them"
    ):
        leave_one_out(bundle, few, {}, out, 1, "cpu")
    assert not list(out.glob("without-*"))


def test_data_sets_whose_names_look_alike_have_files_of_their_own():
    names = ("a_b-3", "a b", "a_b", "A_B", "c")
    given = file_names(names)
    assert list(given) == list(names)
    assert len({name.casefold() for name in given.values()}) == len(names)
    assert given["c"] == "c"


def test_names_that_look_alike_are_left_out_each(bundle, folders, tmp_path):
    sources = {"a b": folders["a"], "a_b": folders["b"]}
    assert list(leave_one_out(bundle, sources, {}, tmp_path / "out", 1, "cpu").data_sets) == [
        *sources
    ]


def test_a_model_without_a_novelty_score_has_no_area(bundle, folders, tmp_path):
    model = Path(shutil.copytree(bundle, tmp_path / "model"))
    replace(read_bundle(model), novelty_scale=None).describe("")
    arguments = (model, f"b={folders['b']}", "--unknown", f"o={folders['other']}", "--card")
    told = invoke("evaluate", *arguments, "--device", "cpu", "-o", tmp_path / "out")
    assert told.exit_code == 0, told.output
    page = re.sub(
        r"(?s)<svg.*?</svg>|base64,[\w+/=]*", "", (tmp_path / "out/evaluation.html").read_text()
    )
    for text in (told.stdout, (model / "README.md").read_text(), page):
        assert not re.search(r"\bnan\b", text)


def test_evaluate_is_a_command(bundle, folders, tmp_path):
    arguments = ("evaluate", bundle, f"b={folders['b']}", "--unknown", f"o={folders['other']}")
    told = invoke(*arguments, "--device", "cpu", "-o", tmp_path / "out")
    assert told.exit_code == 0, told.output
    assert "b: 30 cells, accuracy" in told.stdout
    assert "AUROC against" in told.stdout
    assert str(tmp_path / "out" / "evaluation.html") in told.stdout.replace("\n", "")
    asked = invoke(*arguments, "--device", "cpu", "--json")
    assert json.loads(asked.stdout)["unknown"]["o"]["overall"]["cells"] == 6


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--leave-one-out",), "with -o"),
        (("--leave-one-out", "--card", "-o", "x"), "measures how a model is trained"),
        (("--also", "a=x"), "need --leave-one-out"),
    ],
)
def test_options_that_do_not_go_together_are_named(bundle, folders, arguments, reason):
    told = invoke("evaluate", bundle, f"b={folders['b']}", *arguments)
    assert told.exit_code == 2
    assert reason in told.stderr


@pytest.mark.realdata
def test_real_cells_of_no_class(real_cells, tmp_path):
    told = invoke(
        "evaluate", "default", f"pbc_val={real_cells / 'pbc' / 'val'}",
        "--unknown", f"other={real_cells / 'pbc_other'}", "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    assert figures["data_sets"]["pbc_val"]["neutrophils"]["band"]["cells"] == 66
    assert figures["data_sets"]["pbc_val"]["accuracy"] >= 0.95
    overall = figures["unknown"]["other"]["overall"]
    assert overall["cells"] == 691
    assert overall["auroc"]["pbc_val"]["novelty"] >= 0.8
