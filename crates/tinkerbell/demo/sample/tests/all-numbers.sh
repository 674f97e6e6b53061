#!/bin/sh
# Every number there and back, in five parts of a second each: slow on purpose.
cd "$(dirname "$0")/.." || exit 1
. lib/encode.sh
. lib/decode.sh
for part in 1 2 3 4 5; do
    for number in $((part * 7)) $((part * 99)) $((part * 444)) $((part * 799)); do
        numeral=$(encode "$number")
        [ "$(decode "$numeral")" = "$number" ] || { echo "FAIL $number -> $numeral"; exit 1; }
    done
    sleep 1
    echo "part $part of 5: there and back"
done
echo "all parts agree"
