"""How often the limits that carry a model's mistakes cover the truth: python benchmarks/limits.py.

Slides and labelled cells are drawn for three models: a good and a poor one that identify nearly all cells,
and one that identifies a quarter to a half, as in a laboratory that it does not know. Prints, for cards of
several sizes and slides of several lengths, the share of slides whose limits hold the true share: by class,
and their mean.
"""

import argparse

import numpy as np

from wbc_batch.report.limits import confusion_limits
from wbc_batch.schema import CLASSES

GOOD = np.full((5, 5), 0.0075) + np.eye(5) * 0.9625
POOR = np.array(
    [
        [0.70, 0.10, 0.05, 0.10, 0.05],
        [0.02, 0.80, 0.02, 0.06, 0.10],
        [0.03, 0.02, 0.85, 0.08, 0.02],
        [0.04, 0.04, 0.20, 0.70, 0.02],
        [0.01, 0.08, 0.02, 0.04, 0.85],
    ]
)
NEARLY_ALL = np.array([0.98, 0.97, 0.95, 0.93, 0.96])
FEW = np.array([0.50, 0.23, 0.37, 0.25, 0.50])
MODELS = {"good": (GOOD, NEARLY_ALL), "poor": (POOR, NEARLY_ALL), "reluctant": (POOR, FEW)}
TRUTH = np.array([0.007, 0.03, 0.3, 0.063, 0.6])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slides", type=int, default=200)
    options = parser.parse_args()
    rng = np.random.default_rng(3)
    print("model", "card", "cells", *CLASSES, "mean", sep="\t")
    for name, (rates, identified) in MODELS.items():
        labels = np.column_stack([rates * identified[:, None], 1 - identified])
        for card in (20, 40, 80, 200):
            for cells in (200, 2000):
                inside = []
                for slide in range(options.slides):
                    counts = rng.multinomial(cells, TRUTH @ labels)[:5]
                    known = np.array([rng.multinomial(card, row) for row in labels])
                    lower, upper = confusion_limits(counts, known, draws=400, seed=slide)
                    inside.append((lower <= TRUTH) & (upper >= TRUTH))
                covered = 100 * np.mean(inside, axis=0)
                shown = (f"{share:.0f}" for share in covered)
                print(name, card, cells, *shown, f"{covered.mean():.1f}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
