"""Servers that are asked for something all the while, with the library beside bare.

No two processes lie in memory alike, which alone may make one some per cent faster than the next,
and the machine has its own ups and downs. So servers are started afresh many times, measurements are
short and in an order of chance, and a second bare server is measured like the others: what it
differs from the first by means nothing.
"""
import contextlib
import os
import random
import statistics
import subprocess
import threading
import time

from common import PERF, address_of, get

WINDOW_S = 1
AGAIN = "bare again"
CPUS = sorted(os.sched_getaffinity(0))
# The server with all its threads, ours too, on one processor, its clients on another.
ON_ITS_OWN = ["taskset", "-c", str(CPUS[-1])] if len(CPUS) > 1 else []
CLIENT = ["taskset", "-c", str(CPUS[0])] if len(CPUS) > 1 else []


def cpu_s(pids):
    """CPU seconds of the threads that live."""
    total = 0
    for pid in pids:
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/schedstat") as f:
                total += int(f.read().split()[0])
    return total / 1e9


def nothing(pids):
    del pids
    return lambda: None


def profep_window(pids):
    threads = [threading.Thread(target=get, args=(
        address_of(pid), f"/debug/pprof/profile?seconds={WINDOW_S}&hz=100")) for pid in pids]
    for thread in threads:
        thread.start()
    return lambda: [thread.join() for thread in threads]


def perf_window(pids):
    return subprocess.Popen(
        ["perf", "record", "-q", "-g", "-F", "100", "-p", ",".join(map(str, pids)),
         "-o", "/dev/null", "--", "sleep", str(WINDOW_S)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait


def measure(pids, window, load):
    """Seconds, and CPU seconds of the server, a request, while a window is open."""
    end = window(pids)
    time.sleep(0.1)
    used, begun = cpu_s(pids), time.perf_counter()
    count = load()
    took, used = time.perf_counter() - begun, cpu_s(pids) - used
    end()
    return took / count, used / count


def key_of(env):
    return env and tuple(sorted(env.items()))


def beside_bare(start, variants, instances, turns):
    """variants: name -> (environment or None for bare, window). start(environment) is a context
    with (pids, load), load() asks and returns how many times. Name -> two lists of per cents of
    bare's, for time and for CPU time, one number an instance; the latter stays empty where there
    are no pids to ask."""
    variants = dict(variants, **{AGAIN: (None, nothing), "bare": (None, nothing)})
    ratios = {name: ([], []) for name in variants}
    for instance in range(instances):
        chance = random.Random(instance)
        sums = {name: [0, 0] for name in variants}
        with contextlib.ExitStack() as stack:
            keys = {key_of(env): env for env, _ in variants.values()}
            keys[AGAIN] = None
            order = list(keys)
            chance.shuffle(order)
            hosts = {key: stack.enter_context(start(keys[key])) for key in order}
            for _, load in hosts.values():
                load()
            for _ in range(turns):
                order = list(variants)
                chance.shuffle(order)
                for name in order:
                    env, window = variants[name]
                    pids, load = hosts[AGAIN if name == AGAIN else key_of(env)]
                    sums[name] = [a + b for a, b in zip(sums[name], measure(pids, window, load))]
        for name, both in ratios.items():
            for values, bare, ours in zip(both, sums["bare"], sums[name]):
                if ours > 0:
                    values.append(bare / ours * 100)
    return ratios


def mean(values):
    """With its standard error: what chance alone makes of it."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
    return f"{statistics.mean(values):.1f} ± {error:.1f} %"


def told(ratios, name):
    rates, costs = ratios[name]
    return f"{mean(rates)} of bare's throughput" + (
        f", {mean(costs)} of its requests a CPU s" if costs else "")


def peers(ratios):
    return f"{AGAIN}: {told(ratios, AGAIN)}" + (
        f"; {PERF}: {told(ratios, PERF)}" if PERF in ratios else "")
