#!/bin/sh
# Greets the name given as first argument, or the world.
name=${1:-world}
printf 'Hello, %s!\n' "$nmae"
