"""Data sets, one per file: the file's name is the data set's name."""
