"""Files that images come in, read with suspicion, and the cache of what was made of them."""
