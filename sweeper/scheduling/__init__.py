"""From a sweep to packs that train: which runs are missing, together with which others, where, and in what order."""
