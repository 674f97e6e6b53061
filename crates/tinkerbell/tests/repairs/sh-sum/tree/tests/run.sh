#!/bin/sh
cd "$(dirname "$0")/.." || exit 2
got=$(sh sum.sh tests/amounts.csv)
if [ "$got" != 19 ]; then
    echo "FAIL sum.sh tests/amounts.csv: expected 19, got $got"
    exit 1
fi
echo "all passed"
