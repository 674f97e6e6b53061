"""Slugs: titles as they stand in addresses."""

import re


def slug(title):
    """Returns the title in lower case, with one hyphen between words and none at the ends."""
    words = re.sub(r"[^A-Za-z0-9]", "-", title)
    return words.lower()
