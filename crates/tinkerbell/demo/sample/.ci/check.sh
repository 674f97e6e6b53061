#!/bin/sh
# What the build server runs.
set -eu
sh tests/run.sh
