import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from stats import mean, median

for got, expected in [
    (mean([1, 2, 6]), 3),
    (median([1, 2, 3]), 2),
    (median([9, 1, 5]), 5),
    (median([4, 1, 3, 2]), 2.5),
]:
    assert got == expected, f"expected {expected}, got {got}"
print("all passed")
