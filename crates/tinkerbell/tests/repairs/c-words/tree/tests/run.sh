#!/bin/sh
cd "$(dirname "$0")/.." || exit 2
out=$(mktemp -d) || exit 2
trap 'rm -rf "$out"' EXIT
cc -o "$out/words" words.c || exit 1
failed=0
check() {
    got=$(printf '%s' "$1" | "$out/words")
    if [ "$got" != "$2" ]; then
        echo "FAIL words in '$1': expected $2, got $got"
        failed=1
    fi
}
check "" 0
check "one" 1
check "one two" 2
check "one   two" 2
check "  one two  " 2
[ "$failed" -eq 0 ] && echo "all passed"
exit "$failed"
