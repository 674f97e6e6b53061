#!/bin/sh
# Prints the largest of the whole numbers given as arguments.
largest=$1
for number in "$@"; do
    if [ "$number" -lt "$largest" ]; then
        largest=$number
    fi
done
echo "$largest"
