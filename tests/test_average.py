"""One model from several: ``wbc-batch model average``."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import invoke
from trainings import SMALL, blank_histories, write_cells

from wbc_batch.classifier import Classifier, read_bundle
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.errors import ExitCode
from wbc_batch.evaluation.folders import evaluate_folders
from wbc_batch.evaluation.leave_one_out import leave_one_out
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cell
from wbc_batch.training.calibrate import BIAS, told_bias
from wbc_batch.training.folders import train_folders
from wbc_batch.training.settings import USUAL_DIFFERENTIAL

TINY = replace(
    SMALL,
    epochs=1,
    cells_per_epoch=64,
    learning_rate=2e-2,  # far enough for means to be told from what they are of
    averaging=0.0,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def _blank_histories():
    with blank_histories():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Cells of two data sets, two models trained on one of them, and one of another kind."""
    root = tmp_path_factory.mktemp("average")
    data = (
        {"a": write_cells(root / "train", 6, 0)},
        {"b": write_cells(root / "val", 6, 100)},
    )
    train_folders("one", *data, root / "one", TINY)
    train_folders("two", *data, root / "two", TINY, drawn=5)
    train_folders("seeded", *data, root / "seeded", replace(TINY, seed=1))
    larger = replace(TINY, preprocessing=Preprocessing(size=48))
    train_folders("larger", *data, root / "larger", larger)
    others = Path(shutil.copytree(root / "two", root / "others")) / "bundle"
    replace(read_bundle(others), licence="CC-BY-NC-4.0").describe("# others\n")
    return root


def average(place: Path, *words: object):
    data = ["model", "average", f"a={place / 'train'}", "--validation", f"b={place / 'val'}"]
    return invoke(*data, *words)


@pytest.fixture(scope="module")
def averaged(place) -> Path:
    models = [word for name in ("one", "two", "one") for word in ("--of", place / name / "bundle")]
    result = average(place, *models, "-o", place / "mean", "--name", "mean", "--json")
    assert result.exit_code == ExitCode.OK, result.output
    said = json.loads(result.stdout)
    assert said["name"] == "mean"
    assert said["sha256"] == read_bundle(place / "mean").sha256
    return place / "mean"


def test_the_weights_are_the_mean(place, averaged):
    one, two, mean = (
        read_bundle(path).load()[0].state_dict()
        for path in (place / "one/bundle", place / "two/bundle", averaged)
    )
    assert not torch.equal(one["head.weight"], two["head.weight"])
    kernels = [name for name in mean if mean[name].ndim > 1]
    assert max(float((one[name] - two[name]).abs().max()) for name in kernels) > 0.02
    for name in mean.keys() - {"head.bias"}:
        expected = (2 * one[name] + two[name]) / 3
        torch.testing.assert_close(mean[name], expected, rtol=2e-3, atol=2e-4)


def test_the_average_is_told_once_how_often_the_classes_come(place, averaged):
    bundles = [read_bundle(path) for path in (place / "one/bundle", place / "two/bundle", averaged)]
    logarithm = np.log(USUAL_DIFFERENTIAL)
    usual = TINY.prior * (logarithm - logarithm.mean())
    one, two, mean = (
        bundle.load()[0].head.bias.detach().numpy() - bundle.temperature * usual
        for bundle in bundles
    )
    assert mean == pytest.approx((2 * one + two) / 3, abs=1e-4)


def test_members_of_an_earlier_version_were_told_as_much_whatever_their_temperature(place):
    bundle = read_bundle(place / "one/bundle")
    earlier = replace(bundle, training={k: v for k, v in bundle.training.items() if k != BIAS})
    logarithm = np.log(USUAL_DIFFERENTIAL)
    usual = TINY.prior * (logarithm - logarithm.mean())
    assert told_bias(bundle) == pytest.approx(bundle.temperature * usual, abs=1e-5)
    assert told_bias(earlier) == pytest.approx(usual, abs=1e-5)


def test_the_average_is_calibrated_and_classifies(place, averaged):
    bundle = read_bundle(averaged)
    members = [read_bundle(place / name / "bundle") for name in ("one", "two")]
    assert bundle.temperature not in [member.temperature for member in members]
    images = [draw_cell("monocyte", 900 + n) for n in range(4)]
    found = Classifier.load(averaged, device="cpu").predict(images)
    assert np.isfinite(found.novelty).all()
    assert len(bundle.conformal_scores()) == len(CLASSES)


def test_the_average_says_what_it_is_made_of(place, averaged):
    training = read_bundle(averaged).training
    first, second, again = training["average_of"]
    assert again == first
    assert first["sha256"] == read_bundle(place / "one/bundle").sha256
    assert second["cells"]["drawn"]["monocyte"] == 1
    assert training["cells"] == {"a": dict.fromkeys(CLASSES, 6)}
    evaluate_folders(
        averaged,
        {"b": place / "val", "c": place / "train"},
        drawn=5,
        device="cpu",
        output=place / "figures",
        card=True,
    )
    card = (averaged / "README.md").read_text()
    assert "- 2 x: seed 0, without drawn cells. Epoch 1 of 1 was kept" in card
    assert "- 1 x: seed 0, with 5 drawn cells." in card
    assert "| b | chosen on | 30 |" in card
    assert "| c | trained on | 30 |" in card
    assert "| drawn | similar to training | 5 |" in card


@pytest.mark.parametrize(
    ("models", "code", "said"),
    [
        (["one"], ExitCode.USAGE, "needs two models or more"),
        (["one", "larger"], ExitCode.FATAL, "they differ in their preprocessing"),
        (["one", "seeded"], ExitCode.FATAL, "they differ in their seed"),
        (["one", "others"], ExitCode.FATAL, "they differ in their licence"),
        (["one", "nothing"], ExitCode.FATAL, "there is no model"),
    ],
)
def test_what_has_no_average_is_said(place, tmp_path, models, code, said):
    named = [word for name in models for word in ("--of", place / name / "bundle")]
    result = average(place, *named, "-o", tmp_path / "mean")
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "mean").exists()


def test_cells_that_nothing_could_be_trained_on_are_refused(place, tmp_path):
    one = Path(shutil.copytree(place / "val" / "monocyte", tmp_path / "one" / "monocyte")).parent
    models = [word for name in ("one", "two") for word in ("--of", str(place / name / "bundle"))]
    words = ["model", "average", *models, "-o", str(tmp_path / "mean")]
    train, val = f"a={place / 'train'}", f"b={place / 'val'}"
    for data, said in (((train, f"b={one}"), "validation"), ((f"a={one}", val), "training")):
        result = invoke(*words, data[0], "--validation", data[1])
        assert result.exit_code == ExitCode.USAGE
        assert f"there are no {said} cells of basophil" in result.stderr
    assert not (tmp_path / "mean").exists()


def test_what_is_left_out_is_left_out_of_every_member(place, averaged, tmp_path):
    sources = {"a": place / "train", "b": place / "val"}
    description = tmp_path / "out" / "without-a" / "bundle" / "model.json"
    for turn in range(3):  # the second time nothing is left to do, the third time a description
        if turn == 2:
            description.unlink()  # as if stopped while it was written
        found = leave_one_out(averaged, sources, {}, tmp_path / "out", 1, "cpu")
        assert list(found.data_sets) == ["a", "b"]
        made = read_bundle(tmp_path / "out" / "without-a" / "bundle")
        members = made.training["average_of"]
        assert [set(member["cells"]) for member in members] == [{"b"}, {"b", "drawn"}, {"b"}]
        assert sum(members[1]["cells"]["drawn"].values()) == 5
        assert set(made.training["cells"]) == {"b"}
        folders = sorted(path.name for path in (tmp_path / "out" / "without-a").iterdir())
        # What counts twice is trained once.
        assert folders == ["bundle", "training-1", "training-2"]


def test_without_validation_cells_a_part_is_held_out(place, tmp_path):
    models = ["--of", str(place / "one/bundle"), "--of", str(place / "two/bundle")]
    words = ["model", "average", f"a={place / 'train'}", *models, "-o", str(tmp_path / "mean")]
    assert invoke(*words).exit_code == ExitCode.OK
    training = read_bundle(tmp_path / "mean").training
    assert training["cells"] == {"a": dict.fromkeys(CLASSES, 5)}
    assert training["validation_cells"] == {"a": dict.fromkeys(CLASSES, 1)}


def test_nothing_is_written_over(place, averaged):
    models = ["--of", place / "one/bundle", "--of", place / "two/bundle"]
    before = (averaged / "model.safetensors").read_bytes()
    result = average(place, *models, "-o", averaged)
    assert result.exit_code == ExitCode.FATAL
    assert "already exists" in result.stderr
    assert (averaged / "model.safetensors").read_bytes() == before
