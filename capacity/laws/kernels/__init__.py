"""Laws of single kernels, one module a kind: seconds from a shape, a device's facts and fitted parameters.

Each is arithmetic and `ops`, the same for floats and columns. Parameters are shares of a datasheet's rate, clock
cycles or microseconds, so that they carry from one device to another; `parameters.py` says what each means.
"""
