"""Kernel laws: the time of one op from its shape, a datasheet and a few fitted parameters.

Every law is a formula; what was fitted lives in `fitted/`, one file an architecture, apart from any datasheet.
"""
