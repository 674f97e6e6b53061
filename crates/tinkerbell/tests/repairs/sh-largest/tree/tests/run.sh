#!/bin/sh
cd "$(dirname "$0")/.." || exit 2
failed=0
check() {
    expected=$1
    shift
    got=$(sh largest.sh "$@")
    if [ "$got" != "$expected" ]; then
        echo "FAIL largest.sh $*: expected $expected, got $got"
        failed=1
    fi
}
check 3 1 2 3
check 9 9 4 7
check -1 -5 -1 -3
check 4 4
[ "$failed" -eq 0 ] && echo "all passed"
exit "$failed"
