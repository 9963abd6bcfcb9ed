"""`python -m capacity` is the same as `capacity`."""

import sys

from capacity.cli import main

sys.exit(main())
