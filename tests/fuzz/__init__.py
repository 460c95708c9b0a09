"""Property tests that try to break what reads other people's bytes; FUZZ_EXAMPLES sets how hard they try."""

import os

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
