"""Runs a program on a terminal of its own, as a person would.

drive.py ROWSxCOLUMNS STEPS -- PROGRAM ARGS...
STEPS is JSON: a list of [text to wait for, keys to type]; keys "HANGUP" close the terminal, "SIGINT" and
"SIGTERM" are sent to the program itself, past the terminal.
What the terminal got goes to standard output as it is; the exit code is the program's own (128 and more: a signal).
"""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

size, steps = sys.argv[1], json.loads(sys.argv[2])
program = sys.argv[4:]
rows, columns = (int(part) for part in size.split("x"))
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
modes = termios.tcgetattr(ours)
child = os.fork()
if child == 0:
    # As a login gives them; whoever runs the tests in the background has some of them ignored.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.close(ours)
    os.setsid()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(theirs, number)
    if theirs > 2:
        os.close(theirs)
    os.execvp(program[0], program)
os.close(theirs)
seen, since, end = b"", 0, time.monotonic() + 50
code = None
while time.monotonic() < end:
    if steps and steps[0][0].encode() in seen[since:]:
        keys = steps.pop(0)[1]
        since = len(seen)
        if keys == "HANGUP":
            os.close(ours)
            ours = None
            break
        if keys.startswith("SIG"):
            os.kill(child, getattr(signal, keys))
        else:
            os.write(ours, keys.encode())
    if not select.select([ours], [], [], 0.05)[0]:
        continue
    try:
        more = os.read(ours, 65536)
    except OSError:
        break
    if not more:
        break
    seen += more
sys.stdout.buffer.write(seen)
sys.stdout.flush()
while time.monotonic() < end:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        code = os.waitstatus_to_exitcode(status)
        break
    time.sleep(0.02)
if code is None:
    os.kill(child, 9)
    os.waitpid(child, 0)
    sys.exit(f"it did not end; steps left: {steps}")
if ours is not None and termios.tcgetattr(ours) != modes:
    sys.exit("it left the terminal in other modes")
if steps:
    sys.exit(f"never seen: {steps[0][0]!r}")
sys.exit(code if code >= 0 else 128 - code)
