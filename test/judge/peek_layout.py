#!/usr/bin/python3
"""Reads what a peek printed, line by line, and prints what it said as JSON; fails on any line that
is not where and how the layout has it. peek_layout.py FILE [SECONDS]"""

import json
import re
import sys

FRAME = re.compile(
    r"(?P<function>.+) at (?P<file>.+?)(:\d+| \(unknown line\))(?P<inlined> \[inlined\])?$"
)
UNKNOWN = re.compile(r"unknown function \(ip: 0x[0-9a-f]+\)$")
NOTE = re.compile(r"      no backtrace recorded: \S.*$")
OWNER = re.compile(r"          \(thread (?P<tid>\d+) \((?P<name>.*?)\), (?P<doing>[^()].*)\)$")
GROUP = re.compile(r"Thread (\d+) \((.*)\) Total snapshots: (\d+)\. Utilization: (\d+)%$")
ROW = re.compile(r" *\d*\u254e[ \u254e]*(\+\d+ )?\d+ +\S.*$")
BAR = "\u254e"


class Reader:
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.lines = file.read().split("\n")
        self.at = 0

    def peek(self):
        return self.lines[self.at] if self.at < len(self.lines) else None

    def fail(self, wanted):
        sys.exit(f"line {self.at + 1}: {self.peek()!r} instead of {wanted}")

    def exactly(self, *texts):
        for text in texts:
            if self.peek() != text:
                self.fail(repr(text))
            self.at += 1

    def match(self, pattern):
        found = re.match(pattern, self.peek() or "")
        if not found:
            self.fail(pattern)
        self.at += 1
        return found


def read_threads(reader):
    threads = []
    while reader.peek():
        owner = reader.match(OWNER)
        frames = []
        while reader.peek() and not OWNER.match(reader.peek()):
            text = reader.peek()
            frame = FRAME.match(text)
            if not (frame or UNKNOWN.match(text) or NOTE.match(text)):
                reader.fail("a frame")
            frames.append(frame["function"] if frame else text.strip())
            reader.at += 1
        if not frames:
            reader.fail("a stack")
        threads.append(
            {"tid": int(owner["tid"]), "name": owner["name"], "doing": owner["doing"],
             "frames": frames}
        )
    return threads


def read_groups(reader):
    groups = []
    while (reader.peek() or "").startswith("Thread "):
        tid, name, snapshots, utilization = reader.match(GROUP).groups()
        rows = 0
        while reader.peek():
            reader.match(ROW)
            rows += 1
        reader.exactly("")
        groups.append({"tid": int(tid), "name": name, "snapshots": int(snapshots),
                       "utilization": int(utilization), "rows": rows})
    return groups


def main():
    reader = Reader(sys.argv[1])
    seconds = sys.argv[2] if len(sys.argv) > 2 else "1.0"
    long_line, short_line = "=" * 86, "=" * 70
    reader.exactly(
        "", long_line,
        "Information request received. A stacktrace will print followed by a "
        f"{seconds} second profile",
        long_line, "",
    )
    command = reader.match(r"cmd: (/.+) (\d+) running (\d+) of (\d+)$")
    reader.exactly("")
    signal = reader.match(r"signal \((\d+)\): (\S.*)$")
    threads = read_threads(reader)
    reader.exactly(
        "", short_line,
        "Profile collected. A report will print if the Profile module is loaded",
        short_line, "",
        f"Overhead {BAR} [+additional indent] Count File:Line; Function", "=" * 57,
    )
    groups = read_groups(reader)
    if not groups:
        reader.exactly(
            "There were no samples collected in one or more groups.",
            "Run your program longer (perhaps by running it multiple times),",
            "or adjust the delay between samples with `delay=`.",
        )
    rest = [line for line in reader.lines[reader.at:] if line]
    print(json.dumps({
        "path": command[1], "pid": int(command[2]), "running": int(command[3]),
        "of": int(command[4]), "signal": int(signal[1]), "threads": threads, "groups": groups,
        "rest": rest,
    }))


main()
