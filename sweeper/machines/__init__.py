"""The machines that train: their cores and GPUs, clusters, and processes that measure on them."""
