"""A file that describes a cluster to start: the name of one of Dask's classes and its arguments.

```yaml
class: SLURMCluster
n_workers: 20
cores: 8
memory: 16GB
walltime: "04:00:00"
adapt: {minimum: 1, maximum: 20}    # optional
```

`class` is one of `CLASSES`, or the full name of another class derived from Dask's own `Cluster`,
such as ``dask_gateway.GatewayCluster``. `adapt` goes to its method of that name; everything else to
its constructor.
"""

import inspect
import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from dask.utils import parse_timedelta
from distributed.deploy import Cluster

from wbc_batch.engine.plan import SHARDS_AT_ONCE
from wbc_batch.errors import InputError, reason
from wbc_batch.records import parse_yaml

__all__ = ["CLASSES", "ClusterDescription", "read_cluster_file"]


class _KnownClass(NamedTuple):
    """A class that needs no full name: its module, the package that brings it, and what it needs to start."""

    module: str
    package: str
    needs: str


_BATCH_SYSTEM = _KnownClass(
    "dask_jobqueue", "dask-jobqueue", "it needs the commands of its batch system on this machine"
)

#: Classes that need no full name.
CLASSES: Mapping[str, _KnownClass] = {
    "LocalCluster": _KnownClass("distributed", "distributed", "see its documentation"),
    "SSHCluster": _KnownClass(
        "distributed", "distributed", "it needs hosts that ssh can reach without a password"
    ),
    "LocalCUDACluster": _KnownClass(
        "dask_cuda", "dask-cuda", "it needs an NVIDIA GPU and its driver on this machine"
    ),
    "KubeCluster": _KnownClass(
        "dask_kubernetes.operator",
        "dask-kubernetes",
        "it needs a Kubernetes cluster that kubectl can reach from here, with the Dask operator "
        "installed",
    ),
} | dict.fromkeys(
    (
        "SLURMCluster",
        "PBSCluster",
        "SGECluster",
        "LSFCluster",
        "HTCondorCluster",
        "MoabCluster",
        "OARCluster",
    ),
    _BATCH_SYSTEM,
)

_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "LocalCluster": {"silence_logs": logging.CRITICAL},
    # The resource tells runs which workers have a GPU.
    "LocalCUDACluster": {
        "silence_logs": logging.CRITICAL,
        "resources": {"GPU": 1},
        "threads_per_worker": SHARDS_AT_ONCE,
    },
    "KubeCluster": {"quiet": True},
}

_LOCAL = ("LocalCluster", "LocalCUDACluster")


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """A cluster that can be started.

    Attributes
    ----------
    name : str
        Of its class.
    start_class : callable
        The class, or a function that makes one (such as ``distributed.SSHCluster``).
    arguments : dict
        For the class.
    adapt : dict or None
        For its method ``adapt``; None leaves the number of workers as it is.
    """

    name: str
    start_class: Callable[..., Any]
    arguments: dict[str, Any]
    adapt: dict[str, Any] | None = None

    @property
    def needs(self) -> str:
        """What it needs to start, as a part of a sentence."""
        return CLASSES[self.name].needs if self.name in CLASSES else "see its documentation"

    @property
    def local(self) -> bool:
        """Whether its workers are processes of this machine."""
        return self.name in _LOCAL

    @property
    def workers(self) -> int | None:
        """How many workers it is meant to have; None where the file does not say."""
        wanted = (self.adapt or {}).get("maximum", self.arguments.get("n_workers"))
        return wanted if isinstance(wanted, int) and wanted > 0 else None

    def start(self, begun: list[Any]) -> Any:
        """Start it.

        Parameters
        ----------
        begun : list
            Gets the cluster before anything of it is started, so that it can be closed if that hangs or
            fails. Nothing, if a function makes it.

        Returns
        -------
        distributed.deploy.Cluster
            Whatever its class raises is raised.
        """
        make: Any = self.start_class
        if inspect.isclass(self.start_class):
            cluster = make.__new__(make)
            begun.append(cluster)
            cluster.__init__(**self.arguments)
        else:
            cluster = make(**self.arguments)
        if self.adapt is not None:
            cluster.adapt(**self.adapt)
        return cluster


def read_cluster_file(path: Path) -> ClusterDescription:
    """Read the description of a cluster; nothing is started.

    Raises
    ------
    InputError
        If there is no such file, it is no such description, or the class is not installed.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({reason(error)}); give a cluster file that can"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (error in line {where.line + 1})" if where else ""
        raise InputError(f"{path} is not a valid YAML file{line}; see docs/clusters.md") from error
    if not isinstance(content, dict) or not isinstance(content.get("class"), str):
        raise InputError(
            f"{path} does not say which class of cluster to start; its first line should be like "
            "'class: SLURMCluster' (see docs/clusters.md)"
        )
    name = content.pop("class")
    adapt = content.pop("adapt", None)
    if adapt is not None and not _can_adapt(adapt):
        raise InputError(f"{path}: adapt should be like {{minimum: 1, maximum: 20, interval: 10s}}")
    bad = [key for key in content if not isinstance(key, str)]
    if bad:
        raise InputError(f"{path}: {bad[0]!r} is not the name of an argument of {name}")
    # YAML takes 12:00:00 for a number of seconds, Dask that for minutes.
    if isinstance(content.get("walltime"), int):
        raise InputError(f'{path}: put the walltime in quotes, like walltime: "04:00:00"')
    short = name.rpartition(".")[2]
    arguments = _DEFAULTS.get(short, {}) | content
    return ClusterDescription(short, _find_class(path, name), arguments, adapt)


def _can_adapt(adapt: Any) -> bool:
    """Tell whether Dask takes this; of an `Adaptive` that fails as it is made, Python complains later."""
    if not isinstance(adapt, dict):
        return False
    counts = [adapt.get(name) or 0 for name in ("minimum", "maximum", "wait_count")]
    try:
        for name in ("interval", "target_duration"):
            parse_timedelta(adapt.get(name))
    except (ValueError, TypeError, KeyError):
        return False
    return all((isinstance(count, int) and count >= 0) or count == math.inf for count in counts)


def _find_class(path: Path, name: str) -> Callable[..., Any]:
    module, _, short = name.rpartition(".")
    proper = all(part.isidentifier() for part in name.split("."))
    if not proper or (not module and short not in CLASSES):
        known = ", ".join(CLASSES)
        raise InputError(
            f"{path}: the class {name} is not known; give its full name, or one of {known}"
        )
    where, package = (module, module.partition(".")[0]) if module else CLASSES[short][:2]
    try:
        with _interrupts_kept():
            found: Any = getattr(import_module(where), short, None)
    except ImportError as error:
        raise InputError(
            f"{path}: {name} needs a package that is not installed ({error}); install {package}"
        ) from error
    if module and not (
        isinstance(found, type) and issubclass(found, Cluster) and found is not Cluster
    ):
        raise InputError(f"{path}: {name} is not a class of Dask clusters")
    return found


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Undo what dask-jobqueue does as it is imported: Ctrl-C would end us without a word, with code 0."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    if signal.getsignal(signal.SIGINT) is not handler:
        signal.signal(signal.SIGINT, handler)
