"""Many crops on many workers: plan, work, execute, ledger, clusters. Dask is used here only.

The parts, in the order in which a run meets them:

`run_folder`
    one run in one directory at a time: its lock, its ``run.json``, what may be continued
`plan`
    cells -> shards
`clusters`
    Dask workers of our own, or somebody else's
`execute`
    a bounded window of shards in flight; what happens when a worker dies
`work`
    one shard -> one Parquet file; all that happens on a worker
`ledger`
    which shards are done
"""
