"""Published data sets, from files that the user provides."""
