"""Training on folders of drawn cells, with a network small enough for a test."""

import csv
import json
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from commands import room_for
from runs import contents, hold_open
from torchvision.models import get_model
from trainings import SMALL, blank_histories, write_cells

from wbc_batch.classifier import Bundle, Classifier, read_bundle
from wbc_batch.classifier.devices import BATCH_SIZES
from wbc_batch.classifier.network import build_network
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.datasets.held_out import held_out
from wbc_batch.datasets.labelled import LabelledCells, read_dataset
from wbc_batch.datasets.naming import named_folders
from wbc_batch.errors import IncompleteRunError, InputError, ModelError, RunError, WbcError
from wbc_batch.evaluation.assessment import role
from wbc_batch.evaluation.folders import evaluate_folders
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cell
from wbc_batch.training.augmentation import Augmentation, augment
from wbc_batch.training.batches import sampling_weights, training_batches
from wbc_batch.training.folders import train_folders
from wbc_batch.training.lineage import STARTED_FROM
from wbc_batch.training.loop import Shown
from wbc_batch.training.loss import training_loss
from wbc_batch.training.mixup import random_blend
from wbc_batch.training.progress import describe
from wbc_batch.training.settings import (
    PRESETS,
    USUAL_DIFFERENTIAL,
    Settings,
    choose,
    preset,
)
from wbc_batch.training.start import starting_network

TINY = replace(SMALL, epochs=3, cells_per_epoch=256, mixup=0.3, prior=0.0)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cells")
    return {
        "train": write_cells(root / "train", 8, 100),
        "val": write_cells(root / "val", 3, 900),
        "new": write_cells(root / "new", 2, 2000),
    }


@pytest.fixture(scope="module")
def start(one_thread, folders) -> Callable[..., Bundle]:
    """Train the tiny network on the drawn cells; keyword arguments change settings, or the call."""

    def run(output: Path, settings: Settings = TINY, **other: Any) -> Bundle:
        given = other.pop("training", folders["train"])
        training = given if isinstance(given, dict) else {"a": given}
        held = other.pop("validation", {"b": folders["val"]})
        return train_folders("tiny", training, held, output, settings, **other)

    return run


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("training") / "run"
    start(output)
    return output


@pytest.fixture(autouse=True)
def _blank_histories(trained):
    """Leave all pictures empty but that of the first training."""
    with blank_histories():
        yield


def unknown_sizes(count: int) -> np.ndarray:
    return np.full(count, np.nan, np.float32)


def _history(output: Path) -> list[dict[str, str]]:
    with (output / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_training_leaves_a_bundle_that_learned_something(trained, folders):
    classifier = Classifier.load(trained / "bundle")
    cells = read_dataset("a", folders["train"], classifier.bundle.preprocessing)
    guess = classifier.predict_prepared(cells.crops).probabilities.argmax(axis=1)
    assert (guess == cells.labels).mean() > 0.4  # one in five is chance
    assert classifier.name == "tiny"
    assert classifier.input_size == 40
    assert classifier.bundle.training["cells"]["a"]["monocyte"] == 8
    assert classifier.bundle.training["start"] == "random weights"


def test_the_history_has_a_row_per_epoch_and_a_picture(trained):
    rows = _history(trained)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert "accuracy_b" in rows[0]
    best = max(rows, key=lambda row: (float(row["balanced_accuracy"]), int(row["epoch"])))
    assert str(read_bundle(trained / "bundle").training["best_epoch"]) == best["epoch"]
    picture = cv2.imread(str(trained / "history.png"))
    assert picture is not None


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
import torch
from wbc_batch.training.folders import train_folders
from wbc_batch.training.loop import Shown

def kill(epoch, batch, loss):
    if (epoch, batch) == (2, 5):
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
training, held, output, settings = pickle.loads(bytes.fromhex(sys.argv[1]))
train_folders("tiny", training, held, output, settings, shown=Shown(step=kill))
"""


@pytest.fixture(scope="module")
def killed(folders, tmp_path_factory) -> Path:
    """Directory of a training that was killed in the middle of its second epoch."""
    output = tmp_path_factory.mktemp("killed") / "run"
    work = pickle.dumps(({"a": folders["train"]}, {"b": folders["val"]}, output, TINY)).hex()
    ended = subprocess.run([sys.executable, "-c", KILLED, work], check=False)
    assert ended.returncode == -signal.SIGKILL
    return output


def test_a_killed_training_goes_on_and_ends_as_if_it_never_stopped(
    killed, trained, start, tmp_path
):
    output = Path(shutil.copytree(killed, tmp_path / "run"))
    assert not (output / "bundle").exists()
    seen = []
    bundle = start(output, shown=Shown(seen.append))
    assert [row["epoch"] for row in seen] == [2, 3]
    assert (
        bundle.sha256 == read_bundle(trained / "bundle").sha256
    )  # the same seed, the same weights
    assert _history(output) == _history(trained)
    assert not (output / "checkpoint.pt").exists()


def test_a_training_on_the_cpu_leaves_cuda_alone(killed, trained, start, tmp_path, monkeypatch):
    """A driver that is too old for this torch raises whenever CUDA is used."""

    def too_old(*_: Any) -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old")

    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, too_old)
    output = Path(shutil.copytree(killed, tmp_path / "run"))
    assert start(output).sha256 == read_bundle(trained / "bundle").sha256


def test_a_training_goes_on_in_fp16_on_a_device_without_bf16(killed, start, tmp_path, monkeypatch):
    output = Path(shutil.copytree(killed, tmp_path / "run"))
    monkeypatch.setattr("wbc_batch.training.loop.training_precision", lambda *_: torch.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start(output)
    assert len(_history(output)) == TINY.epochs


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_training_that_runs_out_of_memory_ends_in_a_sentence(
    killed, start, tmp_path, monkeypatch, goes_on
):
    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("too much")

    output = tmp_path / "run"
    if goes_on:
        shutil.copytree(killed, output)
        monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", no_memory)
    else:
        monkeypatch.setattr("wbc_batch.training.loop.random_blend", no_memory)
    with pytest.raises(WbcError, match="not have enough memory for the training; check"):
        start(output)


def test_a_training_goes_on_with_nothing_else_than_it_began_with(killed, folders, start, tmp_path):
    output = Path(shutil.copytree(killed, tmp_path / "run"))
    with pytest.raises(RunError, match="seed was '0' and is now '1'"):
        start(output, replace(TINY, seed=1))
    with pytest.raises(RunError, match=r"unfinished.*training data sets was"):
        start(output, training=folders["val"], validation={"b": folders["train"]})
    record = json.loads((output / "training.json").read_text())
    record["identity"]["training cells"] = "other cells"
    (output / "training.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="training cells was 'other cells'"):
        start(output)
    started = start(output, replace(TINY, epochs=1), force=True)
    assert len(_history(output)) == 1
    assert started.training["settings"]["epochs"] == 1


@pytest.mark.parametrize("kept", [0, 1 / 2])
def test_a_damaged_checkpoint_is_named(killed, start, tmp_path, kept):
    output = Path(shutil.copytree(killed, tmp_path / "run"))
    content = (output / "checkpoint.pt").read_bytes()
    (output / "checkpoint.pt").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(RunError, match=r"checkpoint\.pt cannot be continued .*--force"):
        start(output)


def test_a_finished_training_is_not_repeated(trained, start, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("wbc_batch"), "propagate", True)
    weights = trained / "bundle" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "wbc_batch"):
        bundle = start(trained, shown=Shown(lambda _row: pytest.fail("it trains")))
    assert bundle == read_bundle(trained / "bundle")
    assert "finished" in caplog.text
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(RunError, match="holds a finished training with other"):
        start(trained, replace(TINY, epochs=2))


def test_a_finished_training_whose_model_is_gone_says_so(trained, start, tmp_path):
    output = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.rmtree(output / "bundle")
    with pytest.raises(RunError, match=r"its model in .*bundle is missing; .*--force"):
        start(output)


def test_a_finished_training_of_other_cells_is_not_taken_for_this_one(start, folders, tmp_path):
    cells = Path(shutil.copytree(folders["train"], tmp_path / "cells"))
    short = replace(TINY, epochs=1, cells_per_epoch=16)
    start(tmp_path / "run", short, training=cells)
    (cells / "basophil" / "cell-0.png").rename(cells / "neutrophil" / "other.png")
    with pytest.raises(RunError, match=r"other settings or cells .*training files was"):
        start(tmp_path / "run", short, training=cells)


def test_a_rise_of_one_step_is_one(start, tmp_path):
    start(tmp_path / "run", replace(TINY, warm_up=0.5, epochs=2, cells_per_epoch=16))
    assert len(_history(tmp_path / "run")) == 2


def test_a_name_that_is_not_utf_8_is_a_name(start, folders, tmp_path):
    cells = Path(shutil.copytree(folders["train"], tmp_path / "cells"))
    (cells / "monocyte" / "cell-0.png").rename(cells / "monocyte" / os.fsdecode(b"Mono\xe9.png"))
    short = replace(TINY, epochs=1, cells_per_epoch=16)
    bundle = start(tmp_path / "run", short, training=cells, validation={})
    assert len(bundle.training["digest"]) == 64


def test_a_directory_that_holds_something_else_is_left_alone(start, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(RunError, match="not empty"):
            start(tmp_path, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_training_with_a_file_that_a_program_keeps_open_is_left_whole(
    killed, start, tmp_path, monkeypatch
):
    output = Path(shutil.copytree(killed, tmp_path / "run"))
    before = contents(output)
    hold_open(output / "history.csv", monkeypatch)
    with pytest.raises(IncompleteRunError, match=r"history\.csv cannot be replaced .*; close the"):
        start(output, force=True)
    assert contents(output) == before


@pytest.mark.parametrize("room", [2_000, 20_000])
def test_a_full_disk_stops_a_training_that_goes_on_once_there_is_room(start, tmp_path, room):
    short = replace(TINY, epochs=1, cells_per_epoch=32)
    (tmp_path / "run").mkdir()
    with (
        room_for(room),
        pytest.raises(IncompleteRunError, match=r"cannot be written .*repeat the command"),
    ):
        start(tmp_path / "run", short)
    assert start(tmp_path / "run", short).path == tmp_path / "run" / "bundle"


@pytest.mark.parametrize("name", ["bundle", "bundle/model.json", "history.png"])
@pytest.mark.parametrize("force", [False, True])
def test_what_is_in_the_way_is_said_before_any_cell_is_read(killed, start, tmp_path, name, force):
    output = Path(shutil.copytree(killed, tmp_path / "run"))
    if name == "bundle":
        (output / name).write_text("x")
    else:
        (output / name).mkdir(parents=True)
    with pytest.raises(RunError, match=f"{name} is in the way of a"):
        start(output, shown=Shown(step=lambda *_: pytest.fail("it trained")), force=force)


def test_patience_ends_a_training_that_gains_nothing(start, tmp_path):
    settings = replace(TINY, epochs=9, cells_per_epoch=16, learning_rate=1e-9, patience=2)
    bundle = start(tmp_path / "run", settings)
    assert len(_history(tmp_path / "run")) == 3
    assert bundle.training["epochs"] == 3


def test_a_training_that_diverges_ends_in_a_sentence(trained, start, tmp_path):
    quick = {"epochs": 2, "cells_per_epoch": 64, "learning_rate": 1e6}
    on = choose(None, str(trained / "bundle"), device="cpu", **quick)
    for name, settings in (("anew", replace(TINY, **quick)), ("on", on)):
        with pytest.raises(RunError, match=r"diverged: in epoch \d .* a smaller --learning-rate"):
            start(tmp_path / name, settings)
        assert not (tmp_path / name / "bundle").exists()


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), -1.0, 1e38])
def test_what_is_no_learning_rate_is_refused(rate):
    with pytest.raises(InputError, match="is not a learning rate"):
        choose(None, None, learning_rate=rate)


def test_drawn_cells_can_be_added(start, tmp_path):
    bundle = start(tmp_path / "run", replace(TINY, epochs=1, cells_per_epoch=16), drawn=300)
    assert sum(bundle.training["cells"]["drawn"].values()) == 300
    # There are enough drawn cells to learn usual sizes from, and too few others.
    assert bundle.size_evidence is None


def test_a_part_of_the_cells_is_held_out_where_none_are_named(start, tmp_path):
    bundle = start(tmp_path / "run", replace(TINY, epochs=1, cells_per_epoch=16), validation={})
    assert bundle.training["cells"]["a"] == dict.fromkeys(CLASSES, 6)
    assert bundle.training["validation_cells"]["a"] == dict.fromkeys(CLASSES, 2)


def test_what_is_held_out_keeps_patients_and_copies_together():
    labels = np.repeat(np.arange(5), 20)
    names, members = ("a",) * 100, tuple(f"{n}.png" for n in range(100))
    crops = np.zeros((100, 2, 2, 3), np.uint8)
    patients = tuple(f"p{n % 10}" for n in range(100))
    copies = tuple(f"{n // 2:03}" for n in range(100))
    for together in ({"groups": patients}, {"hashes": copies}):
        cells = LabelledCells(names, members, labels, crops, unknown_sizes(100), **together)
        chosen = held_out(cells)
        assert np.bincount(labels[chosen]).tolist() == [4] * 5
        (units,) = together.values()
        inside = {unit for unit, held in zip(units, chosen, strict=True) if held}
        assert all((unit in inside) == held for unit, held in zip(units, chosen, strict=True))


def test_a_model_is_trained_on_with_few_cells_of_some_classes(trained, folders, start, tmp_path):
    own = tmp_path / "own"
    for label in ("lymphocyte", "neutrophil"):
        shutil.copytree(folders["val"] / label, own / label)
    model = str(trained / "bundle")
    settings = choose(None, model, epochs=1, cells_per_epoch=32, device="cpu")
    bundle = start(tmp_path / "run", settings, training=own, validation={})
    old = read_bundle(model)
    assert bundle.preprocessing == old.preprocessing
    assert bundle.training["start"] == f"tiny, SHA-256 {old.sha256}"
    assert bundle.training["cells"]["a"]["monocyte"] == 0
    assert bundle.temperature == old.temperature  # one cell tells nothing better
    assert bundle.sha256 != old.sha256
    assert bundle.load()[1].score(np.zeros((1, 32), np.float32)) > 0


def test_a_model_that_was_trained_on_owns_up_to_what_it_began_with(
    trained, folders, start, tmp_path
):
    foreign = Path(shutil.copytree(trained / "bundle", tmp_path / "foreign"))
    replace(read_bundle(foreign), licence="CC-BY-NC-4.0").describe("# foreign\n")
    quick = {"epochs": 1, "cells_per_epoch": 32, "device": "cpu"}
    data = {"own": folders["val"]}
    model = foreign
    for name in ("once", "twice"):
        settings = choose(None, str(model), **quick)
        model = train_folders(name, data, {}, tmp_path / name, settings).path
    bundle = read_bundle(model)
    assert bundle.licence == "CC-BY-NC-4.0"
    evaluate_folders(model, dict.fromkeys(("own", "a", "b", "c"), folders["new"]), card=True)
    roles = {name: found["role"] for name, found in read_bundle(model).metrics["data_sets"].items()}
    assert roles == {
        "own": "trained on",
        "a": "trained on",
        "b": "chosen on",
        "c": "not trained on",
    }
    card = (model / "README.md").read_text()
    assert f"The temperature ({bundle.temperature:.3f}) is still that of the model" in card
    assert "The novelty score is still that of the model" in card
    assert (
        f"Training started from once, SHA-256 {read_bundle(tmp_path / 'once/bundle').sha256}"
        in card
    )
    assert "That model was trained on own, a." in card
    settings = choose(None, str(model), **quick)
    again = train_folders("again", {"a": folders["train"]} | data, {}, tmp_path / "again", settings)
    assert again.training["settings"]["replayed"] == ["a", "own"]


def test_a_model_that_was_never_calibrated_gets_a_temperature(trained, folders, start, tmp_path):
    foreign = Path(shutil.copytree(trained / "bundle", tmp_path / "foreign"))
    unknown = {"imported_from": "foreign.pth"}
    bare = replace(read_bundle(foreign), training=unknown, temperature=1.0, novelty_scale=None)
    bare.describe("# foreign\n")
    settings = choose(None, str(foreign), epochs=1, cells_per_epoch=32, device="cpu")
    model = start(tmp_path / "run", settings)
    assert model.temperature != 1.0
    evaluate_folders(model.path, {"b": folders["val"]}, card=True)
    card = (model.path / "README.md").read_text()
    said = f"The temperature ({model.temperature:.3f}) and the novelty scale were fitted on the"
    assert said in card
    assert "What that model was trained on is not known." in card


def test_what_an_unknown_training_has_seen_is_not_known(trained, folders):
    bundle = read_bundle(trained / "bundle")
    cells = read_dataset("c", folders["new"], bundle.preprocessing)
    adapted = bundle.training | {STARTED_FROM: {"name": "foreign", "imported_from": "foreign.pth"}}
    assert role(replace(bundle, training=adapted), "a", cells) == "trained on"
    assert role(replace(bundle, training=adapted), "c", cells) == "not known"
    assert role(bundle, "c", cells) == "not trained on"


@pytest.fixture(scope="module")
def renamed(folders, tmp_path_factory) -> dict[str, Path]:
    """New cells, and among those of each folder a copy of one that a training used."""
    root = tmp_path_factory.mktemp("renamed")
    for part in ("train", "val"):
        shutil.copytree(folders["new"], root / part)
        used = folders[part] / "monocyte" / "cell-0.png"
        shutil.copyfile(used, root / part / "monocyte" / "another-name.png")
    return {part: root / part for part in ("train", "val")}


def test_images_that_a_model_was_trained_on_are_known_by_any_name(
    trained, renamed, start, tmp_path, caplog
):
    settings = choose(None, str(trained / "bundle"), epochs=1, cells_per_epoch=32, device="cpu")
    own = {"own": write_cells(tmp_path / "own", 2, 3000)}
    held = {"held": write_cells(tmp_path / "held", 1, 4000)}
    adapted = start(tmp_path / "run", settings, training=own, validation=held)
    for model in (trained / "bundle", adapted.path):
        caplog.clear()
        told = evaluate_folders(model, {"c": renamed["train"], "d": renamed["val"]}).roles
        assert told == {"c": "trained on", "d": "chosen on"}
        for name, use in (("c", "training"), ("d", "validation")):
            said = f"1 of the 11 images of {name} were used for the {use} of this model"
            assert f"{said}, such as monocyte/another-name.png" in caplog.text


def test_a_damaged_list_of_images_is_refused_and_a_missing_one_leaves_the_names(
    trained, renamed, tmp_path
):
    bundle = Path(shutil.copytree(trained / "bundle", tmp_path / "bundle"))
    listed = bundle / "images.txt"
    assert len(listed.read_text().splitlines()) == 5 * (8 + 3)
    listed.write_text(f"{listed.read_text()}0123 training\n")
    with pytest.raises(ModelError, match=r"images.txt is damaged in line 56; get the bundle again"):
        evaluate_folders(bundle, {"c": renamed["train"]})
    listed.unlink()
    told = evaluate_folders(bundle, {"a": renamed["val"], "c": renamed["train"]}).roles
    assert told == {"a": "trained on", "c": "not trained on"}


@pytest.mark.parametrize(("freeze", "still"), [("body", 1.0), ("early", 0.5), ("none", 0.0)])
def test_what_is_frozen_stays_as_it_started(trained, start, tmp_path, freeze, still):
    quick = {
        "epochs": 1,
        "cells_per_epoch": 32,
        "batch_size": 8,
        "learning_rate": 0.01,
        "averaging": 0.0,
    }
    settings = choose(None, str(trained / "bundle"), freeze=freeze, device="cpu", **quick)
    new = start(tmp_path / freeze, settings).load()[0].state_dict()
    old = read_bundle(trained / "bundle").load()[0].state_dict()
    same = {key: torch.equal(new[key], old[key]) for key in old}
    body = [same[key] for key in old if not key.startswith("head")]
    assert not same["head.weight"]
    assert np.mean(body) == pytest.approx(still, abs=0.3)
    assert any(body) == (freeze != "none")
    assert all(body) == (freeze == "body")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains(start, folders, tmp_path, name, monkeypatch):
    # These networks are the large ones: few cells, and batches, which are filled up, of few.
    monkeypatch.setitem(BATCH_SIZES, "cpu", 8)
    quick = replace(
        preset(name), start="random", epochs=1, cells_per_epoch=4, batch_size=4, device="cpu"
    )
    few = {"training": folders["val"], "validation": {"b": folders["new"]}}
    bundle = start(tmp_path / "run", quick, **few)
    assert Classifier.load(bundle.path, device="cpu").input_size == quick.preprocessing.size


def test_a_network_of_torchvision_starts_from_torchvisions_file(tmp_path):
    theirs = get_model("shufflenet_v2_x0_5", weights=None)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    settings = replace(
        choose("seed", str(tmp_path / "theirs.pth")), arguments={"name": "shufflenet_v2_x0_5"}
    )
    started = starting_network(settings)
    assert "theirs.pth, SHA-256" in started.described
    assert torch.equal(started.network.body.conv1[0].weight, theirs.conv1[0].weight)
    torch.save(
        theirs.state_dict() | {"fc.weight": theirs.fc.weight.to_sparse()}, tmp_path / "sparse.pth"
    )
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    for name, said in (
        ("sparse.pth", "fc.weight is sparse"),
        ("other.pth", "does not hold torchvision's"),
    ):
        with pytest.raises(ModelError, match=rf"{re.escape(name)} .*{said}"):
            starting_network(replace(settings, start=str(tmp_path / name)))
    for content in (b"", b"no weights", b"hello"):
        (tmp_path / "theirs.pth").write_bytes(content)
        with pytest.raises(ModelError, match=r"theirs\.pth is damaged or was not written by torch"):
            starting_network(settings)
    with pytest.raises(ModelError, match="is a file, but"):
        choose(None, str(tmp_path / "theirs.pth"))


def test_data_sets_that_the_model_knows_get_half_of_the_draws(trained, folders, start, tmp_path):
    quick = {"epochs": 1, "cells_per_epoch": 32, "device": "cpu"}
    settings = choose(None, str(trained / "bundle"), **quick)
    output = tmp_path / "run"
    data = {"own": folders["val"], "a": folders["train"]}
    bundle = train_folders("both", data, {}, output, settings)
    assert bundle.training["settings"]["replayed"] == ["a"]
    names, labels = ("own",) * 2 + ("a",) * 9, np.array([0, 1] + [0] * 8 + [2])
    crops = np.zeros((11, 22, 22, 3), np.uint8)
    cells = LabelledCells(names, tuple("123456789xy"), labels, crops, unknown_sizes(11))
    quick = replace(TINY, preprocessing=Preprocessing(size=16), cells_per_epoch=800, noisy=("own",))
    batches = list(training_batches(cells, replace(quick, replayed=("a",)), 0))
    label, own = (torch.cat([batch[n] for batch in batches]).numpy() for n in (1, 2))
    assert np.bincount(label) / 800 == pytest.approx([1 / 3] * 3, abs=0.06)
    assert own[label == 0].mean() == pytest.approx(0.5, abs=0.1)  # one cell of nine


def test_drawn_cells_get_their_share_of_every_class(start, tmp_path):
    names, labels = ("own",) * 9 + ("drawn",) * 3, np.array([0] * 8 + [1, 0, 0, 2])
    crops = np.zeros((12, 22, 22, 3), np.uint8)
    cells = LabelledCells(names, tuple("123456789xyz"), labels, crops, unknown_sizes(12))
    settings = replace(TINY, preprocessing=Preprocessing(size=16), cells_per_epoch=1600)
    settings = replace(settings, noisy=("drawn",), drawn_share=0.3)
    batches = list(training_batches(cells, settings, 0))
    label, drawn = (torch.cat([batch[n] for batch in batches]).numpy() for n in (1, 2))
    assert np.bincount(label) / 1600 == pytest.approx([1 / 3] * 3, abs=0.05)
    assert drawn[label == 0].mean() == pytest.approx(0.3, abs=0.06)
    assert not drawn[label == 1].any()
    assert drawn[label == 2].all()


def test_blended_cells_count_for_both_labels():
    torch.manual_seed(0)
    images = torch.eye(4).repeat(5, 1)[:, :3, None, None]
    labels, noisy = torch.arange(20) % 5, torch.zeros(20, dtype=torch.bool)
    logits = torch.randn(20, 5)
    plain = random_blend(20, 0.0, torch.device("cpu"))
    assert torch.equal(plain.of(images), images)
    expected = training_loss(logits, labels, noisy, 0.1).mean()
    assert plain.loss(logits, labels, noisy, 0.1) == pytest.approx(expected.item())
    blend = random_blend(20, 1.0, torch.device("cpu"))
    assert ((blend.share >= 0.5) & (blend.share < 1.0)).all()
    certain = 50.0 * torch.nn.functional.one_hot(labels, 5).float()  # wrong is dear, right is free
    wrong = (labels != labels[blend.other]).float()
    assert blend.loss(certain, labels, noisy, 0.0) == pytest.approx(
        (50.0 * (1.0 - blend.share) * wrong).mean().item(), rel=1e-4
    )
    cell = int(wrong.argmax())
    seen = blend.share[cell] * images[cell] + (1 - blend.share[cell]) * images[blend.other[cell]]
    assert torch.allclose(blend.of(images)[cell], seen)


def test_another_architecture_is_not_trained_on(trained):
    settings = choose("compact", str(trained / "bundle"))
    with pytest.raises(ModelError, match="'other'"):
        starting_network(replace(settings, architecture="other"))
    with pytest.raises(ModelError, match=r"its widths is \[16, .*; leave out --preset"):
        starting_network(settings)
    with pytest.raises(InputError, match="no preset 'huge'; there are compact"):
        choose("huge", None)
    with pytest.raises(InputError, match="unknown freeze 'all'"):
        choose(None, None, freeze="all")
    with pytest.raises(InputError, match="the seed -1 is negative"):
        choose(None, None, seed=-1)
    with pytest.raises(InputError, match="do not fill one batch"):
        choose(None, None, cells_per_epoch=5)


def test_progress_is_a_line_per_epoch():
    row = {
        "epoch": 3,
        "loss": 0.4123,
        "accuracy": 0.9,
        "balanced_accuracy": 0.913,
        "accuracy_b": 0.95,
    }
    assert describe(row, 15, 21.4) == "epoch 3/15  loss 0.412  balanced 91.3 %  b 95.0 %  21 s"


def test_cells_too_few_to_hold_any_out_are_refused_before_training(trained, start, tmp_path):
    few = write_cells(tmp_path / "few", 2, 300)
    settings = choose(None, str(trained / "bundle"), epochs=1, cells_per_epoch=32, device="cpu")
    with pytest.raises(InputError, match=r"no validation cells: .*--validation"):
        start(tmp_path / "run", settings, training=few, validation={})
    assert not (tmp_path / "run").exists()


def test_unusable_data_are_named_before_training(folders, start, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InputError, match="nowhere"):
        start(run, training=tmp_path / "nowhere")
    with pytest.raises(InputError, match="both training and validation"):
        start(run, validation={"b": folders["train"]})
    for data in (
        {"training": {"drawn": folders["train"]}},
        {"validation": {"drawn": folders["val"]}},
    ):
        with pytest.raises(InputError, match="called 'drawn', like the synthetic cells"):
            start(run, **data)
    with pytest.raises(InputError, match="no training data set 'c' to call noisy"):
        start(run, replace(TINY, noisy=("c",)))

    copy = Path(shutil.copytree(folders["train"], tmp_path / "copy"))
    (copy / "monocyte" / "cell-1.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"cell-1\.png cannot be used"):
        start(run, training=copy)
    shutil.rmtree(copy / "monocyte")
    with pytest.raises(InputError, match="no training cells of monocyte"):
        start(run, training=copy)
    (copy / "blast").mkdir()
    shutil.copy(copy / "basophil" / "cell-0.png", copy / "blast")
    with pytest.raises(InputError, match="blast"):
        start(run, training=copy)
    assert not run.exists()


def test_classes_and_kinds_are_balanced(tmp_path):
    for kind, name in enumerate(["neutrophil/BNE_%d", "neutrophil/SNE_%d", "monocyte/MO_%d"]):
        for n in range(4 if "BNE" in name else 1):
            path = tmp_path / (name % n + ".png")
            path.parent.mkdir(exist_ok=True)
            image = draw_cell("neutrophil", 10 * kind + n, size=60)
            path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
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


def test_a_closer_cut_leaves_the_cell_and_whitens_around_it():
    crop = np.full((90, 90, 3), 100, np.uint8)
    still = {f.name: 0.0 for f in fields(Augmentation)}
    settings = Augmentation(**still | {"blur": 0.3, "window": 1.0})
    closer = [augment(crop, 64, settings, np.random.default_rng(seed)) for seed in range(20)]
    white = np.mean([(image > 250).all(axis=2) for image in closer], axis=0)
    assert (white[26:38, 26:38] == 0).all()
    assert 0.5 < white[:4, :4].mean() < 1.0  # how close is left to chance
    whole = augment(crop, 64, replace(settings, window=0.0), np.random.default_rng(0))
    assert (whole < 250).mean() > 0.7


def test_efficientnet_computes_the_same_in_training():
    """There batch normalisation goes into the kernels, and is trained through them."""
    network = build_network("efficientnet_lite0", 5, {"dropout": 0.0, "stochastic_depth": 0.0})
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.running_mean, -0.1, 0.1)
    images = torch.rand(2, 3, 64, 64)
    expected = network.eval()(images)
    given = network.train()(images)
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-5)
    given.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_usual_differential_moves_the_heads_bias_alone(start, tmp_path):
    short = replace(TINY, epochs=1)
    bundles = [start(tmp_path / str(prior), replace(short, prior=prior)) for prior in (0.4, 0.0)]
    told, untold = (bundle.load()[0].state_dict() for bundle in bundles)
    moved = told.pop("head.bias") - untold.pop("head.bias")
    logarithm = np.log(USUAL_DIFFERENTIAL)
    # As much for a network whose logits are small as for any other: it counts beside calibrated ones.
    assert bundles[0].temperature == bundles[1].temperature != pytest.approx(1, abs=0.05)
    calibrated = moved.numpy() / bundles[0].temperature
    assert calibrated == pytest.approx(0.4 * (logarithm - logarithm.mean()), abs=1e-4)
    assert all(torch.equal(told[name], untold[name]) for name in untold)


def test_data_sets_are_named():
    named = named_folders(["pbc=some/train", "other/raabin"], "train")
    assert named == {"pbc": Path("some/train"), "raabin": Path("other/raabin")}
    with pytest.raises(InputError, match="two data sets are called 'x'"):
        named_folders(["x=a", "b/x"], "train")
