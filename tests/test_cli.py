"""The command line, as a user meets it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import invoke
from PIL import Image, ImageOps

from wbc_batch.classifier import Classifier, read_bundle
from wbc_batch.classifier.bundle import WEIGHTS_FILE
from wbc_batch.cli import app
from wbc_batch.cli.shared import command_line
from wbc_batch.errors import ExitCode
from wbc_batch.names import command_text
from wbc_batch.progress import Pace
from wbc_batch.schema import CLASSES, UNIDENTIFIED
from wbc_batch.sources import Cell, read_image

pytestmark = pytest.mark.timeout(120)

# No system looks at it; as root, nothing else is kept from these tests.
LONG = 300 * "x"


def process(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    code = "from wbc_batch.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | environment
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn slides, twenty broken files among them, and the results in ``out``."""
    place = tmp_path_factory.mktemp("place")
    drawn = invoke("draw", "-o", place, "--slides", 2, "--cells", 12)
    assert drawn.exit_code == 0, drawn.stderr
    break_twenty(place / "slides")
    return place


def break_twenty(slides: Path) -> None:
    """Add broken files of twenty kinds to two slides."""
    first, second = slides / "slide-1", slides / "slide-2"
    whole = next(first.glob("*.png"))
    image = Image.open(whole).convert("RGB")
    for number, kind in enumerate(["png", "jpg", "bmp", "tif", "webp", "gif"]):
        image.save(second / f"broken-{number}.{kind}")
        path = second / f"broken-{number}.{kind}"
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    for kind in ("png", "jpg", "tiff"):
        (first / f"empty.{kind}").touch()
    texts = {"words.jpg": b"words", "paper.pdf": b"%PDF-1.7", "table.csv": b"a,b\n", "plain": b"x"}
    for name, content in texts.items():
        (first / name).write_bytes(content)
    (first / "noise.bmp").write_bytes(np.random.default_rng(0).bytes(4000))
    (first / "header.png").write_bytes(whole.read_bytes()[:8])
    (second / "dangling.png").symlink_to("nothing.png")
    os.mkfifo(second / "pipe.png")
    image.resize((3, 3)).save(second / "tiny.png")
    image.save(second / "pages.tif", save_all=True, append_images=[image])
    os.symlink("circle.png", second / "circle.png")  # noqa: PTH211 - to itself


@pytest.fixture(scope="module")
def finished(place: Path) -> subprocess.CompletedProcess[str]:
    return process("classify", "slides", "-o", "out", "--device", "cpu", "--json", cwd=place)


def test_errors_among_the_cells_end_in_3(
    finished: subprocess.CompletedProcess[str], place: Path
) -> None:
    assert finished.returncode == 3, finished.stderr
    rows = pd.read_csv(place / "out" / "cells.csv")
    assert len(rows) == 24 + 20
    assert (rows["status"] == "error").sum() == 20
    assert rows["error"].notna().sum() == 20
    assert rows.loc[rows["status"] == "error", "label"].isna().all()
    assert len(pd.read_csv(place / "out" / "errors.csv")) == 20
    assert not rows["cell_id"].duplicated().any()
    assert set(rows["group"]) == {"slide-1", "slide-2"}
    assert set(rows["label"].dropna()) <= {*CLASSES, UNIDENTIFIED}


def test_json_is_all_there_is_on_standard_output(
    finished: subprocess.CompletedProcess[str],
) -> None:
    summary = json.loads(finished.stdout)
    assert (summary["cells"], summary["errors"], summary["exit_code"]) == (44, 20, 3)
    assert sum(summary["labels"].values()) == 24
    assert "44 of 44 cells" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "distributed" not in finished.stderr


def test_the_run_is_recorded(finished: subprocess.CompletedProcess[str], place: Path) -> None:
    record = json.loads((place / "out" / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["model"]["sha256"] == read_bundle().sha256
    assert record["counts"]["errors"] == 20
    assert record["device"] == "cpu"
    assert record["backend"] == record["settings"]["backend"] == "openvino"
    assert record["started"] <= record["finished"]
    assert "slides -o out" in record["command"]
    assert record["folder"] == os.path.realpath(place / "out")
    assert {"wbc-napari", "torch", "distributed", "python"} <= set(record["versions"])


def test_what_is_there_is_not_overwritten(
    finished: subprocess.CompletedProcess[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = (place / "out" / "cells.csv").stat().st_mtime_ns
    again = invoke("classify", "slides", "-o", "out", "--device", "cpu")
    assert again.exit_code == 1
    assert "already holds a finished run" in again.stderr
    assert (place / "out" / "cells.csv").stat().st_mtime_ns == before


@pytest.mark.usefixtures("blank_drawings")
def test_force_replaces_and_a_person_reads_a_table(
    finished: subprocess.CompletedProcess[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    options = ("-o", "out", "--device", "cpu", "--workers", 1, "--force")
    again = invoke("classify", "slides/slide-1", *options)
    assert again.exit_code == 3, again.stderr
    assert "Report: out/report.html" in again.stdout
    assert "slide-1" in again.stdout
    assert "slide-2" not in again.stdout
    assert len(pd.read_csv(place / "out" / "cells.csv")) == 12 + 9


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["missing", "-o", "new"], 2, "missing: there is no such file or folder"),
        (["empty", "-o", "new"], 2, "empty holds no files"),
        (["slides", "-o", "slides/new"], 2, "lies inside the input slides"),
        (["slides", "-o", "new", "--workers", "0"], 2, "at least one"),
        (["slides", "-o", "new", "--workers", "1", "--scheduler", "x"], 2, "scheduler"),
        (["slides", "-o", "new", "--stall-timeout", "0"], 2, "after 0 s without progress"),
        (["slides", "-o", "new", "--stall-timeout", "nan"], 2, "after nan s without progress"),
        (["slides", "-o", "new", "--model", "nonesuch"], 1, "nonesuch"),
        (["slides", "-o", "new", "--device", "toaster"], 2, "toaster"),
        (["slides", "-o", "new", "--device", "cuda:99", "--workers", "1"], 2, "cuda:99"),
        (["slides", "-o", "new", "--precision", "fp8"], 2, "unknown precision 'fp8'"),
        (["slides", "-o", "new", "--precision", "int8"], 2, "has no int8 network"),
        (["slides", "-o", "new", "--precision", "int8", "--scheduler", "x"], 2, "no int8 network"),
        (["slides", "-o", "new", "--precision", "int8", "--backend", "torch"], 2, "openvino"),
        (["slides", "-o", "new", "--device", "cpu", "--precision", "fp16"], 2, "'fp16'"),
        (["slides", "-o", "new", "--model", "damaged"], 1, "damaged or was replaced"),
        (["slides", "-o", "slides.txt"], 1, "slides.txt cannot be used for results"),
        (["slides", "-o", "others"], 1, "others is not empty"),
        (["slides", "-o", "circle"], 1, "circle cannot be used for results"),
        (["slides", "-o", "new", "--model", LONG], 1, "cannot be accessed (file name too long)"),
        (["slides", "-o", "scheduled", "--scheduler-file", LONG], 1, "(file name too long); give"),
        ([LONG, "-o", "new"], 2, "cannot be accessed (file name too long); check the spelling"),
        (["slides"], 2, "--output"),
        (["-o", "new"], 2, "INPUT"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str], code: int, sentence: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    if not os.path.lexists("circle"):
        Path("circle").symlink_to("circle")
    (place / "empty").mkdir(exist_ok=True)
    (place / "slides.txt").touch()
    (place / "others").mkdir(exist_ok=True)
    (place / "others" / "thesis.doc").touch()
    shutil.copytree(read_bundle().path, place / "damaged", dirs_exist_ok=True)
    (place / "damaged" / WEIGHTS_FILE).write_bytes(b"cut off")
    run = invoke("classify", *arguments)
    assert run.exit_code == code, run.stderr
    assert sentence in run.stderr
    assert len(run.stderr.splitlines()) == 1 or "Usage" in run.stderr
    assert run.stdout == ""
    assert not (place / "new").exists()


def test_drawing_is_repeatable(place: Path, tmp_path: Path) -> None:
    drawn = invoke("draw", "-o", tmp_path, "--slides", 2, "--cells", 12, "--json")
    assert json.loads(drawn.stdout) == {"slides": str(tmp_path / "slides"), "cells": 24}
    paths = sorted(tmp_path.glob("slides/slide-*/*.png"))
    assert len(paths) == 24
    for path in paths:
        assert path.read_bytes() == (place / path.relative_to(tmp_path)).read_bytes()


def test_a_model_tells_what_it_is() -> None:
    as_text = invoke("model", "info")
    facts = json.loads(invoke("model", "info", "default", "--json").stdout)
    assert facts["sha256"] == read_bundle().sha256
    assert facts["classes"] == list(CLASSES)
    assert facts["sha256"] in as_text.stdout
    rows = [line.split() for line in as_text.stdout.splitlines()]
    assert "{" not in as_text.stdout
    for name, found in facts["metrics"]["data_sets"].items():
        role = found["role"].split()
        (row,) = (row for row in rows if row[: 1 + len(role)] == [name, *role])
        assert f"{100 * found['accuracy']:.1f}" in row
        assert f"{100 * found['accuracy_identified']:.1f}" == row[-1]


def test_a_model_tells_what_all_its_trainings_saw(tmp_path: Path) -> None:
    cells = [dict.fromkeys(CLASSES, count) for count in (11, 12, 13, 14)]
    member = {"cells": {"a": cells[0], "drawn": cells[1]}, "started_from": {"name": "imported"}}
    average = {"average_of": [member, member], "cells": {"a": cells[0]}}
    bundle = shutil.copytree(read_bundle("default").path, tmp_path / "bundle")
    described = json.loads((bundle / "model.json").read_text())
    described |= {"training": average | {"validation_cells": {"b": cells[2]}}, "metrics": {}}
    (bundle / "model.json").write_text(json.dumps(described | {"novelty_scale": None}))
    told = invoke("model", "info", bundle).stdout
    rows = [line.split() for line in told.splitlines()]
    assert ["a", "training", *["11"] * 5] in rows
    assert ["drawn", "training", *["12"] * 5] in rows
    assert ["b", "validation", *["13"] * 5] in rows
    assert sum(row[:1] == ["a"] for row in rows) == 1
    assert "the average of 2 trained models" in told
    assert "not known what else it was trained on" in told
    assert "How well it performs is not known" in told
    assert "above a novelty" not in told


@pytest.mark.parametrize("command", [[], ["model"], ["dataset"]], ids=" ".join)
def test_help_cuts_no_sentence_and_shows_no_python_types(command: list[str]) -> None:
    told = invoke(*command, "--help").stdout
    commands = told.split("Commands:\n")[1]
    assert "..." not in commands
    for line in commands.splitlines():
        if command or line.split()[0] not in ("model", "dataset"):
            shown = invoke(*command, line.split()[0], "--help").stdout
            assert not set("<>{}") & set(shown.replace("[x>=", "").replace("; x>=", ""))


def test_version() -> None:
    run = invoke("--version")
    assert run.exit_code == 0
    assert run.stdout.startswith("wbc-batch ")


UNEXPECTED = """
import wbc_batch.run, wbc_batch.cli
def fail(*args, **kwargs): raise ZeroDivisionError("nobody thought of this")
wbc_batch.run.execute = fail
wbc_batch.cli.main()
"""


@pytest.mark.usefixtures("blank_drawings")
def test_the_unexpected_is_logged_and_told_in_a_sentence(place: Path, tmp_path: Path) -> None:
    arguments = ["classify", str(place / "slides"), "-o", str(tmp_path / "out"), "--workers", "1"]
    run = subprocess.run(
        [sys.executable, "-c", UNEXPECTED, *arguments], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "ZeroDivisionError: nobody thought of this" in run.stderr
    assert "Traceback" not in run.stderr
    assert str(tmp_path / "out" / "error.log") in run.stderr
    assert "Traceback" in (tmp_path / "out" / "error.log").read_text()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "failed"
    arguments = ["classify", place / "slides", "-o", tmp_path / "out", "--workers", "1"]
    assert invoke(*arguments).exit_code == ExitCode.CELL_ERRORS
    assert not (tmp_path / "out" / "error.log").exists()


def test_a_file_that_ends_too_soon_is_not_taken_for_an_answer_nobody_gave(monkeypatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise EOFError

    monkeypatch.setattr("wbc_batch.datasets.prepare.prepare_dataset", fail)
    with pytest.raises(RuntimeError, match="a file ends before it should"):
        app(["dataset", "prepare", "-o", "d"])


def test_ctrl_c_again_and_again_changes_nothing(tmp_path: Path) -> None:
    """While Dask clears up as Python ends."""
    code = """
import atexit, signal, wbc_batch.run, wbc_batch.cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
def interrupt(*a, **k): signal.raise_signal(signal.SIGINT)
wbc_batch.run.classify_paths = interrupt
atexit.register(interrupt)
wbc_batch.cli.main()
"""
    arguments = ["classify", "slides", "-o", str(tmp_path / "out")]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 128 + signal.SIGINT
    assert run.stderr.splitlines() == [
        "wbc-batch: interrupted; repeat the same command to continue"
    ]


FINISHED = """
import logging, wbc_batch.run, wbc_batch.cli
summary = wbc_batch.run.RunSummary("out", 5, 2, {}, 1.0, 5.0, wbc_batch.run.ExitCode.CELL_ERRORS)
def classify(*a, **k):
    logging.getLogger("wbc_batch").info("5 of 5 cells")
    return summary
wbc_batch.run.classify_paths = classify
wbc_batch.cli.main()
"""


def test_who_reads_no_more_changes_no_exit_code() -> None:
    classify = [sys.executable, "-c", FINISHED, "classify"]
    reader, writer = os.pipe()
    os.close(reader)
    options = ["slides", "-o", "out", "--json"]
    run = subprocess.run([*classify, *options], text=True, stdout=writer, stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (ExitCode.CELL_ERRORS, "5 of 5 cells\n")
    run = subprocess.run([*classify, "-", "-", "-o", "out"], stderr=writer)  # a wrong command
    os.close(writer)
    assert run.returncode == ExitCode.USAGE


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="needs os.eventfd, which Linux has")
@pytest.mark.parametrize("windows", [False, True])
def test_a_reader_that_leaves_early_is_no_error_on_windows_either(windows: bool) -> None:
    code = f"""
import wbc_batch.errors
from wbc_batch.cli.streams import outlast_readers
wbc_batch.errors._ON_WINDOWS = {windows}
outlast_readers()
print("nobody reads this")
"""
    # It calls all but eight bytes invalid, as Windows may call a pipe that nobody reads.
    with os.fdopen(os.eventfd(0), "wb") as picky:
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, stdout=picky, stderr=subprocess.PIPE, text=True)
    assert (run.returncode, "cannot be written (invalid argument)" in run.stderr) == (
        (0, False) if windows else (1, True)
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
def test_standard_output_on_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", FINISHED, "classify", "slides", "-o", "out", "--json"]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == ExitCode.FATAL
    assert run.stderr.splitlines()[1:] == [
        "wbc-batch: standard output cannot be written (no space left on device); files that the command "
        "wrote are not affected"
    ]


ESCAPES = """
import logging, wbc_batch.rebuild, wbc_batch.cli
def report(run, *args, **kwargs):
    logging.getLogger("wbc_batch.report").warning("no picture of %s", run)
    raise ZeroDivisionError(f"in {run}")
wbc_batch.rebuild.rebuild_report = report
wbc_batch.cli.main()
"""


def test_a_terminal_obeys_no_name_of_a_file(tmp_path: Path) -> None:
    name, shown = "a\x1b]0;mine\x07", r"a\x1b]0;mine\x07"
    told = process("report", name, cwd=tmp_path)
    assert shown in told.stderr
    assert not {"\x1b", "\x07"} & set(told.stderr)
    run = subprocess.run(
        [sys.executable, "-c", ESCAPES, "report", name], capture_output=True, text=True
    )
    warned, ended = run.stderr.splitlines()
    assert warned == f"no picture of {shown}"
    assert f"unexpected error: ZeroDivisionError: in {shown};" in ended


def test_a_terminal_need_not_have_every_letter(tmp_path: Path) -> None:
    bundle = shutil.copytree(read_bundle("default").path, tmp_path / "bundle")
    described = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(described | {"name": "\u0141\u017a"}))
    told = process("model", "info", bundle, cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert (told.returncode, told.stderr) == (ExitCode.OK, "")
    assert r"\u0141\u017a" in told.stdout


@pytest.mark.parametrize(("windows", "mark"), [(False, "'"), (True, '"')])
def test_the_command_that_is_recorded_can_be_typed_again(
    windows: bool, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbc_batch.names._ON_WINDOWS", windows)
    monkeypatch.setattr("sys.argv", ["/bin/wbc-batch", "classify", "my slides", "-o", "out"])
    assert command_line() == f"wbc-batch classify {mark}my slides{mark} -o out"


def test_on_windows_all_that_its_terminals_have_another_use_for_is_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wbc_batch.names._ON_WINDOWS", True)
    lines = {
        "R&D\\": r'"R&D\\"',
        "C:\\M\u00fc\\x.tif": "C:\\M\u00fc\\x.tif",
        "--group-by=(a|b)": '"--group-by=(a|b)"',
        "a,b": '"a,b"',
        "my out\\": r'"my out\\"',
        "": '""',
    }
    assert {word: command_text([word]) for word in lines} == lines
    assert command_text(["-o", "a b", "c"]) == '-o "a b" c'


@pytest.mark.skipif(sys.platform == "win32", reason="there such a folder stays")
def test_a_folder_that_is_gone_under_the_command_is_one_sentence(tmp_path: Path) -> None:
    code = "import os; os.rmdir(os.getcwd()); from wbc_batch.cli import main; main()"
    command = [sys.executable, "-c", code, "report", "/run"]
    (tmp_path / "gone").mkdir()
    run = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True)
    assert run.returncode == ExitCode.FATAL
    assert run.stderr.startswith("wbc-batch: the current folder no longer exists; change")
    assert len(run.stderr.splitlines()) == 1


def test_a_batch_systems_end_is_an_interruption(place: Path, tmp_path: Path) -> None:
    code = """
import signal, wbc_batch.run, wbc_batch.cli
wbc_batch.run.classify_paths = lambda *a, **k: signal.raise_signal(signal.SIGTERM)
wbc_batch.cli.main()
"""
    arguments = ["classify", "slides", "-o", str(tmp_path / "out")]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 128 + signal.SIGINT
    assert "repeat the same command to continue" in run.stderr


def test_pace_reckons_from_its_first_call() -> None:
    seconds = iter([100.0, 110.0, 310.0])
    pace = Pace(clock=lambda: next(seconds))
    assert pace.describe(1000, 5000) == "1,000 of 5,000 cells"
    assert pace.describe(2000, 5000) == "2,000 of 5,000 cells, 100 cells/s, 30 s left"
    assert pace.describe(3100, 50_000) == "3,100 of 50,000 cells, 10 cells/s, 78 min left"


def test_command_line_and_api_agree(
    finished: subprocess.CompletedProcess[str], place: Path
) -> None:
    rows = pd.read_csv(place / "out" / "cells.csv")
    rows = rows[rows["status"] == "ok"]
    pairs = zip(rows["source"], rows["member"], strict=True)
    cells = [Cell(source, member, None, "") for source, member in pairs]
    images = [read_image(cell, place) for cell in cells]
    expected = Classifier.load(device="cpu").predict(images).to_frame()
    assert rows["label"].tolist() == expected["label"].tolist()
    numbers = expected.columns[2:]
    np.testing.assert_allclose(rows[numbers], expected[numbers], atol=1e-4)


def test_train_and_evaluate_are_commands(place: Path, tmp_path: Path) -> None:
    with (place / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            image = Image.open(place / row["path"])
            for part, pixels in (("train", image), ("val", ImageOps.mirror(image))):
                target = tmp_path / part / row["label"] / row["path"].replace("/", "-")
                target.parent.mkdir(parents=True, exist_ok=True)
                pixels.save(target)
    training = invoke(
        "train", f"a={tmp_path / 'train'}", "--validation", f"b={tmp_path / 'val'}",
        "-o", tmp_path / "run", "--epochs", 1, "--cells-per-epoch", 32, "--name", "tried",
        "--device", "cpu", "--json",
    )  # fmt: skip
    assert training.exit_code == 0, training.stderr
    bundle = tmp_path / "run" / "bundle"
    made = json.loads(training.stdout)
    assert (made["bundle"], made["name"], made["best_epoch"]) == (str(bundle), "tried", 1)
    for image in (tmp_path / "train").rglob("*.png"):
        target = tmp_path / "new" / image.relative_to(tmp_path / "train")
        target.parent.mkdir(parents=True, exist_ok=True)
        ImageOps.flip(Image.open(image)).save(target)
    told = invoke("evaluate", bundle, f"c={tmp_path / 'new'}", "--drawn", 5, "--card", "--json")
    assert told.exit_code == 0, told.stderr
    figures = json.loads(told.stdout)["data_sets"]
    assert figures["c"]["cells"] == 24
    assert figures["drawn"]["cells"] == 5
    assert "| c | not trained on | 24 |" in (bundle / "README.md").read_text()
    table = invoke("evaluate", bundle, f"c={tmp_path / 'new'}")
    assert "c: 24 cells, accuracy" in table.stdout
    nothing = invoke("evaluate", bundle)
    assert nothing.exit_code == 2
    assert "no data set was given" in nothing.stderr


@pytest.mark.realdata
def test_real_cells_are_classified(real_cells: Path, tmp_path: Path) -> None:
    run = process("classify", real_cells / "pbc" / "val", "-o", "out", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    rows = pd.read_csv(tmp_path / "out" / "cells.csv")
    assert len(rows) == 417
    assert (rows["predicted"] == rows["given_label"]).mean() >= 0.96


@pytest.mark.realdata
def test_broken_files_among_real_cells(real_cells: Path, tmp_path: Path) -> None:
    """None is lost, and no neighbour gets another's label."""
    slides = tmp_path / "val"
    shutil.copytree(real_cells / "pbc" / "val", slides)
    for folder, _, _ in os.walk(slides):
        Path(folder).chmod(0o755)
    (slides / "slide-1").mkdir()
    (slides / "slide-2").mkdir()
    whole = Image.open(next((slides / "monocyte").glob("*.jpg")))
    whole.save(slides / "slide-1" / "whole.png")
    break_twenty(slides)
    (slides / "slide-1" / "whole.png").unlink()
    run = process("classify", "val", "-o", "out", "--json", cwd=tmp_path)
    assert run.returncode == 3, run.stderr
    rows = pd.read_csv(tmp_path / "out" / "cells.csv")
    assert len(rows) == 437
    assert (rows["status"] == "error").sum() == 20
    assert rows.loc[rows["status"] == "ok", "given_label"].isin(CLASSES).sum() == 417
