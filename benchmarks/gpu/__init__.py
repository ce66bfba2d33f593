"""Measure the training core on a GPU, in the first minutes with it: `python -m benchmarks.gpu --out DIR`.

Needs only torch, numpy and h5py. `stages` contains one measurement per file, `kit` what they share.
"""
