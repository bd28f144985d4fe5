"""The curves of docs/experts.md, from the metrics beside the experts.

python docs/expert_curves.py datasets/experts docs/pictures/experts.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from recorders.sac.curve import draw_curves

if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    draw_curves({path.stem: path for path in sorted(folder.glob("*.csv"))}, out)
