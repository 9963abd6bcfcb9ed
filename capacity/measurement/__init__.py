"""The ruler: it measures this machine and knows nothing of what was predicted.

A *case* is a kernel with parameters. A *visit* times it in a process of its own, between runs of a control kernel.
A *suite* visits all cases in random order, more than once, and appends each visit to a *store*. Needs the `bench`
extra; the parts that time, store and judge need no torch.
"""
