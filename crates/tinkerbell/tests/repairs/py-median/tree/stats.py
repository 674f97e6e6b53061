"""Small statistics."""


def mean(values):
    """Returns the arithmetic mean."""
    return sum(values) / len(values)


def median(values):
    """Returns the middle value, or the mean of the two in the middle."""
    middle = len(values) // 2
    if len(values) % 2 == 1:
        return values[middle]
    return (values[middle - 1] + values[middle]) / 2
