#include <stdio.h>
#include <stdlib.h>

/* The product of 1 to n; 1 for 0. */
static long factorial(long n)
{
    long product = 1;
    for (long i = 1; i < n; i++) {
        product *= i;
    }
    return product;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: factorial N\n");
        return 2;
    }
    printf("%ld\n", factorial(atol(argv[1])));
    return 0;
}
