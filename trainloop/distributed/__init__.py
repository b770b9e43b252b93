"""Several devices and several processes: meeting, sharding, counting what is sent."""

from trainloop.distributed.shards import counted, shard_over, spread_over
from trainloop.distributed.workers import WorkersError, connect_workers

__all__ = ["WorkersError", "connect_workers", "counted", "shard_over", "spread_over"]
