"""`python -m mmcore`: the command line."""

from mmcore.cli import main

raise SystemExit(main())
