"""The figures of a report, each against an independent computation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wbc_batch.classifier import read_bundle
from wbc_batch.errors import InputError
from wbc_batch.report import (
    agreement,
    confusion_of,
    differential,
    group_flags,
    merge_review,
    profile_names,
    read_profile,
    read_review,
)
from wbc_batch.report.agreement import class_figures, cohen_kappa
from wbc_batch.report.confusion import ENOUGH, Confusion, confusion_from_record
from wbc_batch.report.differential import Tally
from wbc_batch.report.flags import MANY_UNIDENTIFIED, OUTSIDE, TOO_FEW, UNLIKE
from wbc_batch.report.groups import label_in, read_grouping
from wbc_batch.report.limits import confusion_limits
from wbc_batch.report.options import ReportOptions
from wbc_batch.report.review import after_review
from wbc_batch.report.wbc_counts import read_wbc_counts
from wbc_batch.schema import CLASSES, UNIDENTIFIED

# How often a cell of each class (rows) is given each label; two classifiers, a good one and a poor one.
GOOD = np.array(
    [
        [0.970, 0.005, 0.005, 0.010, 0.010],
        [0.005, 0.960, 0.005, 0.010, 0.020],
        [0.005, 0.000, 0.960, 0.030, 0.005],
        [0.005, 0.005, 0.030, 0.940, 0.020],
        [0.002, 0.008, 0.005, 0.015, 0.970],
    ]
)
POOR = np.array(
    [
        [0.85, 0.05, 0.02, 0.03, 0.05],
        [0.05, 0.80, 0.03, 0.03, 0.09],
        [0.02, 0.02, 0.85, 0.10, 0.01],
        [0.03, 0.04, 0.13, 0.70, 0.10],
        [0.01, 0.06, 0.01, 0.04, 0.88],
    ]
)
CARD_CELLS = (80, 110, 120, 120, 270)
# How many cells of each class one classifier identifies that met another laboratory.
IDENTIFIED = np.array([0.50, 0.23, 0.37, 0.25, 0.50])


# --- limits with the classifier's confusion -------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "identified"),
    [(GOOD, np.ones(5)), (POOR, np.ones(5)), (POOR, IDENTIFIED)],
    ids=["good", "poor", "reluctant"],
)
def test_limits_with_confusion_cover_the_truth_in_simulated_slides(rates, identified):
    """Each of 1,000 slides has its own composition, and is judged with its own card."""
    rng = np.random.default_rng(2026)
    labelled = np.column_stack([rates * identified[:, None], 1 - identified])
    inside, naive = [], []
    for slide in range(1000):
        truth = rng.dirichlet((0.5, 2.0, 18.0, 4.0, 36.0))
        card = np.array(
            [rng.multinomial(n, row) for n, row in zip(CARD_CELLS, labelled, strict=True)]
        )
        counts = rng.multinomial(200, truth @ labelled)[:5]
        lower, upper = confusion_limits(counts, card, draws=400, seed=slide)
        inside.append((lower <= truth) & (truth <= upper))
        low, high = stats.beta.ppf([[0.025], [0.975]], counts + 0.5, counts.sum() + 0.5 - counts)
        naive.append((low <= truth) & (truth <= high))
    covered = np.mean(inside, axis=0)
    assert 0.93 <= np.mean(inside) <= 0.97
    assert (covered[1:] >= 0.93).all()
    assert (covered[1:] <= 0.97).all()
    assert covered[0] >= 0.93  # so rare a class covers more often, as exact limits do
    if rates is POOR:  # what limits of the counting alone would do
        assert np.mean(naive) < 0.80


def test_a_perfect_classifier_leaves_the_limits_of_the_counting():
    counts = np.array([2, 6, 60, 12, 120])
    lower, upper = confusion_limits(counts, np.diag([10**7] * 5), draws=20_000)
    expected = stats.beta.ppf([[0.025], [0.975]], counts + 0.5, 200 - counts + 2.0)
    np.testing.assert_allclose([lower, upper], expected, atol=0.004)


def test_many_cells_leave_what_solving_for_the_true_shares_gives():
    truth = np.array([0.01, 0.04, 0.3, 0.07, 0.58])
    counts = np.rint(10**9 * truth @ POOR)
    lower, upper = confusion_limits(counts, np.rint(10**9 * POOR))
    np.testing.assert_allclose([lower, upper], [truth, truth], atol=0.001)


def test_a_class_that_was_not_seen_is_never_excluded_altogether():
    lower, upper = confusion_limits([0, 0, 50, 0, 50], np.rint(1000 * POOR))
    assert lower[3] == 0.0
    assert upper[3] >= 1 - 0.025 ** (1 / 100)  # the exact limit of 0 among 100


def test_a_class_that_is_seldom_identified_is_counted_too_rarely():
    truth, seldom = np.array([0.01, 0.04, 0.3, 0.07, 0.58]), np.array([0.9, 0.9, 0.9, 0.1, 0.9])
    card = 10**9 * np.column_stack([POOR * seldom[:, None], 1 - seldom])
    counts = np.rint(10**9 * truth * seldom @ POOR)
    lower, upper = confusion_limits(counts, np.rint(card))
    np.testing.assert_allclose([lower, upper], [truth, truth], atol=0.001)


def test_limits_of_a_group_do_not_hang_on_the_others():
    alone = confusion_limits([7, 2, 3, 4, 90], np.rint(100 * GOOD))
    groups = np.random.default_rng(0).integers(0, 90, (150, 5))
    groups[[5, 149]] = [7, 2, 3, 4, 90]
    for limits, of_groups in zip(alone, confusion_limits(groups, np.rint(100 * GOOD)), strict=True):
        np.testing.assert_array_equal(of_groups[[5, 149]], [limits, limits])


def test_limits_with_confusion_of_many_groups_and_of_none():
    counts = np.tile([1, 2, 3, 4, 90], (130, 1))
    counts[7] = 0
    lower, upper = confusion_limits(counts, np.rint(100 * GOOD), draws=200)
    assert lower.shape == upper.shape == (130, 5)
    assert np.isnan(lower[7]).all()
    assert np.isfinite(np.delete(upper, 7, axis=0)).all()
    assert (np.delete(lower, 7, axis=0) == lower[0]).all()
    with pytest.raises(ValueError, match="5 x 5"):
        confusion_limits([1, 2, 3, 4, 5], np.eye(4))
    with pytest.raises(ValueError, match="negative"):
        confusion_limits([1, 2, 3, 4, -5], np.eye(5))


def metrics(**sets: tuple[str, int]) -> dict:
    """Metrics of a bundle with so many right cells per class, and one basophil taken for a monocyte."""
    data_sets = {}
    for name, (role, cells) in sets.items():
        counts = cells * np.eye(5, dtype=int)
        counts[0, 3] += 1
        data_sets[name] = {"role": role, "confusion": counts.tolist()}
    return {"data_sets": data_sets}


def test_the_models_confusion_is_that_of_cells_it_was_not_trained_on():
    found = confusion_of(
        metrics(
            a=("trained on", 500),
            b=("not trained on", 30),
            c=("chosen on", 40),
            drawn=("not trained on", 99),
        )
    )
    assert found is not None
    assert (found.data_sets, found.roles) == (("b",), ("not trained on",))
    assert found.counts[0] == (30, 0, 0, 1, 0)


def test_too_few_cells_of_a_class_call_for_more_or_for_none():
    both = confusion_of(metrics(b=("not trained on", 3), c=("chosen on", 40)))
    assert both is not None
    assert (both.data_sets, both.counts[0][0]) == (("b", "c"), 43)
    assert confusion_of(metrics(b=("not trained on", 3), c=("trained on", 40))) is None
    assert confusion_of({}) is None


def test_identified_cells_are_preferred_where_they_were_counted():
    figures = metrics(b=("not trained on", 30))
    figures["data_sets"]["b"]["confusion_identified"] = (25 * np.eye(5, dtype=int)).tolist()
    found = confusion_of(figures)
    assert found is not None
    assert found.counts[0] == (25, 0, 0, 0, 0)
    assert found.unidentified == (6, 5, 5, 5, 5)
    assert found.table.shape == (5, 6)
    assert confusion_from_record(json.loads(json.dumps(found.to_record()))) == found


def test_the_confusion_of_a_run_of_an_earlier_version_can_be_read():
    counts = (30 * np.eye(5, dtype=int)).tolist()
    record = {"counts": counts, "data_sets": ["a"], "roles": ["not trained on"]}
    for identified, unidentified in ((True, (0,) * 5), (False, None)):
        found = confusion_from_record(record | {"identified": identified})
        assert found is not None
        assert found.unidentified == unidentified
    assert confusion_from_record(record | {"unidentified": [-1] * 5}) is None
    assert confusion_from_record(record | {"unidentified": [1] * 4}) is None


def test_the_bundled_models_confusion_can_be_used():
    found = confusion_of(read_bundle().metrics)
    # A model that was evaluated on too few foreign cells has none.
    assert found is None or (np.sum(found.counts, axis=1) >= ENOUGH).all()
    assert found is None or "trained on" not in found.roles


def test_differential_carries_both_pairs_of_limits_and_absolute_counts():
    cells = pd.DataFrame(
        {
            "group": ["a"] * 100 + ["b"] * 10,
            "label": ["neutrophil"] * 60 + ["lymphocyte"] * 40 + ["monocyte"] * 10,
            "confidence": 0.9,
            "novelty": [1.5] * 20 + [0.5] * 90,
        }
    )
    confusion = Confusion(
        tuple(map(tuple, np.rint(200 * POOR).astype(int))), ("lab",), ("x",), None
    )
    table = differential(cells, confusion, {"a": 8.0}).set_index(["group", "label"])
    row = table.loc[("a", "neutrophil")]
    assert row["absolute"] == pytest.approx(4.8)
    assert row["absolute_upper"] == pytest.approx(8.0 * row["upper"] / 100)
    assert row["absolute_confusion_lower"] == pytest.approx(8.0 * row["confusion_lower"] / 100)
    assert row["confusion_upper"] - row["confusion_lower"] > row["upper"] - row["lower"]
    assert table.loc["b", "absolute"].isna().all()
    assert table.loc["a", "unlike"].sum() == 20
    lower, _ = confusion_limits([0, 0, 40, 0, 60], confusion.counts)
    assert row["confusion_lower"] == pytest.approx(100 * lower[4], abs=3)  # other draws


# --- counts, means, medians -----------------------------------------------------------------------


def test_counts_means_and_medians_are_those_of_pandas_however_the_cells_come():
    rng = np.random.default_rng(11)
    cells = pd.DataFrame(
        {
            "group": rng.choice(["a", "b", "c"], 3001),
            "label": rng.choice([*CLASSES, UNIDENTIFIED], 3001),
            "confidence": rng.random(3001).astype("f4"),
            "novelty": rng.exponential(0.5, 3001),
        }
    )
    tally = Tally()
    for part in np.array_split(np.arange(len(cells)), 7):
        tally.add(cells.iloc[part])
    found = tally.by_group().set_index(["group", "label"])
    grouped = cells.groupby(["group", "label"])
    expected = grouped["confidence"].agg(["size", "mean", "median"])
    rows = found.loc[expected.index]
    np.testing.assert_array_equal(rows["count"], expected["size"])
    np.testing.assert_allclose(rows["mean_confidence"], expected["mean"], atol=1e-6)
    np.testing.assert_allclose(rows["median_confidence"], expected["median"], atol=1e-7)
    np.testing.assert_array_equal(rows["unlike"], grouped["novelty"].agg(lambda n: (n > 1).sum()))

    together = tally.overall().set_index("label")
    for label, part in cells.groupby("label"):
        assert together.loc[label, "median_confidence"] == pytest.approx(
            part["confidence"].median(), abs=1e-7
        )
        histogram, _ = np.histogram(part["confidence"], 40, (0, 1))
        np.testing.assert_array_equal(tally.histogram(label), histogram)
    identified = cells[cells["label"] != UNIDENTIFIED]
    for label in CLASSES:
        share = 100 * (identified["label"] == label).mean()
        assert together.loc[label, "percent"] == pytest.approx(share)


# --- agreement ------------------------------------------------------------------------------------


def test_agreement_is_counted_as_pandas_counts_it():
    rng = np.random.default_rng(12)
    labels = [*CLASSES, UNIDENTIFIED]
    first, second = rng.choice(labels, (2, 700))
    found = agreement(first, second)
    expected = pd.crosstab(first, second).reindex(index=labels, columns=labels, fill_value=0)
    np.testing.assert_array_equal(found.table, expected)
    both = (first != UNIDENTIFIED) & (second != UNIDENTIFIED)
    for label, row in zip(CLASSES, class_figures(found.identified.table), strict=False):
        known, said = (first == label)[both], (second == label)[both]
        assert row.cells == known.sum()
        assert row.recall == pytest.approx(said[known].mean())
        assert row.precision == pytest.approx(known[said].mean())
        assert row.f1 == pytest.approx(stats.hmean([row.recall, row.precision]))
        exact = stats.binomtest(int((known & said).sum()), int(known.sum())).proportion_ci()
        assert row.recall_limits == pytest.approx((exact.low, exact.high))


def test_kappa_is_the_agreement_that_shuffling_does_not_give():
    rng = np.random.default_rng(13)
    first = rng.choice(CLASSES, 400, p=(0.05, 0.1, 0.3, 0.1, 0.45))
    second = np.where(rng.random(400) < 0.7, first, rng.permutation(first))
    observed = (first == second).mean()
    chance = np.mean([(first == rng.permutation(second)).mean() for _ in range(2000)])
    assert agreement(first, second).kappa == pytest.approx(
        (observed - chance) / (1 - chance), abs=0.003
    )


def test_kappa_of_a_published_table():
    """Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, table 18.1."""
    assert cohen_kappa([[75, 1, 4], [5, 4, 1], [0, 0, 10]]) == pytest.approx(0.676, abs=0.0005)


def test_kappa_at_its_ends():
    assert cohen_kappa(np.diag([3, 4])) == 1.0
    assert cohen_kappa(np.outer([1, 2, 3], [4, 5, 6])) == pytest.approx(0.0)
    assert np.isnan(cohen_kappa(np.zeros((6, 6))))
    assert np.isnan(cohen_kappa([[5, 0], [0, 0]]))


def test_agreement_counts_and_measures():
    first = ["basophil", "basophil", "basophil", "monocyte", "monocyte", None, ""]
    second = ["basophil", "basophil", "monocyte", "monocyte", UNIDENTIFIED, "monocyte", "basophil"]
    found = agreement(first, second)
    assert (found.cells, found.agreeing, found.identified.cells) == (5, 3, 4)
    exact = stats.binomtest(3, 5).proportion_ci(0.95, method="exact")
    assert found.limits == pytest.approx((exact.low, exact.high))
    basophil, eosinophil, _, monocyte, *_ = class_figures(found.identified.table)
    assert (basophil.cells, basophil.recall, basophil.precision) == (3, pytest.approx(2 / 3), 1.0)
    assert (monocyte.cells, monocyte.recall, monocyte.precision) == (1, 1.0, 0.5)
    assert monocyte.f1 == pytest.approx(2 / 3)
    assert np.isnan([eosinophil.recall, eosinophil.precision, eosinophil.f1]).all()
    with pytest.raises(InputError, match="'blast'"):
        agreement(["blast"], ["monocyte"])


# --- reference ranges and flags -------------------------------------------------------------------


def counted(labels: dict[str, int], novel: int = 0) -> pd.DataFrame:
    names = np.repeat(list(labels), list(labels.values()))
    novelty = np.where(np.arange(len(names)) < novel, 2.0, 0.1)
    return differential(pd.DataFrame({"label": names, "confidence": 0.9, "novelty": novelty}))


def flagged(table: pd.DataFrame, profile: str = "dacie-lewis") -> set[tuple[str, str]]:
    return {(flag.label, flag.flag) for flag in group_flags(table, read_profile(profile))}


NORMAL = {"neutrophil": 120, "lymphocyte": 60, "monocyte": 12, "eosinophil": 6, "basophil": 2}


def test_a_differential_within_the_ranges_has_no_flags():
    assert flagged(counted(NORMAL)) == set()


def test_a_class_is_outside_only_if_its_whole_interval_is():
    assert ("eosinophil", OUTSIDE) not in flagged(counted(NORMAL | {"eosinophil": 16}))
    assert ("eosinophil", OUTSIDE) in flagged(counted(NORMAL | {"eosinophil": 40}))
    assert ("eosinophil", OUTSIDE) not in flagged(counted(NORMAL | {"eosinophil": 40}), "none")
    table = counted(NORMAL | {"eosinophil": 40})
    wide = table.assign(
        confusion_lower=table["lower"].where(table["label"] != "eosinophil", 2.0),
        confusion_upper=table["upper"],
    )
    assert ("eosinophil", OUTSIDE) not in flagged(wide)


def test_absolute_counts_have_their_own_ranges():
    cells = pd.DataFrame(
        {"label": np.repeat(list(NORMAL), list(NORMAL.values())), "confidence": 0.9}
    )
    low = group_flags(differential(cells, wbc_counts={"": 1.5}), read_profile("dacie-lewis"))
    assert {flag.label for flag in low} == {"neutrophil", "lymphocyte", "monocyte"}
    assert all("below" in flag.detail for flag in low)


def test_groups_are_flagged_for_few_unidentified_and_unlike_cells():
    assert ("", TOO_FEW) in flagged(counted({"neutrophil": 99}))
    assert ("", TOO_FEW) not in flagged(counted({"neutrophil": 100}))
    assert ("", MANY_UNIDENTIFIED) in flagged(counted(NORMAL | {UNIDENTIFIED: 60}))
    assert ("", MANY_UNIDENTIFIED) not in flagged(counted(NORMAL | {UNIDENTIFIED: 40}))
    (flag,) = group_flags(counted({"neutrophil": 160, UNIDENTIFIED: 41}))
    assert flag.detail == "41 of 201 cells (20.4 %)"  # the rule is: more than 20 %
    assert ("", UNLIKE) in flagged(counted(NORMAL, novel=25))
    assert ("", UNLIKE) not in flagged(counted(NORMAL, novel=15))


def test_bundled_profiles_name_their_source_and_all_classes():
    assert len(profile_names()) >= 2
    for name in profile_names():
        profile = read_profile(name)
        assert profile is not None
        assert profile.source
        assert set(profile.percent) == set(CLASSES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("percent: {blast: [1, 2]}", "'blast'"),
        ("percent: {monocyte: [9, 2]}", "not a valid range"),
        ("percent: {monocyte: [9, 200]}", "not a valid range"),
        ("percent: {monocyte: 9}", "two numbers"),
        ("percent: {monocyte: [~, ~]}", "two numbers"),
        ("title: x", "'percent'"),
        ("persent: {}", "'persent'"),
        ("- a", "must hold"),
        ("a: [", "cannot be read"),
        ("[" * 5000, "cannot be read: it is nested too deeply"),
        ("a: 2024-13-45", "cannot be read: month must be"),
    ],
)
def test_a_profile_that_is_wrong_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_profile(path)
    assert "mine.yaml" in str(caught.value)


def test_a_profile_of_ones_own(tmp_path):
    path = tmp_path / "mice.yaml"
    path.write_text("title: Mice\npercent:\n  lymphocyte: [60, 90]\n  basophil: [~, 1]\n")
    profile = read_profile(path)
    assert profile is not None
    assert (profile.name, profile.title, str(profile.percent["basophil"])) == (
        "mice", "Mice", "up to 1"
    )  # fmt: skip
    with pytest.raises(InputError, match="dacie-lewis"):
        read_profile("no-such-profile")


# --- review, counts, groups -----------------------------------------------------------------------

HEADER = "cell_id,reviewed_label,reviewed_by,reviewed_at\n"


def test_a_review_never_overwrites_what_the_model_said(tmp_path):
    path = tmp_path / "corrections.csv"
    path.write_text(HEADER + "a,Monocyte,'=Ann,2026-01-01\nb,,,\nd,unidentified,Bo,\n")
    cells = pd.DataFrame(
        {
            "cell_id": ["a", "b", "c", "d"],
            "label": ["basophil", "basophil", None, "neutrophil"],
            "status": ["ok", "ok", "error", "ok"],
            "confidence": [0.9, 0.8, None, 0.7],
        }
    )
    merged = merge_review(cells, read_review(path))
    assert list(merged["label"].dropna()) == ["basophil", "basophil", "neutrophil"]
    assert list(merged["reviewed_label"].fillna("")) == ["monocyte", "", "", UNIDENTIFIED]
    assert merged["reviewed_by"][0] == "=Ann"
    after = after_review(merged)
    assert list(after["label"].fillna("")) == ["monocyte", "basophil", "", UNIDENTIFIED]
    counts = differential(after).set_index("label")["count"]
    assert (counts["monocyte"], counts["basophil"], counts["error"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "a,blast,x,\nb,monocyte,x,\nc,Mono,x,\n", r"row 2 \('blast'\), row 4 \('Mono'\)"),
        (HEADER + "a,monocyte,x,\nb,monocyte,x,\na,basophil,x,\n", r"twice: row 4 \('a'\)"),
        ("cell_id,label\na,monocyte\n", "no column reviewed_label"),
        ("", "no column cell_id"),
        (HEADER, "no rows"),
        (HEADER + "a,,x,\n", "no reviewed cell"),
        (HEADER + '"a,monocyte,x,\n', "cannot be read"),
        (HEADER + "a,monocyte,x,,\nb,monocyte,Lee, Ann,2026\n", "row 3 .* double quotes"),
    ],
)
def test_corrections_that_are_wrong_are_refused_with_their_rows(tmp_path, text, message):
    path = tmp_path / "corrections.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_review(path)


def test_tables_are_read_however_a_spreadsheet_saved_them(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_bytes("\ufeffgroup;wbc;note\r\nslide 1;6,8;x\r\n'=2;11;\r\n;;\r\n".encode())
    assert read_wbc_counts(path) == {"slide 1": 6.8, "=2": 11.0}


def test_a_white_blood_cell_count_that_may_be_per_microlitre_is_told(tmp_path, caplog):
    path = tmp_path / "counts.csv"
    path.write_text("group;wbc\na;100\nb;800\n")
    assert read_wbc_counts(path) == {"a": 100.0, "b": 800.0}
    (told,) = caplog.messages
    assert told.startswith(f"{path} has unusually high")
    assert ": 800 for 'b'; if they were meant per microliter" in told


@pytest.mark.parametrize("wbc", ["6800", "-1", "many", "", "nan"])
def test_white_blood_cell_counts_that_are_none_are_refused(tmp_path, wbc):
    path = tmp_path / "counts.csv"
    path.write_text(f"group,wbc\na,5\nb,{wbc}\n")
    with pytest.raises(InputError, match=r"row 3 \("):
        read_wbc_counts(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group,wbc\na,6,8\n", "row 2 of .* has more cells than the 2 columns"),
        ("group,wbc\na,5\n\na,6\n", r"groups twice: row 4 \('a'\)"),
        ("group,wbc\n,\n", "no rows"),
        ('group,wbc\na,5\n"b,6\nc,7\n', r"row 3 of .*counts\.csv cannot be read"),
    ],
)
def test_lists_of_counts_that_are_wrong_are_refused(tmp_path, text, message):
    path = tmp_path / "counts.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_wbc_counts(path)


@pytest.mark.parametrize(
    ("group", "label", "rest"),
    [
        ("slide-1", None, "slide-1"),
        ("jtsc/Basophil", "basophil", "jtsc"),
        ("neutrophil/patient-1", "neutrophil", "patient-1"),
        ("a/monocyte/b", "monocyte", "a/b"),
        ("monocyte", "monocyte", ""),
        ("monocytes", None, "monocytes"),
    ],
)
def test_folders_named_like_classes_are_labels(group, label, rest):
    assert label_in(group) == (label, rest)


# As a keyboard writes it, and as a folder may be named on macOS.
TYPED, NAMED = "M\u00fcller", "Mu\u0308ller"


@pytest.mark.parametrize(("typed", "named"), [(TYPED, NAMED), (NAMED, TYPED)])
def test_groups_are_found_however_their_letters_are_written(tmp_path, typed, named):
    where = ("in", f"{named}/a.png", named)
    path = tmp_path / "groups.csv"
    path.write_text(f"group,name\n{typed},patient 1\n", encoding="utf-8")
    assert read_grouping(str(path)).rule(*where) == "patient 1"
    assert read_grouping(f"({typed}|Schmidt)").rule(*where) in (typed, named)
    counts = ReportOptions(wbc_counts={typed: 6.0}).counts_of([named, "Schmidt"])
    assert counts == {named: 6.0}
    both = {typed: 6.0, named: 7.0}  # two folders, where the file system has both
    assert ReportOptions(wbc_counts=both).counts_of([named, typed]) == both


def test_cells_are_grouped_as_asked(tmp_path):
    where = ("in/put", "p1/s2/a.png", "p1/s2")
    assert read_grouping(None).rule(*where) == "p1/s2"
    assert read_grouping(None).rule("in/put", "monocyte/a.png", "monocyte") == "put"
    assert read_grouping("source").rule(*where) == "in/put"
    assert read_grouping(r"/(p\d)/").rule(*where) == "p1"
    with pytest.raises(InputError, match="finds no group in 'in/put/p1"):
        read_grouping("(x+)").rule(*where)
    path = tmp_path / "groups.csv"
    path.write_text("group,name\np1/s2,patient 1\n")
    assert read_grouping(str(path)).rule(*where) == "patient 1"
    with pytest.raises(InputError, match="'other'"):
        read_grouping(str(path)).rule("in", "a.png", "other")
    path.write_text("group,name\np1/s2,\n")
    with pytest.raises(InputError, match=r"without a name: row 2 \('p1/s2'\)"):
        read_grouping(str(path))
    for wrong, message in (("(", "regular expression"), ("()(", "regular"), ("day", "neither")):
        with pytest.raises(InputError, match=message):
            read_grouping(wrong)
    with pytest.raises(InputError, match="no such file"):
        read_grouping(str(Path(tmp_path, "gone.csv")))
