"""A stock of goods, counted by name."""


class Stock:
    def __init__(self):
        self.counts = {}

    def put(self, name, count):
        """Adds some of a good."""
        self.counts[name] = self.counts.get(name, 0) + count

    def take(self, name, count):
        """Takes some of a good. Raises ValueError when there is not enough of it."""
        self.counts[name] = self.counts.get(name, 0) - count
