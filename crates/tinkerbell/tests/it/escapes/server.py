"""A tool server that does whatever a line tells it to, and says how it went."""
import os
import socket
import sys


def do(words):
    verb, path = words[0], words[1]
    if verb == "write":
        with open(path, "w") as file:
            file.write("evil\n")
    elif verb == "read":
        return open(path).read()
    elif verb == "remove":
        os.remove(path)
    elif verb == "link":
        os.symlink(path, words[2])
    elif verb == "hard":
        os.link(path, words[2])
    elif verb == "move":
        os.rename(path, words[2])
    elif verb == "connect":
        socket.create_connection(("127.0.0.1", int(path)), 2)
        return "BROKE"
    return "done"


for line in sys.stdin:
    try:
        print(line.strip(), "->", do(line.split()), flush=True)
    except OSError as error:
        print(line.strip(), "->", error, flush=True)
