#include <ctype.h>
#include <stdio.h>

/* Prints the number of words on standard input. */
int main(void)
{
    int words = 0;
    int in_word = 0;
    int c;
    while ((c = getchar()) != EOF) {
        if (isspace(c)) {
            words++;
            in_word = 0;
        } else {
            in_word = 1;
        }
    }
    if (in_word) {
        words++;
    }
    printf("%d\n", words);
    return 0;
}
