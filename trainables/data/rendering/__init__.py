"""Renderers of data sets."""
