"""What the workers of a client can do at once: how many there are, their GPUs, cores and memory."""

from collections import Counter
from collections.abc import Mapping
from urllib.parse import urlsplit

from distributed import Client

__all__ = [
    "GPU",
    "cores_beside_gpus",
    "cores_for_dask",
    "expected_workers",
    "gpu_workers",
    "gpus_of_workers",
    "memory_limits",
]

#: Name of the resource that Dask workers with a GPU offer.
GPU = "GPU"


def expected_workers(client: Client) -> int:
    """Count the worker processes that are there, or will be when all have started."""
    return max(len(client.nthreads()), len(getattr(client.cluster, "plan", ())))


def gpu_workers(client: Client, device: str) -> int:
    """Count the GPUs that workers offer as the resource `GPU`; 0 where they are not to be used."""
    return sum(gpus_of_workers(client, device).values())


def gpus_of_workers(client: Client, device: str) -> dict[str, int]:
    """Count the GPUs of each worker that offers some; none where they are not to be used."""
    if device == "cpu":
        return {}
    workers = client.scheduler_info(n_workers=-1)["workers"].items()
    offered = {address: int(it.get("resources", {}).get(GPU, 0)) for address, it in workers}
    return {address: count for address, count in offered.items() if count}


def memory_limits(client: Client) -> list[int]:
    """Bytes that each worker may use, of those that have a limit."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return [int(worker["memory_limit"]) for worker in workers if worker.get("memory_limit")]


def cores_for_dask(client: Client) -> int:
    """Count the cores that every worker may use: what its owner gave to Dask."""
    return max(min(client.nthreads().values(), default=1), 1)


def cores_beside_gpus(client: Client, cores: Mapping[str, int]) -> int:
    """Count the cores that every worker with a GPU may use.

    Usually Dask has a single thread there, but to decode images for a GPU takes cores: such workers share
    those of their machine.

    Parameters
    ----------
    client : distributed.Client
    cores : mapping of str to int
        Cores that each worker process sees.
    """
    neighbours = Counter(urlsplit(worker).hostname for worker in cores)
    share = min(count // neighbours[urlsplit(worker).hostname] for worker, count in cores.items())
    return max(cores_for_dask(client), share)
