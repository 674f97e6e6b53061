# Whether a text is a number that has a numeral.
check_number() {
    case "$1" in
        *[!0-9]* | "") echo "roman: \`$1\` is not a number" >&2; return 2 ;;
    esac
    if [ "$1" -lt 1 ] || [ "$1" -gt 3999 ]; then
        echo "roman: $1 is not between 1 and 3999" >&2
        return 2
    fi
}
