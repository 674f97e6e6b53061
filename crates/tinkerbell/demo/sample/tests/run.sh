#!/bin/sh
# All quick checks; exit code 1 when one fails.
cd "$(dirname "$0")/.." || exit 1
failed=0
for file in tests/encode.txt tests/decode.txt; do
    while read -r from to; do
        case "$file" in
            *encode*) got=$(sh bin/roman "$from") ;;
            *) got=$(sh bin/roman -d "$from") ;;
        esac
        if [ "$got" = "$to" ]; then
            echo "ok   $from -> $to"
        else
            echo "FAIL $from -> $got, expected $to"
            failed=$((failed + 1))
        fi
    done < "$file"
done
echo "$failed failed"
[ "$failed" -eq 0 ]
