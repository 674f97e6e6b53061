import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from slug import slug

for title, expected in [
    ("Hello World", "hello-world"),
    ("Two  spaces", "two-spaces"),
    ("What now?", "what-now"),
    ("(really)", "really"),
]:
    got = slug(title)
    assert got == expected, f"slug({title!r}): expected {expected!r}, got {got!r}"
print("all passed")
