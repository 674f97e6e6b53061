#!/bin/sh
# Prints the name under which the file $1 would be backed up.
. "$(dirname "$0")/lib/name.sh"
backup_name "$1"
