"""Many crops on many workers: plan, work, execute, clusters. No other part talks to Dask's workers.

The parts, in the order in which a run meets them:

`run_folder`
    one run in one directory at a time: its lock, its ``run.json``, what may be continued
`plan`
    cells -> shards
`crew`
    which workers a run gets, before any of them starts
`machine`, `capacity`
    cores and memory of this machine; workers, GPUs, cores and memory that a client has
`clusters`, `cluster_file`, `starting`
    Dask workers of our own, of a cluster that a file describes, or somebody else's; none of them hangs
`connection`
    questions to a scheduler that end, and what it means where they fail
`preflight`, `sight`
    whether workers that are not ours can do their part, and whether a worker sees the input at all
`execute`
    a bounded window of shards in flight; what happens when a worker dies
`work`
    one shard -> one Parquet file; all that happens on a worker
`trial`
    what a worker would need and how fast it would be, before there is a run
"""
