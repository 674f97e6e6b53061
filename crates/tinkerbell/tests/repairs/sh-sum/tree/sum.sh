#!/bin/sh
# Prints the sum of the second column of the comma-separated file $1; its first line is a header.
total=0
while IFS=';' read -r _ amount; do
    total=$((total + amount))
done <<LINES
$(tail -n +2 "$1")
LINES
echo "$total"
