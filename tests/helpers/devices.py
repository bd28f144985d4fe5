"""Where the trainings of the tests compute: `DEMOKIT_TEST_DEVICE=cuda make test-all` on a GPU."""

import os

DEVICE = os.environ.get("DEMOKIT_TEST_DEVICE", "cpu")
