"""Runs a program on a terminal of its own and answers what it asks: `terminal.py STEPS PROGRAM ARGUMENT…`.

STEPS is a JSON list of pairs: a text to wait for, and what to type then (null: end of input). What the terminal showed goes to standard
output; the exit status is the program's, or 99 where a text did not come.
"""
import json
import os
import pty
import select
import sys
import termios
import time

steps = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
shown, seen = b"", 0
ends = time.monotonic() + 60


def more():
    global shown
    if time.monotonic() > ends or not select.select([terminal], [], [], 1)[0]:
        return True
    try:
        found = os.read(terminal, 65536)
    except OSError:  # The program has ended.
        return False
    shown += found
    return bool(found)


status = None
for text, answer in steps:
    text = text.encode()
    while text not in shown[seen:] and time.monotonic() < ends and more():
        pass
    if text not in shown[seen:]:
        status = 99
        break
    seen += shown[seen:].index(text) + len(text)
    # What is hidden is asked for a moment before the echo ends.
    while text.startswith(b"Password") and time.monotonic() < ends and termios.tcgetattr(terminal)[3] & termios.ECHO:
        time.sleep(0.01)
    os.write(terminal, b"\x04" if answer is None else answer.encode() + b"\r")
while status is None and time.monotonic() < ends and more():
    pass
if time.monotonic() > ends or status:
    os.kill(pid, 9)
_, ended = os.waitpid(pid, 0)
sys.stdout.buffer.write(shown)
sys.exit(status or os.waitstatus_to_exitcode(ended) % 256)
