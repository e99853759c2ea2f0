"""Print the command of a README section, its first ``sh`` code block: ``readme_command.py README.md "Run the tests"``."""

import re
import sys
from pathlib import Path

text = Path(sys.argv[1]).read_text(encoding="utf-8")
found = re.search(rf"^## {re.escape(sys.argv[2])}$.*?^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
if not found:
    sys.exit(f"{sys.argv[1]} has no command in the section {sys.argv[2]!r}")
print(found[1], end="")
