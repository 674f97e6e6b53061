#!/bin/sh
cd "$(dirname "$0")/.." || exit 2
out=$(mktemp -d) || exit 2
trap 'rm -rf "$out"' EXIT
rustc --edition 2021 -o "$out/leap" leap.rs || exit 1
got=$("$out/leap" 1900 2000 2023 2024 | tr '\n' ' ')
expected="1900 common 2000 leap 2023 common 2024 leap "
if [ "$got" != "$expected" ]; then
    echo "FAIL leap 1900 2000 2023 2024: expected '$expected', got '$got'"
    exit 1
fi
echo "all passed"
