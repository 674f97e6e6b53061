#!/bin/sh
cd "$(dirname "$0")/.." || exit 2
failed=0
check() {
    got=$(sh backup.sh "$1")
    if [ "$got" != "$2" ]; then
        echo "FAIL backup.sh $1: expected $2, got $got"
        failed=1
    fi
}
check notes.txt notes.bak.txt
check archive.tar.gz archive.tar.bak.gz
check README README.bak
[ "$failed" -eq 0 ] && echo "all passed"
exit "$failed"
