"""OpenVINO on the CPU: what torch says, faster; the same for a cell in any company."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import invoke
from trainings import write_cells

from wbc_batch.classifier import Bundle, Classifier, Rejection, openvino_backend, read_bundle
from wbc_batch.classifier.bundle import QUANTISED_FILES, write_bundle
from wbc_batch.classifier.network import all_arguments, build_network
from wbc_batch.classifier.openvino_backend import OpenVinoBackend
from wbc_batch.classifier.preprocessing import Preprocessing
from wbc_batch.classifier.torch_backend import TorchBackend
from wbc_batch.datasets.labelled import read_dataset
from wbc_batch.engine.plan import model_digest
from wbc_batch.errors import InputError, ModelError
from wbc_batch.exchange.quantise import LARGEST_LOSS
from wbc_batch.exchange.verify import verify
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cells

NETWORKS = [
    ("compact_resnet", {}),
    ("efficientnet_lite0", {}),
    ("torchvision", {"name": "resnet18"}),
    ("torchvision", {"name": "mobilenet_v3_small"}),
]


def test_openvino_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    code = "import wbc_batch.classifier.openvino_backend, nncf"
    # It keeps who is told of, and what, in the home folder.
    places = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=os.environ | places, check=True)
    assert not list(tmp_path.rglob("*openvino*"))


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    exact = Classifier.load(device="cpu", backend="torch")
    return np.stack([exact.prepare(image).pixels for image in draw_cells(40, seed=91, size=240)[0]])


def _trained(architecture: str, arguments: dict) -> torch.nn.Module:
    """A network whose layers all have something to say, statistics included."""
    torch.manual_seed(0)
    network = build_network(architecture, len(CLASSES), arguments).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def _bundle(path: Path, architecture: str, arguments: dict) -> Path:
    described = Bundle(
        name="test",
        architecture=architecture,
        arguments=all_arguments(architecture, arguments),
        classes=CLASSES,
        preprocessing=Preprocessing(size=96),
        temperature=1.0,
        novelty_scale=None,
        rejection=Rejection(),
    )
    weights = _trained(architecture, arguments).state_dict()
    return write_bundle(path, described, weights, None, "# test\n", exact=True).path


def test_it_is_chosen_by_itself_on_the_cpu_and_torch_on_request():
    assert Classifier.load(device="cpu").backend == "openvino"
    assert Classifier.load(device="cpu", backend="torch").backend == "torch"


@pytest.mark.parametrize(("architecture", "arguments"), NETWORKS)
def test_every_architecture_gives_the_logits_of_torch(architecture, arguments, crops):
    plain = TorchBackend(_trained(architecture, arguments), torch.device("cpu"), "fp32")
    ours = OpenVinoBackend(_trained(architecture, arguments), 96, "fp32")
    some = np.ascontiguousarray(crops[:20, :96, :96])
    (expected, traces), (logits, ours_traces) = plain.run(some), ours.run(some)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(ours_traces, traces, atol=1e-4, rtol=1e-4)


def test_probabilities_and_novelty_are_those_of_torch(crops):
    ours = _predictions("fp32", crops)
    theirs = Classifier.load(device="cpu", precision="fp32", backend="torch")
    expected = theirs.predict_prepared(crops)
    np.testing.assert_allclose(ours.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(ours.novelty, expected.novelty, atol=1e-3)
    assert ours.label.tolist() == expected.label.tolist()


def test_labels_in_bf16_are_those_of_fp32(crops):
    small, exact = _predictions("bf16", crops), _predictions("fp32", crops)
    assert np.mean(small.predicted == exact.predicted) >= 0.97
    assert np.abs(small.confidence - exact.confidence).mean() < 0.01
    assert np.abs(small.novelty - exact.novelty).mean() < 0.04


@cache
def _classifier(precision: str) -> Classifier:
    return Classifier.load(device="cpu", precision=precision)


def _predictions(precision: str, crops: np.ndarray):
    try:
        return _classifier(precision).predict_prepared(crops)
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_company_and_threads_do_not_change_a_bit(precision, crops):
    together = _predictions(precision, crops)
    alone = _predictions(precision, crops[7:8])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        slowly = Classifier.load(device="cpu", precision=precision).predict_prepared(crops)
    finally:
        torch.set_num_threads(before)
    assert alone.probabilities[0].tolist() == together.probabilities[7].tolist()
    assert alone.novelty[0] == together.novelty[7]
    assert slowly.probabilities.tolist() == together.probabilities.tolist()
    assert slowly.novelty.tolist() == together.novelty.tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "tensorrt"}, "unknown backend 'tensorrt'"),
        ({"precision": "fp8"}, "fp8"),
        ({"precision": "fp16"}, "OpenVINO does not support the precision 'fp16'"),
        ({"precision": "int8", "backend": "torch"}, "torch does not support the precision 'int8'"),
    ],
)
def test_what_there_is_not_is_said(options, said):
    with pytest.raises(InputError, match=said):
        Classifier.load(device="cpu", **options)


def test_a_model_that_was_not_quantised_has_no_int8(tmp_path):
    path = _bundle(tmp_path / "bundle", "compact_resnet", {"widths": (16, 16, 16, 16)})
    with pytest.raises(InputError, match="wbc-batch model quantise"):
        Classifier.load(path, device="cpu", precision="int8")


def test_without_openvino_torch_does_it():
    code = (
        "import sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Absent(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in ('openvino', 'nncf'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import importlib.util\n"
        "plain = importlib.util.find_spec\n"
        "def find_spec(name, package=None):\n"
        "    return None if name in ('openvino', 'nncf') else plain(name, package)\n"
        "importlib.util.find_spec = find_spec\n"
        "from wbc_batch.classifier import Classifier\n"
        "from wbc_batch.errors import WbcError\n"
        "print(Classifier.load(device='cpu').backend)\n"
        "try:\n"
        "    Classifier.load(device='cpu', backend='openvino')\n"
        "except WbcError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    chosen, complaint = done.stdout.splitlines()
    assert chosen == "torch"
    assert 'pip install "wbc-napari[openvino]"' in complaint


# --- int8 ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Drawn cells in class folders: to calibrate on, and to compare on."""
    return {
        name: write_cells(tmp_path_factory.mktemp(name), 20, seed)
        for name, seed in (("calibration", 100), ("validation", 200))
    }


@pytest.fixture(scope="module")
def quantised(folders, tmp_path_factory) -> Path:
    """The bundled model with an int8 network, made on the command line."""
    output = tmp_path_factory.mktemp("quantised") / "bundle"
    done = invoke(*_command(folders, output, "--json"))
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["accuracy_fp32"] - facts["accuracy"] <= LARGEST_LOSS
    return output


def _command(folders: dict[str, Path], output: Path, *more: str, model: str = "default") -> list:
    named = [folders["calibration"], "--validation", folders["validation"]]
    return ["model", "quantise", model, *named, "-o", output, *more]


def test_int8_says_what_fp32_says(quantised, crops):
    exact = _predictions("fp32", crops)
    classifier = Classifier.load(quantised, device="cpu", precision="int8")
    small = classifier.predict_prepared(crops)
    assert (classifier.backend, classifier.precision) == ("openvino", "int8")
    assert np.mean(small.predicted == exact.predicted) >= 0.95
    assert np.abs(small.confidence - exact.confidence).mean() < 0.03
    assert np.abs(small.novelty - exact.novelty).mean() < 0.1
    alone = classifier.predict_prepared(crops[7:8])
    assert alone.probabilities[0].tolist() == small.probabilities[7].tolist()


def test_int8_stands_beside_the_same_weights(quantised):
    bundle, original = read_bundle(quantised), read_bundle()
    assert bundle.sha256 == original.sha256
    assert model_digest(bundle) != model_digest(replace(original, quantised={}))
    assert sum((quantised / name).stat().st_size for name in QUANTISED_FILES) <= 10_000_000
    assert "calibration" in next(iter(bundle.quantised["calibration_cells"]))
    assert verify(str(quantised)).sha256 == bundle.sha256


@pytest.mark.parametrize("name", QUANTISED_FILES)
def test_a_changed_int8_network_is_refused(quantised, name, tmp_path):
    copied = Path(shutil.copytree(quantised, tmp_path / "bundle"))
    (copied / name).write_bytes((copied / name).read_bytes() + b" ")
    with pytest.raises(ModelError, match=rf"{name} is damaged or was replaced"):
        Classifier.load(copied, device="cpu", precision="int8")
    with pytest.raises(ModelError, match=name):
        verify(str(copied))
    (copied / name).unlink()
    with pytest.raises(ModelError, match=f"cannot read .*{name}"):
        Classifier.load(copied, device="cpu", precision="int8")


def test_int8_that_says_something_else_is_not_written(quantised, folders, tmp_path, monkeypatch):
    made = {name: (quantised / name).read_bytes() for name in QUANTISED_FILES}
    # It would be made anew, as it was for `quantised`.
    monkeypatch.setattr("wbc_batch.exchange.quantise._quantised", lambda *_: made)
    monkeypatch.setattr("wbc_batch.exchange.quantise.LARGEST_LOSS", -100.0)
    done = invoke(*_command(folders, tmp_path / "bundle"))
    assert done.exit_code == 1
    assert "points of accuracy" in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_cells_to_compare_on_are_asked_for(folders, tmp_path):
    arguments = ["model", "quantise", "default", folders["calibration"]]
    done = invoke(*arguments, "-o", tmp_path / "bundle")
    assert (done.exit_code, "--validation" in done.stderr) == (2, True)


def test_cells_are_not_used_twice(folders, tmp_path):
    same = {name: folders["calibration"] for name in folders}
    done = invoke(*_command(same, tmp_path / "bundle"))
    assert (done.exit_code, "both training and validation cells" in done.stderr) == (2, True)


def test_a_model_trained_on_has_no_int8_of_the_old_one(quantised, tmp_path):
    bundle = read_bundle(quantised)
    network, novelty = bundle.load()
    written = write_bundle(tmp_path / "new", bundle, network.state_dict(), novelty, "# new\n")
    assert written.quantised == {}


# --- real cells ------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(("precision", "agreed"), [("fp32", 1.0), ("bf16", 0.98)])
def test_real_cells_get_the_labels_of_torch(real_cells, precision, agreed):
    cells = read_dataset("val", real_cells / "pbc" / "val", read_bundle().preprocessing)
    theirs = Classifier.load(device="cpu", precision="fp32", backend="torch")
    ours = _predictions(precision, cells.crops)
    assert np.mean(ours.label == theirs.predict_prepared(cells.crops).label) >= agreed


@pytest.mark.realdata
def test_real_cells_keep_their_accuracy_in_int8(real_cells, tmp_path):
    training = [f"{name}={real_cells / place}" for name, place in _TRAINING.items()]
    held = str(real_cells / "pbc" / "val")
    arguments = ["model", "quantise", "default", *training, "--validation", held]
    done = invoke(*arguments, "-o", tmp_path / "bundle", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["same_label"] >= 97.0


_TRAINING = {"pbc": "pbc/train", "raabin": "raabin", "bccd": "bccd"}


@pytest.mark.parametrize("failures", [1, 99])
def test_a_translation_that_goes_wrong_is_done_again_but_not_for_ever(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    translated = openvino_backend._translated
    body = translated(read_bundle().load()[0].eval().requires_grad_(False), 128)
    parameters = body.get_parameters()
    extra = openvino_backend.openvino.opset11.parameter([1], np.float32)
    wrong = openvino_backend.openvino.Model(body.get_results(), [*parameters, extra], "wrong")
    answers = [wrong] * failures

    def sometimes(*arguments: object) -> object:
        return answers.pop() if answers else translated(*arguments)

    monkeypatch.setattr(openvino_backend, "_translated", sometimes)
    if failures == 1:
        assert Classifier.load(device="cpu", backend="openvino").backend == "openvino"
    else:
        with pytest.raises(ModelError, match=r"cannot run this network.*exactly one parameter"):
            Classifier.load(device="cpu", backend="openvino")
