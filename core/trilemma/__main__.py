"""`python -m trilemma`."""

import sys

from trilemma.cli.app import main

sys.exit(main())
