# Names of backups.

# notes.txt becomes notes.bak.txt; a name without a dot gets .bak at its end.
backup_name() {
    case $1 in
        *.*) echo "${1%.*}.bak.${1##*.}" ;;
        *) echo "$1.${1}bak" ;;
    esac
}
