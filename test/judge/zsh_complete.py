#!/usr/bin/env python3
"""Types a line and Tab into an interactive zsh that has our completions.

usage: zsh_complete.py DIRECTORY LINE WANTED: status 0 as soon as the terminal shows WANTED, 1 when
the shell said something else for a minute.
"""
import os
import pty
import re
import select
import sys
import tempfile
import time

directory, line, wanted = sys.argv[1:]
SETTINGS = """PS1='ready> '
fpath=({0} $fpath)
autoload -Uz compinit && compinit -u -D
setopt no_beep
"""


def shown(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|[\0\a\r]", "", text)


def wait_for(terminal, text, deadline):
    got = ""
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                got += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                break
        if text in shown(got):
            return True
    print(repr(shown(got)), file=sys.stderr)
    return False


with tempfile.TemporaryDirectory() as home:
    with open(os.path.join(home, ".zshrc"), "w", encoding="utf-8") as file:
        file.write(SETTINGS.format(directory))
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="vt100", ZDOTDIR=home, HOME=home)
        os.execvp("zsh", ["zsh", "-i"])
    deadline = time.monotonic() + 60
    good = wait_for(terminal, "ready> ", deadline)
    if good:
        os.write(terminal, line.encode() + b"\t")
        good = wait_for(terminal, wanted, deadline)
    os.close(terminal)
    os.waitpid(pid, 0)
sys.exit(0 if good else 1)
