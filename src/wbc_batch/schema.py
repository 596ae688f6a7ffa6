"""The names that every part shares: classes, columns, colours. Imports nothing."""

__all__ = [
    "BOX_COLUMNS",
    "CELLS_FILE",
    "CELL_COLUMNS",
    "CELL_TYPES",
    "CHOSEN_ON",
    "CLASSES",
    "CLASS_COLORS",
    "COMPARISON_PAGE",
    "DEFAULT_PROFILE",
    "DIFFERENTIAL_FILE",
    "DRAWN",
    "ERROR_COLOR",
    "GEOJSON",
    "GIVEN_LABEL_COLUMN",
    "LABELS",
    "LEFT_OUT",
    "NEVER_TRAINED_ON",
    "NOT_KNOWN",
    "NOT_TRAINED_ON",
    "OPTIONAL_TYPES",
    "PAGE",
    "PLACE_TYPES",
    "PLOTS",
    "PROBABILITY_COLUMNS",
    "RECORD_FILE",
    "REPORT_FILES",
    "REPORT_FOLDERS",
    "REVIEWED_FILE",
    "REVIEW_COLUMNS",
    "SET_COLUMN",
    "SHARDS",
    "SIMILAR_TO_TRAINING",
    "STATUS_ERROR",
    "STATUS_OK",
    "TRAINED_ON",
    "UNIDENTIFIED",
    "UNNAMED_GROUP",
]

#: The five classes, in the order of every probability vector.
CLASSES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")

#: The label of a cell that the model should not decide; its best guess stays in ``predicted``.
UNIDENTIFIED = "unidentified"

#: What a cell that was read can be called.
LABELS = (*CLASSES, UNIDENTIFIED)

#: What people are shown for a group whose name is empty, as a table may leave it.
UNNAMED_GROUP = "(no group)"

STATUS_OK = "ok"
STATUS_ERROR = "error"

#: Column names of the class probabilities, in class order.
PROBABILITY_COLUMNS = tuple(f"prob_{name}" for name in CLASSES)

#: The columns of ``cells.csv``, of a shard and of layer features, in order, with their Arrow types.
CELL_TYPES = {
    "cell_id": "string",
    "source": "string",
    "member": "string",
    "index": "int64",
    "group": "string",
    "status": "string",
    "label": "string",
    "predicted": "string",
    "confidence": "float32",
    "margin": "float32",
    "novelty": "float32",
    **dict.fromkeys(PROBABILITY_COLUMNS, "float32"),
    "error": "string",
}

CELL_COLUMNS = tuple(CELL_TYPES)

#: Columns of crops that are a part of a larger image: pixels from its top left corner, and sizes.
BOX_COLUMNS = ("x", "y", "width", "height")

#: The column of what a table said that a cell is, before it was classified.
GIVEN_LABEL_COLUMN = "given_label"

#: Columns that are in ``cells.csv``, behind the others, where the input has something for them.
OPTIONAL_TYPES = {**dict.fromkeys(BOX_COLUMNS, "int64"), GIVEN_LABEL_COLUMN: "string"}

#: Columns of a shard that tell where the pixels of packed cells are; they are not in ``cells.csv``.
PLACE_TYPES = {"store": "string", "position": "int64"}

#: The column of ``cells.csv`` that ``--coverage`` adds.
SET_COLUMN = "prediction_set"

#: Columns that a review adds; it never overwrites what the model said.
REVIEW_COLUMNS = ("reviewed_label", "reviewed_by", "reviewed_at")

#: One colour per label, told apart by people with any common colour vision (Okabe and Ito, 2008).
CLASS_COLORS = {
    "basophil": "#0072B2",
    "eosinophil": "#D55E00",
    "lymphocyte": "#56B4E9",
    "monocyte": "#009E73",
    "neutrophil": "#E69F00",
    UNIDENTIFIED: "#999999",
}

#: Marks a cell that could not be read or classified.
ERROR_COLOR = "#CC0000"

#: Names of files in a run directory that more than one part writes or reads.
RECORD_FILE = "run.json"

#: Name of the folder, inside a run directory, that holds the shards.
SHARDS = "shards"

#: Folders of drawings, and of a GeoJSON file per image, inside a run directory.
PLOTS, GEOJSON = "plots", "geojson"

#: The page of a run, and of a comparison of two.
PAGE, COMPARISON_PAGE = "report.html", "compare.html"

#: A row for each cell.
CELLS_FILE = "cells.csv"

#: The differential of each group, by what the model said.
DIFFERENTIAL_FILE = "differential.csv"

#: The differential by a reviewer's labels where there are any.
REVIEWED_FILE = "differential-reviewed.csv"

#: What a report consists of: files and folders of a run directory that can be made anew from its shards.
REPORT_FILES = (
    CELLS_FILE,
    "cells.parquet",
    DIFFERENTIAL_FILE,
    "differential.parquet",
    REVIEWED_FILE,
    "differential-reviewed.parquet",
    "flags.csv",
    "confusion.csv",
    "errors.csv",
    "cells.h5ad",
    PAGE,
)
REPORT_FOLDERS = (PLOTS, GEOJSON)

#: What the data set of the synthetic cells is called.
DRAWN = "drawn"

#: What a data set was to a model, as the figures of an evaluation say. Synthetic cells of an evaluation are
#: like those of the training, and never the same; the epoch of a model is chosen on the validation cells.
TRAINED_ON, SIMILAR_TO_TRAINING = "trained on", "similar to training"
CHOSEN_ON, NOT_TRAINED_ON, NOT_KNOWN = "chosen on", "not trained on", "not known"

#: The same, where models are trained anew without one data set at a time.
LEFT_OUT, NEVER_TRAINED_ON = "left out", "never trained on"

#: Reference ranges of a report unless others are named.
DEFAULT_PROFILE = "uchicago"
