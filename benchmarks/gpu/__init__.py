"""What a GPU makes of the training core, measured in its first minutes; `python -m benchmarks.gpu --out DIR`.

Needs torch, numpy and h5py alone. `stages` holds one measurement a file, `kit` what they share.
"""
