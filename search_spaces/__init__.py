"""Questions, one a file: the file's name is the sweep's name."""
