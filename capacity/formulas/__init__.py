"""Pure functions over named numbers: what things cost, before any device or schedule is known.

Parameter names carry units; a factor that has a unit (2 FLOP per multiply-add, 2 bytes per element)
is a parameter with a default, so every declared unit can be proved.
"""
