#!/usr/bin/env python3
"""Compares a heap profile of test/prog/heap_truth with what that program told.

usage: heap_truth.py RATE TRUTH PROFILE      sums by function, each with how unlikely it is
       heap_truth.py --leak MEGABYTES PROFILE

Prints "name percent exponent" lines: an estimate that far from the truth, or farther, comes about
once in 10^exponent runs, or less. The script that calls decides what is good.

One byte in RATE is sampled: a block of s bytes is taken with p = 1 - exp(-s/RATE) and then counts
1/p times, independent of all others. Where few blocks are taken, or few escape, such a sum is far
from normal: its tail is bounded as Chernoff did, which holds for any number and any sizes.
"""
import json
import math
import os
import subprocess
import sys

TYPES = ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")
JUDGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pprof_strict.py")


def read(path):
    """Values by function: of the first frame that is the program's own."""
    out = subprocess.run([sys.executable, JUDGE, "--json", path], capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(f"heap_truth: the profile breaks a rule: {out.stdout}{out.stderr}")
    sums = {}
    for sample in json.loads(out.stdout)["samples"]:
        for name in set(sample["stack"]):
            values = sums.setdefault(name, [0, 0, 0, 0])
            for i, value in enumerate(sample["values"]):
                values[i] += value
    return sums


def slope(blocks, t):
    """Of the cumulants' generating function at t: the mean when every outcome is tilted by it."""
    total = 0
    for number, p, weight in blocks:
        tilted = p / (p + (1 - p) * math.exp(-t * weight)) if t >= 0 else \
            p * math.exp(t * weight) / (1 - p + p * math.exp(t * weight))
        total += number * weight * tilted
    return total


def generating(blocks, t):
    """Its value."""
    return sum(number * (t * weight + math.log(p + (1 - p) * math.exp(-t * weight)) if t >= 0 else
                         math.log(1 - p + p * math.exp(t * weight)))
               for number, p, weight in blocks)


def exponent(blocks, found, truth):
    """blocks: (number, p, what one of them counts when it is taken). What is printed is rounded."""
    slack = 1 + truth * 1e-6
    found += max(-slack, min(slack, truth - found))
    largest = max((weight for _, _, weight in blocks), default=1)
    blocks = [(number, p, weight / largest) for number, p, weight in blocks if p < 1]
    sure = truth / largest - sum(number * p * weight for number, p, weight in blocks)
    wanted = found / largest - sure
    if abs(found - truth) < 1e-9 * truth or truth == 0:
        return 0
    near, far = 0, 600 if found > truth else -600
    for _ in range(60):
        middle = (near + far) / 2
        is_beyond = slope(blocks, middle) > wanted if found > truth else \
            slope(blocks, middle) < wanted
        near, far = (near, middle) if is_beyond else (middle, far)
    return max(0, (near * wanted - generating(blocks, near)) / math.log(10))


def tell(name, found, truth, blocks):
    percent = (found / truth - 1) * 100 if truth else 0
    print(f"{name} {percent:.3f} {exponent(blocks, found, truth):.2f}")


def leak(megabytes, path):
    sums = read(path)
    wanted = float(megabytes) * 1e6
    total = 0
    for name in ("leak_one", "leak_two", "leak_three", "leak_four"):
        found = sums.get(name, [0, 0, 0, 0])[3]
        total += found
        print(f"{name} {(found / wanted - 1) * 100:.3f} 0")
    print(f"all {(total / wanted / 4 - 1) * 100:.3f} 0")


def blocks_of(rate, number, size):
    """Of one size: as objects, and as bytes."""
    p = -math.expm1(-size / rate)
    return (number, p, 1 / p), (number, p, size / p)


def compare(rate, truth_path, path):
    sums, blocks, whole = read(path), {}, [[0, 0, []] for _ in TYPES]
    with open(truth_path, encoding="ascii") as lines:
        told = [line.split() for line in lines if line.startswith(("size ", "sum "))]
    for kind, name, *truths in told:
        truths = [float(truth) for truth in truths]
        mine = blocks.setdefault(name, [[] for _ in TYPES])
        if kind == "size":
            for i in (0, 2):
                if truths[i] > 0:
                    objects, space = blocks_of(rate, truths[i], truths[i + 1] / truths[i])
                    mine[i].append(objects)
                    mine[i + 1].append(space)
            continue
        for i, truth in enumerate(truths):
            found = sums.get(name, [0, 0, 0, 0])[i]
            tell(f"{name}/{TYPES[i]}", found, truth, mine[i])
            whole[i][0] += found
            whole[i][1] += truth
            whole[i][2] += mine[i]
    for i, (found, truth, all_blocks) in enumerate(whole):
        tell(f"all/{TYPES[i]}", found, truth, all_blocks)


if len(sys.argv) != 4:
    sys.exit(__doc__)
elif sys.argv[1] == "--leak":
    leak(sys.argv[2], sys.argv[3])
else:
    compare(float(sys.argv[1]), sys.argv[2], sys.argv[3])
