# Number to numeral: takes the largest value that fits, again and again.
encode() {
    rest=$1
    numeral=
    for pair in 1000:M 500:D 100:C 50:L 10:X 5:V 1:I; do
        value=${pair%%:*}
        letter=${pair#*:}
        while [ "$rest" -ge "$value" ]; do
            numeral=$numeral$letter
            rest=$((rest - value))
        done
    done
    echo "$numeral"
}
