#!/bin/sh
cd "$(dirname "$0")/.." || exit 2
failed=0
check() {
    if [ "$2" != "$3" ]; then
        echo "FAIL $1: expected '$2', got '$3'"
        failed=1
    fi
}
check "no name" "Hello, world!" "$(sh greet.sh)"
check "a name" "Hello, Ada!" "$(sh greet.sh Ada)"
check "two words" "Hello, Ada Lovelace!" "$(sh greet.sh "Ada Lovelace")"
[ "$failed" -eq 0 ] && echo "all passed"
exit "$failed"
