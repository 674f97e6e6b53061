#!/bin/sh
cd "$(dirname "$0")/.." || exit 2
out=$(mktemp -d) || exit 2
trap 'rm -rf "$out"' EXIT
cc -o "$out/factorial" factorial.c || exit 1
failed=0
check() {
    got=$("$out/factorial" "$1")
    if [ "$got" != "$2" ]; then
        echo "FAIL factorial($1): expected $2, got $got"
        failed=1
    fi
}
check 0 1
check 1 1
check 5 120
check 10 3628800
[ "$failed" -eq 0 ] && echo "all passed"
exit "$failed"
