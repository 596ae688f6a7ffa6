"""The classifier through its public door: arrays in, predictions out."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch

from wbc_batch.classifier import Classifier, read_bundle
from wbc_batch.classifier.bundle import WEIGHTS_FILE, find_bundle
from wbc_batch.classifier.calibration import expected_calibration_error, fit_temperature
from wbc_batch.classifier.devices import BATCH_SIZES, choose_device, choose_precision, faithful
from wbc_batch.classifier.network import CompactResNet
from wbc_batch.classifier.novelty import fit_novelty
from wbc_batch.classifier.predictions import Rejection, decide
from wbc_batch.classifier.torch_backend import TorchBackend
from wbc_batch.errors import ImageError, InputError, ModelError, WbcError
from wbc_batch.schema import CLASSES, PROBABILITY_COLUMNS, UNIDENTIFIED
from wbc_batch.synthetic import draw_cells


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, list[str]]:
    return draw_cells(50, seed=77, size=240)


@pytest.fixture(scope="module")
def exact() -> Classifier:
    return Classifier.load(device="cpu", precision="fp32")


def test_drawn_cells_are_recognised(exact, drawn):
    images, labels = drawn
    predictions = exact.predict(images)
    assert np.mean(predictions.predicted == np.array(labels)) >= 0.9


def test_predictions_are_consistent(exact, drawn):
    predictions = exact.predict(drawn[0])
    assert len(predictions) == 50
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1.0, atol=1e-6)
    best = predictions.probabilities.argmax(axis=1)
    assert predictions.predicted.tolist() == [CLASSES[k] for k in best]
    assert predictions.confidence.tolist() == predictions.probabilities.max(axis=1).tolist()
    ordered = np.sort(predictions.probabilities, axis=1)
    np.testing.assert_allclose(predictions.margin, ordered[:, -1] - ordered[:, -2], atol=1e-7)
    frame = predictions.to_frame()
    assert list(frame.columns[:5]) == ["label", "predicted", "confidence", "margin", "novelty"]
    assert tuple(frame.columns[5:]) == PROBABILITY_COLUMNS


def test_the_company_of_a_cell_does_not_matter(exact, drawn):
    images = drawn[0]
    together = exact.predict(images)
    alone = exact.predict([images[7]])
    turned = exact.predict(images[::-1])
    np.testing.assert_allclose(alone.probabilities[0], together.probabilities[7], atol=1e-4)
    np.testing.assert_allclose(turned.probabilities[::-1], together.probabilities, atol=1e-4)


def test_reduced_precision_agrees_with_full(exact, drawn, monkeypatch):
    # torch computes in bf16 on any CPU, OpenVINO on those that have it; emulated, a cell takes seconds.
    monkeypatch.setitem(BATCH_SIZES, "cpu", 2)
    images = drawn[0][:2]
    reduced = Classifier.load(device="cpu", precision="bf16", backend="torch").predict(images)
    full = exact.predict(images)
    assert np.abs(reduced.probabilities - full.probabilities).mean() < 0.01


def test_images_of_any_size_and_kind(exact, drawn):
    image = drawn[0][3]
    alpha = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    same = exact.predict([image, alpha, image.astype(np.uint16) * 257, image[:, :, :3]])
    # 16-bit images are scaled by their brightest value, so colours move by less than one step.
    np.testing.assert_allclose(same.probabilities, same.probabilities[[0] * 4], atol=0.02)
    grey = image.mean(axis=2).astype(np.uint8)
    others = exact.predict([grey, grey[..., None], image[20:-10, 5:-40], image > 128])
    assert np.isfinite(others.probabilities).all()
    np.testing.assert_allclose(others.probabilities[0], others.probabilities[1], atol=1e-4)


def test_an_array_is_a_list_of_images(exact, drawn):
    images = drawn[0][:5]
    stacked, listed = exact.predict(images), exact.predict(list(images))
    assert stacked.probabilities.tolist() == listed.probabilities.tolist()


def test_nothing_gives_nothing(exact):
    assert len(exact.predict([])) == 0


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((40, 40, 3), np.float32), "float32"),
        (np.zeros((40, 40, 2), np.uint8), "shape"),
        (np.zeros((2, 40, 40, 3), np.uint8), "shape"),
        (np.zeros((5, 40, 3), np.uint8), "too small"),
        (np.zeros((40, 40, 3), np.int64), "int64"),
    ],
)
def test_unusable_images_are_named(exact, drawn, image, said):
    with pytest.raises(ImageError, match=rf"image 1: .*{said}"):
        exact.predict([drawn[0][0], image])


def test_a_single_image_is_not_taken_for_a_stack(exact, drawn):
    with pytest.raises(ImageError, match="put a single image into a list"):
        exact.predict(drawn[0][0])


def test_progress_counts_every_cell(exact, drawn):
    done = []
    exact.predict(drawn[0], progress=done.append)
    assert done[-1] == 50
    assert done == sorted(done)


def test_low_confidence_and_novelty_leave_a_cell_unidentified():
    logits = np.array([[9, 0, 0, 0, 0], [1, 1, 1, 1, 1.1], [0, 9, 0, 0, 0]], np.float32)
    novelty = np.array([0.2, 0.2, 1.4], np.float32)
    predictions = decide(logits, novelty, 1.0, Rejection(min_confidence=0.5, max_novelty=1.0))
    assert predictions.label.tolist() == ["basophil", UNIDENTIFIED, UNIDENTIFIED]
    assert predictions.predicted.tolist() == ["basophil", "neutrophil", "eosinophil"]


def test_numbers_that_are_none_leave_a_cell_unidentified():
    nan = np.float32("nan")
    logits = np.array([[nan, 0, 0, 0, 0], [9, 0, 0, 0, 0]], np.float32)
    predictions = decide(logits, np.array([0.1, nan], np.float32), 1.0, Rejection())
    assert predictions.label.tolist() == [UNIDENTIFIED, UNIDENTIFIED]


@pytest.mark.parametrize(
    "shortage",
    [
        torch.OutOfMemoryError("too much"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
        ),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
    ids=["torch", "cuDNN", "cuDNN 9", "cuBLAS", "engine"],
)
def test_memory_that_runs_out_halves_the_batch(drawn, shortage):
    network = CompactResNet(5, widths=(16, 16, 16, 16)).eval()
    crops = drawn[0][:40, :64, :64]
    expected = TorchBackend(network, torch.device("cpu"), "fp32", batch_size=8).run(crops)
    features = network.features

    def small_memory(images):
        if len(images) > 10:
            raise shortage
        return features(images)

    network.features = small_memory
    backend = TorchBackend(network, torch.device("cpu"), "fp32", batch_size=32)
    logits, _ = backend.run(crops)
    assert backend.batch_size == 8
    np.testing.assert_allclose(logits, expected[0], atol=1e-5)


def test_no_cell_is_lost_when_memory_runs_out(drawn):
    classifier = Classifier.load(device="cpu", precision="fp32", backend="torch")
    images = list(drawn[0]) * 3  # more than a batch, so that the batch shrinks on the way
    expected = classifier.predict(images)
    network = classifier._backend._network
    describe = network.describe

    def small_memory(images):
        if len(images) > 20:
            raise torch.OutOfMemoryError("too much")
        return describe(images)

    network.describe = small_memory
    predictions = classifier.predict(images)
    assert classifier.batch_size == 16
    assert predictions.predicted.tolist() == expected.predicted.tolist()


def test_memory_for_not_even_one_cell_is_said(drawn):
    network = CompactResNet(5, widths=(16, 16, 16, 16)).eval()

    def no_memory(images):
        raise torch.OutOfMemoryError("too much")

    network.features = no_memory
    backend = TorchBackend(network, torch.device("cpu"), "fp32", batch_size=4)
    with pytest.raises(WbcError, match=r"not have enough memory for one cell \(too much\)"):
        backend.run(drawn[0][:2, :64, :64])


def test_memory_for_not_even_the_model_is_said(monkeypatch):
    def no_memory(*_):
        raise RuntimeError("CUDA error: out of memory")  # as torch says it where a device is full

    network = CompactResNet(5, widths=(16, 16, 16, 16))
    monkeypatch.setattr(network, "to", no_memory)
    with pytest.raises(WbcError, match="not have enough memory for the model"):
        TorchBackend(network, torch.device("cpu"), "fp32")


@pytest.mark.parametrize(
    "place",
    [
        "wbc_batch.classifier.torch_backend.fold_normalisation",
        "wbc_batch.classifier.novelty.NoveltyModel.scorer",
    ],
)
def test_memory_for_only_a_part_of_the_model_is_said(monkeypatch, place):
    def no_memory(*_):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(place, no_memory)
    with pytest.raises(WbcError, match="not have enough memory for the model"):
        Classifier.load(device="cpu", backend="torch")


def test_apples_gpu_is_said_not_to_be_used() -> None:
    with pytest.raises(WbcError, match="'mps', Apple's GPU, is not supported; use auto or cpu"):
        Classifier.load(device="mps")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "gpu"])
def test_a_device_that_is_not_there_is_said(device):
    with pytest.raises(WbcError, match=device):
        Classifier.load(device=device)


def test_a_gpu_whose_driver_is_too_old_is_said(monkeypatch):
    """NVML counts GPUs with any driver; CUDA does not start."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"'cuda' cannot be used: .*driver is too old"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


def _fake_gpus(monkeypatch: pytest.MonkeyPatch, built: str, *capabilities: tuple[int, int]) -> None:
    def capability(device: torch.device) -> tuple[int, int]:
        return capabilities[device.index or 0]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_arch_list", built.split)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: f"GPU for {built}")


@pytest.mark.parametrize(
    ("built", "capability"),
    [
        ("sm_75 sm_80 sm_120", (6, 1)),  # Pascal
        ("sm_75 sm_80 sm_120 compute_120", (7, 0)),
        ("sm_86", (8, 0)),
    ],
)
def test_a_gpu_that_torch_was_not_built_for_is_not_used(monkeypatch, caplog, built, capability):
    _fake_gpus(monkeypatch, built, capability)
    with pytest.raises(InputError, match=r"torch .* was not built for GPU.*capability is"):
        choose_device("cuda")
    assert [choose_device("auto").type for _ in range(2)] == ["cpu", "cpu"]
    assert caplog.text.count("the CPU is used, not the GPU") == 1


@pytest.mark.parametrize(
    ("built", "capability"),
    [
        ("sm_75 sm_80 sm_90a", (8, 9)),  # machine code of its generation
        ("sm_75 sm_80", (8, 0)),
        ("sm_90 compute_90", (12, 0)),  # PTX, compiled as it is loaded
        ("sm_100f", (10, 3)),
        ("gfx906 gfx90a gfx1100", (9, 0)),  # ROCm
        ("", (9, 0)),
    ],
)
def test_a_gpu_that_torch_can_use_is_used(monkeypatch, caplog, built, capability):
    _fake_gpus(monkeypatch, built, capability)
    assert choose_device("cuda").type == choose_device("auto").type == "cuda"
    assert not caplog.text


def test_the_precision_suits_the_gpu_that_was_chosen(monkeypatch):
    _fake_gpus(monkeypatch, "sm_75 sm_80", (8, 0), (7, 5))
    chosen = [choose_precision("auto", choose_device(f"cuda:{n}")) for n in range(2)]
    assert chosen == ["bf16", "bf16" if torch.version.hip else "fp16"]


@pytest.fixture
def settings_of_torch() -> Iterator[Callable[[], dict[str, str | bool]]]:
    """Tells what torch is set to, and puts it back in the end."""
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("fp32_precision came with torch 2.9")
    names = ["fp32_precision", "cudnn.conv.fp32_precision", "cuda.matmul.fp32_precision"]
    names += ["cudnn.benchmark", "cudnn.deterministic"]
    found = {name: attrgetter(name)(torch.backends) for name in names}
    yield lambda: {name: attrgetter(name)(torch.backends) for name in names}
    for name, value in found.items():
        _set_torch(name, value)


def _set_torch(name: str, value: str | bool) -> None:
    *path, last = name.split(".")
    setattr(reduce(getattr, path, torch.backends), last, value)


@pytest.mark.parametrize(
    "allowed", ["fp32_precision", "cudnn.conv.fp32_precision", "cuda.matmul.fp32_precision"]
)
def test_tf32_is_neither_used_nor_forbidden_to_others(settings_of_torch, allowed):
    _set_torch(allowed, "tf32")
    _set_torch("cudnn.benchmark", True)
    found = settings_of_torch()
    with faithful(torch.device("cuda")):
        assert settings_of_torch() == found | {
            "cudnn.conv.fp32_precision": "ieee",
            "cuda.matmul.fp32_precision": "ieee",
            "cudnn.benchmark": False,
            "cudnn.deterministic": True,
        }
    assert settings_of_torch() == found


@pytest.mark.parametrize(("native", "warned"), [(True, False), (False, True)])
def test_a_precision_that_the_cpu_only_emulates_is_warned_of(monkeypatch, caplog, native, warned):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    for precision in ("auto", "fp32"):
        Classifier.load(device="cpu", precision=precision, backend="torch")
    assert not caplog.text
    Classifier.load(device="cpu", precision="bf16", backend="torch")
    assert ("torch emulates them, many times slower than fp32" in caplog.text) is warned


def test_an_unknown_precision_is_said():
    with pytest.raises(WbcError, match="fp8"):
        Classifier.load(device="cpu", precision="fp8", backend="torch")


# --- bundles ---------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_bundle("default"), tmp_path / "bundle"))


def test_a_copied_bundle_is_the_same_model(copied, exact, drawn):
    copy = Classifier.load(copied, device="cpu", precision="fp32")
    assert copy.sha256 == exact.sha256
    assert (
        copy.predict(drawn[0][:4]).probabilities.tolist()
        == exact.predict(drawn[0][:4]).probabilities.tolist()
    )


def test_the_bundled_model_is_small():
    assert (find_bundle("default") / WEIGHTS_FILE).stat().st_size <= 10_000_000


def test_changed_weights_are_refused(copied):
    content = bytearray((copied / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (copied / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        Classifier.load(copied)


def _edit(bundle: Path, **changes: object) -> None:
    path = bundle / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_pickle_is_never_opened(copied, tmp_path):
    import hashlib
    import pickle

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    content = pickle.dumps(Trap())
    (copied / WEIGHTS_FILE).write_bytes(content)
    _edit(copied, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelError, match="not a safetensors file"):
        Classifier.load(copied)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 99}, "upgrade"),
        ({"classes": ["a", "b"]}, "lists the classes"),
        ({"architecture": "vgg"}, "unknown network architecture 'vgg'"),
        ({"architecture": "compact_resnet", "arguments": {}}, "do not fit"),
        ({"arguments": {"depth": 3}}, "does not take these arguments"),
        (
            {"architecture": "compact_resnet", "arguments": {"widths": [10**12] * 4}},
            "does not take these arguments: .*memory",
        ),
        ({"temperature": "warm"}, "not a usable model description"),
        ({"surprise": 1}, "not a usable model description"),
        ({"temperature": -1}, "temperature is -1 instead of a number above 0"),
        ({"temperature": 0}, "temperature is 0 instead"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"novelty_scale": 0}, "novelty_scale is 0"),
        ({"name": 5}, "name is 5 instead of text"),
        ({"sha256": None}, "sha256 is None instead of text"),
        ({"training": None}, "training is None instead of an object"),
        ({"size_evidence": {"medians": [1.5, 2.0], "spread": 0.1}}, "medians is .* 5 numbers"),
        ({"preprocessing": {"size": "96"}}, "size is '96' instead of a number of pixels"),
        ({"preprocessing": {"size": 60_000}}, "size is 60000 instead of a number .* at most 1024"),
        ({"preprocessing": {"view": "field"}}, "usable model description: unknown view 'field'"),
        ({"rejection": {"min_confidence": "0.5"}}, "min_confidence is '0.5' instead of a number"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(copied, changes, said):
    _edit(copied, **changes)
    with pytest.raises(ModelError, match=said) as raised:
        Classifier.load(copied)
    doubled = ("usable model description", "take these arguments")
    known = ("upgrade", "unknown network")  # which say it all
    assert not any(part in str(raised.value) for part in doubled if said.startswith(known))


def test_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no model 'nowhere'"):
        read_bundle("nowhere")
    with pytest.raises(ModelError, match="not a model bundle"):
        read_bundle(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(ModelError, match="is a file"):
        read_bundle(tmp_path / "model.pt")
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ModelError, match="not a usable model description"):
        read_bundle(tmp_path)
    (tmp_path / "model.json").write_text("[" * 200_000)
    with pytest.raises(ModelError, match=r"model\.json is not a usable .* nested too deeply"):
        read_bundle(tmp_path)


# --- calibration and novelty -----------------------------------------------------------------------


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    odds = np.exp(logits)
    truth = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1) > rng.random((20_000, 1))
    labels = truth.argmax(axis=1)
    assert fit_temperature(3.0 * logits, labels) == pytest.approx(3.0, rel=0.05)


def test_calibration_error_is_the_gap_of_confidence_and_accuracy():
    probabilities = np.tile(np.array([0.9, 0.1], np.float32), (100, 1))
    labels = np.array([0] * 60 + [1] * 40)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.3, abs=1e-6)


def test_novelty_is_one_at_the_limit_of_the_known():
    traces, labels = _clouds()
    model = fit_novelty(traces[:1000], traces[:1000], labels[:1000], traces[1000:])
    assert np.mean(model.score(traces[1000:]) <= 1.0) == pytest.approx(0.99, abs=0.002)
    assert model.score(traces[1000:] + 30.0).min() > 2.0


def test_what_varying_a_cell_changes_is_less_novel():
    traces, labels = _clouds()
    stain = np.zeros(20, np.float32)
    stain[3] = 6.0  # varying a cell moves it along this channel
    shift = np.random.default_rng(1).normal(0, 1, (1000, 1)).astype(np.float32) * stain
    model = fit_novelty(traces[:1000], traces[:1000] + shift, labels[:1000], traces[1000:])
    along, across = traces[1000:] + stain, traces[1000:] + np.roll(stain, 1)
    assert np.median(model.score(along)) < 0.8 * np.median(model.score(across))


def test_what_does_not_tell_the_classes_apart_is_less_novel():
    traces, labels = _clouds()
    model = fit_novelty(traces[:1000], traces[:1000], labels[:1000], traces[1000:])
    means = np.stack([traces[labels == k].mean(axis=0) for k in range(5)])
    directions = np.linalg.svd(means - means.mean(axis=0))[2]
    telling, common = (12.0 * direction for direction in (directions[0], directions[-1]))
    beyond, beside = model.score(traces[1000:] + telling), model.score(traces[1000:] + common)
    assert 1.2 < np.median(beside) < 0.8 * np.median(beyond)


def test_channels_that_are_always_the_same_do_no_harm():
    traces, labels = _clouds()
    traces = np.concatenate([traces, np.zeros((2000, 3), np.float32)], axis=1)
    model = fit_novelty(traces[:1000], traces[:1000], labels[:1000], traces[1000:])
    assert np.isfinite(model.whitening).all()
    assert np.isfinite(model.score(traces + 1.0)).all()


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_novelty_is_fitted_to_traces_of_any_size(size):
    traces, labels = _clouds()
    model = fit_novelty(traces[:1000], traces[:1000], labels[:1000], traces[1000:])
    sized = fit_novelty(
        *(size * t for t in (traces[:1000], traces[:1000])), labels[:1000], size * traces[1000:]
    )
    np.testing.assert_allclose(sized.score(size * traces), model.score(traces), rtol=0.01)


def _clouds():
    """Traces of cells of five classes, and their classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 5
    centres = rng.normal(0, 5, (5, 20))
    return (centres[labels] + rng.normal(0, 1, (2000, 20))).astype(np.float32), labels


# --- real cells and devices ------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(("folder", "least"), [("pbc/val", 0.97), ("jtsc", 0.8)])
def test_accuracy_on_real_cells(real_cells, folder, least):
    from wbc_batch.sources import list_cells, read_image

    cells = list(list_cells([real_cells / folder]))
    predictions = Classifier.load().predict([read_image(cell) for cell in cells])
    truth = np.array([cell.group for cell in cells])
    assert np.mean(predictions.predicted == truth) >= least


def test_a_torch_whose_libraries_cannot_be_loaded_is_a_sentence(tmp_path):
    # As on Windows, without a runtime library or after those of Qt.
    (tmp_path / "torch.py").write_text("raise OSError(22, 'Error loading c10.dll')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    code = (
        "import wbc_batch\ntry: wbc_batch.Classifier\nexcept Exception as error: print(repr(error))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith("ModelError")
    assert "torch cannot be loaded ([Errno 22] Error loading c10.dll); install" in run.stdout
