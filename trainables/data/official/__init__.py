"""Published data sets, from the files that the user has."""
