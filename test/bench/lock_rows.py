"""Rows about waiting: what locks cost that nobody waits for, and what a wait costs that is recorded."""
import os
import re
import statistics
import subprocess

from common import BUILD, WORK, middle, preloaded, rounds, row, tell

MICRO = os.path.join(BUILD, "test", "bench", "micro_lock")
RUNS = 5
PAIR = re.compile(r"^(\w+) +bare +([0-9.]+) ns, with hooks +([0-9.]+) ns", re.M)
WAITED = re.compile(r"^waited +([0-9]+) ns", re.M)
RELEASED = re.compile(r"^released +([0-9]+) ns before the real call, ([0-9]+) ns in all", re.M)


@row
def locks():
    """Lock and unlock when nobody waits, by kind; and a wait that is recorded."""
    pairs, waited, before, released = {}, [], [], []
    for _ in range(rounds(RUNS)):
        out = subprocess.run([MICRO], env=preloaded(), capture_output=True, text=True,
                             cwd=WORK).stdout
        for name, bare, hooked in PAIR.findall(out):
            pairs.setdefault(name, []).append((float(bare), float(hooked)))
        if not WAITED.search(out):
            raise SystemExit(f"bench: {MICRO}: {out[-300:]}")
        waited.append(int(WAITED.search(out).group(1)))
        before.append(int(RELEASED.search(out).group(1)))
        released.append(int(RELEASED.search(out).group(2)))
    for name, took in pairs.items():
        tell(f"{name}, a pair nobody waits for", "≤ +2 ns" if name == "mutex" else "",
             f"{middle([hooked - bare for bare, hooked in took])} ns more",
             f"bare {statistics.median(bare for bare, _ in took):.2f} ns")
    tell("a wait recorded, 20 frames", "≤ 1 µs", f"{min(waited)} ns")
    tell("a release recorded, 20 frames", "≤ 1 µs",
         f"{min(released)} ns, {min(before)} before the real call")
