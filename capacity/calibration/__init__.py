"""Fits of the laws to measurements: what is fitted, on which rows, and what it says of rows it has not seen."""
