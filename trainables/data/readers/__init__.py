"""Readers that do not trust image files, and the cache of what was made from them."""
