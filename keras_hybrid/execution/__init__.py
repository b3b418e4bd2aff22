"""Where an update runs: compiled, dispatched, on replicas, on which backend."""
