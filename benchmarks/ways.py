"""Our ways to classify cells, and the bounds of them: functions of a number of cells, on warm workers."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from distributed import Client

from wbc_batch.classifier import read_bundle
from wbc_batch.engine import work
from wbc_batch.engine.crew import Crew
from wbc_batch.engine.execute import execute
from wbc_batch.engine.plan import Job, ShardSpec, model_digest, plan_shards, shard_size
from wbc_batch.ledger import ShardResult
from wbc_batch.schema import SHARDS
from wbc_batch.sources import list_cells

WARM = 128  # cells
STALLED = 600.0  # seconds


@dataclass(frozen=True)
class Ours:
    """Workers that are up, and what they are to compute with.

    Attributes
    ----------
    client : distributed.Client
    crew : Crew
    model, device, backend, precision : str
        As `wbc_batch.Classifier.load` takes them.
    scratch : Path
        Where results are written.
    """

    client: Client
    crew: Crew
    model: str
    device: str
    backend: str
    precision: str
    scratch: Path

    def warmed(self, source: Path) -> str:
        """Load the model on every worker and try it; tell the backend and precision that ``auto`` is."""
        first, *_ = self.specs(source, WARM)
        todo = [
            self.client.submit(work.run_shard, first, workers=[worker], pure=False)
            for worker in self.client.nthreads()
        ]
        result, *_ = self.client.gather(todo)
        return f"{result.backend} {result.precision}"

    def classify(self, source: Path, cells: int) -> None:
        """List, read, classify, and commit the rows: as a run does."""
        done: list[ShardResult] = []
        execute(self.client, self.specs(source, cells), done.append, STALLED)
        errors = sum(result.errors for result in done)
        if errors or sum(result.cells for result in done) != cells:
            raise SystemExit(f"{source}: {errors} errors in {cells} cells; this measures nothing")

    def alone(self, part: Callable[[ShardSpec], None], source: Path, cells: int) -> None:
        """Let every worker do only a part of the work, on as many cells."""
        todo = self.client.map(part, self.specs(source, cells), pure=False)
        self.client.gather(todo)

    def specs(self, source: Path, cells: int) -> list[ShardSpec]:
        """List the first cells of a source and cut them into shards, as a run does."""
        shards = self.scratch / SHARDS
        shards.mkdir(exist_ok=True)
        digest = model_digest(read_bundle(self.model))
        job = Job(
            self.model,
            digest,
            self.device,
            self.precision,
            self.crew.threads,
            base=str(Path.cwd()),
            shards=str(shards),
            backend=self.backend,
        )
        some = islice(list_cells([source]), cells)
        return list(plan_shards(some, job, shard_size(cells, self.crew.workers)))


def only_prepare(spec: ShardSpec) -> None:
    """Read, decode and cut out, without a network: the bound of decoding."""
    classifier = work.load_classifier(spec.job)
    for _ in work.crops_of_shard(classifier, spec):
        pass


def only_predict(spec: ShardSpec) -> None:
    """Classify as many crops that lie in memory: the bound of the network."""
    classifier = work.load_classifier(spec.job)
    count = work.cells_at_once(classifier)
    shape = (classifier.input_size, classifier.input_size, 3)
    crop = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batch = np.repeat(crop[None], count, axis=0)
    for _ in range(0, len(spec.cells), count):
        classifier.predict_prepared(batch)
