#!/usr/bin/env python3
"""Compares a heap profile of test/prog/heap_truth with what that program told.

usage: heap_truth.py TRUTH PROFILE      sums by function, each with its distance in sigmas
       heap_truth.py --leak MEGABYTES PROFILE

Prints "name percent sigmas" lines; the script that calls decides what is good.
"""
import json
import math
import os
import statistics
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


def distance(lack, variance):
    """In sigmas. Where hardly any block escapes the sampling, those that do are few and follow
    Poisson's law, not the normal one: one of an expected 0.03 is a matter of 3 %, not 6 sigmas."""
    blocks = round(lack)
    if not 0 < variance < 4 or blocks < 1:
        return -lack / math.sqrt(variance) if variance else 0
    fewer = sum(math.exp(-variance) * variance ** k / math.factorial(k) for k in range(blocks))
    return statistics.NormalDist().inv_cdf(max(1 - fewer, 1e-15))


def tell(name, found, truth, variance, block=1.0):
    """block: the mean value of one."""
    sigmas = distance((truth - found) / block, variance / block ** 2)
    print(f"{name} {(found / truth - 1) * 100:.3f} {sigmas:.2f}")


def leak(megabytes, path):
    sums = read(path)
    wanted = float(megabytes) * 1e6
    total = 0
    for name in ("leak_one", "leak_two", "leak_three", "leak_four"):
        found = sums.get(name, [0, 0, 0, 0])[3]
        total += found
        print(f"{name} {(found / wanted - 1) * 100:.3f} 0")
    print(f"all {(total / wanted / 4 - 1) * 100:.3f} 0")


def compare(truth_path, path):
    sums, whole = read(path), [[0, 0, 0] for _ in TYPES]
    with open(truth_path, encoding="ascii") as lines:
        for line in lines:
            words = line.split()
            if len(words) != 9:
                continue
            truths, variances = words[1:5], words[5:9]
            for i, (truth, variance) in enumerate(zip(truths, variances)):
                found = sums.get(words[0], [0, 0, 0, 0])[i]
                block = float(truth) / float(truths[i - 1]) if i % 2 else 1.0
                tell(f"{words[0]}/{TYPES[i]}", found, float(truth), float(variance), block)
                for j, value in enumerate((found, float(truth), float(variance))):
                    whole[i][j] += value
    for i, (found, truth, variance) in enumerate(whole):
        tell(f"all/{TYPES[i]}", found, truth, variance)


if len(sys.argv) == 4 and sys.argv[1] == "--leak":
    leak(sys.argv[2], sys.argv[3])
elif len(sys.argv) == 3:
    compare(sys.argv[1], sys.argv[2])
else:
    sys.exit(__doc__)
