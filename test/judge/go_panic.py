#!/usr/bin/env python3
"""Reads a dump in the grammar of a Go panic, line by line, and refuses what a strict reader would.

usage: go_panic.py FILE

Strict is: before the first block only lines with # and empty ones; every block a header, frames of
two lines each, at most one "created by" of two lines, one empty line. In a header the state has no
comma and no bracket, then perhaps minutes, then perhaps "locked to thread". A frame's name has no
'%' or '/', its parentheses do not nest, its arguments are numbers or dots. A file is "??" or has a
path. Nobody is there twice. Prints the blocks as JSON.
"""
import json
import re
import sys

HEADER = re.compile(r"goroutine (\d+) \[([^,\[\]]+)(?:, (\d+) minutes)?(, locked to thread)?\]:")
CALL = re.compile(r"(.+)\(([^()]*)\)")
ARGUMENT = re.compile(r"\.\.\.|_|0x[0-9a-f]+\??")
POSITION = re.compile(r"\t(\?\?|/.*[^:]|[^:\t]+):(\d+)(?: \+0x([0-9a-f]+))?")
CREATED = re.compile(r"created by (.+?)(?: in goroutine (\d+))?")


class Refused(Exception):
    pass


class Reader:
    def __init__(self, text):
        if text and not text.endswith("\n"):
            raise Refused("the last line has no end")
        self.lines = text.split("\n")[:-1]
        self.at = 0

    def fail(self, what):
        line = self.lines[self.at] if self.at < len(self.lines) else "the end"
        raise Refused(f"line {self.at + 1}: {what}: {line!r}")

    def peek(self):
        return self.lines[self.at] if self.at < len(self.lines) else None

    def match(self, expression, what):
        found = expression.fullmatch(self.peek() or "")
        if not found:
            self.fail(what)
        self.at += 1
        return found

    def name(self, text):
        depth = 0
        for char in text:
            depth += (char == "(") - (char == ")")
            if depth not in (0, 1):
                self.fail("nested parentheses")
        if depth:
            self.fail("odd parentheses")
        if "%" in text or "/" in text or any(ord(c) < 32 for c in text):
            self.fail("a name that would be taken for a path")
        return text

    def position(self):
        found = self.match(POSITION, "not a position")
        return {"file": found[1], "line": int(found[2])}

    def frame(self):
        call = CALL.fullmatch(self.peek() or "")
        if not call:
            self.fail("neither a call nor the end of a stack")
        self.name(call[1])
        arguments = call[2].split(", ") if call[2] else []
        if any(not ARGUMENT.fullmatch(argument) for argument in arguments):
            self.fail("odd arguments")
        self.at += 1
        return {"name": call[1], "arguments": arguments, **self.position()}

    def created(self):
        found = self.match(CREATED, "odd creator")
        self.at -= 1
        name = self.name(found[1])
        self.at += 1
        return {"name": name, "by": int(found[2]) if found[2] else None, **self.position()}

    def block(self):
        head = self.match(HEADER, "not a header")
        block = {"tid": int(head[1]), "state": head[2], "minutes": int(head[3] or 0),
                 "locked": bool(head[4]), "frames": [], "created": None}
        if block["state"].endswith(" minutes") or block["state"] != block["state"].strip():
            self.fail("odd state")
        while self.peek() and not self.peek().startswith("created by "):
            block["frames"].append(self.frame())
        if not block["frames"]:
            self.fail("no frame")
        if self.peek():
            block["created"] = self.created()
        if self.peek() != "":
            self.fail("no empty line after a block")
        self.at += 1
        return block

    def all(self):
        comments = []
        while (line := self.peek()) is not None and (line == "" or line.startswith("#")):
            comments.append(line)
            self.at += 1
        blocks = []
        while (line := self.peek()) is not None and not line.startswith("# "):
            blocks.append(self.block())
        rest = self.lines[self.at:]
        if any(not line.startswith("# ") for line in rest):
            self.fail("something after the end")
        if len({block["tid"] for block in blocks}) != len(blocks):
            raise Refused("somebody is there twice")
        return {"comments": comments + rest, "blocks": blocks}


def main():
    with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
        text = file.read()
    try:
        result = Reader(text).all()
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    for block in result["blocks"]:
        block["thread"] = next((frame["name"][8:-1] for frame in block["frames"]
                                if frame["name"].startswith("[thread ")), None)
    json.dump(result, sys.stdout, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
