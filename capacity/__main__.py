"""`python -m capacity` is the same as `capacity`."""

from capacity.cli import script

if __name__ == "__main__":
    script()
