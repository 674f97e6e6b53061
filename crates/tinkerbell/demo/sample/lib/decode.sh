# Numeral to number: a letter before a larger one counts against it.
value_of() {
    case "$1" in
        M) echo 1000 ;; D) echo 500 ;; C) echo 100 ;; L) echo 50 ;;
        X) echo 10 ;; V) echo 5 ;; I) echo 1 ;; *) echo 0 ;;
    esac
}

decode() {
    left=$1
    sum=0
    before=0
    while [ -n "$left" ]; do
        tail=${left#?}
        letter=${left%"$tail"}
        left=$tail
        value=$(value_of "$letter")
        if [ "$value" -gt "$before" ]; then
            sum=$((sum + value - 2 * before))
        else
            sum=$((sum + value))
        fi
        before=$value
    done
    echo "$sum"
}
