"""From a sweep to packs that train: which runs are missing, how they are grouped, where they train, in what order."""
