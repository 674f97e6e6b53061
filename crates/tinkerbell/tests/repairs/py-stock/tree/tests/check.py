import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from stock import Stock

stock = Stock()
stock.put("bolt", 5)
stock.take("bolt", 2)
assert stock.counts["bolt"] == 3, f"expected 3 bolts, got {stock.counts['bolt']}"
try:
    stock.take("bolt", 4)
except ValueError:
    pass
else:
    raise AssertionError("taking 4 of 3 bolts must raise ValueError")
assert stock.counts["bolt"] == 3, "a refused take must change nothing"
print("all passed")
