"""Rows about sampling: what it costs, and whether it tells the truth."""
import mmap
import os
import re
import signal
import struct
import subprocess
import tempfile
import threading
import time

from common import (LIB, PERF, BUILD, WORK, address_of, compiled, get, libprofiler, micro, middle,
                    preloaded, rounds, row, strict, tell, turned)


class Deep:
    """The 30-frame CPU-bound program; stands still except while it is measured."""

    def __init__(self, env=None):
        self.file = tempfile.mktemp(dir=WORK)
        self.process = subprocess.Popen(["taskset", "-c", "1", compiled("test/bench/deep.c"),
                                         self.file, "900"], env=env, stderr=subprocess.DEVNULL)
        while not os.path.exists(self.file) or os.path.getsize(self.file) < 4096:
            time.sleep(0.01)
        with open(self.file, "rb") as f:
            self.words = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ)
        while self.read()[0] == 0:
            time.sleep(0.01)
        self.pid = struct.unpack_from("Q", self.words, 16)[0]
        self.target = address_of(self.pid) if env and env.get("LD_PRELOAD") == LIB else None
        self.send(signal.SIGSTOP)

    def send(self, sig):
        os.kill(self.pid, sig)

    def read(self):
        return struct.unpack_from("QQ", self.words)

    def speed(self, seconds):
        """Pieces of work for each second of the process's CPU time, its other threads' included."""
        a = self.read()
        time.sleep(seconds)
        b = self.read()
        return (b[0] - a[0]) / ((b[1] - a[1]) / 1e9)

    def stop(self):
        self.process.kill()
        self.process.wait()


def profep_window(deep, hz, seconds):
    thread = threading.Thread(target=get, args=(
        deep.target, f"/debug/pprof/profile?seconds={seconds}&hz={hz}"))
    thread.start()
    return thread.join


def perf_window(deep, hz, seconds):
    perf = subprocess.Popen(["perf", "record", "-q", "-g", "-F", str(hz), "-p", str(deep.pid),
                             "-o", "/dev/null", "--", "sleep", str(seconds)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return perf.wait


def toggled_window(sig):
    def window(deep, hz, seconds):
        del hz, seconds
        deep.send(sig)
        return lambda: deep.send(sig)
    return window


def loss(deep, window, hz):
    """Per cent of work lost while a window is open, against before and after."""
    deep.send(signal.SIGCONT)
    before = deep.speed(0.35)
    end = window(deep, hz, 1)
    time.sleep(0.25)
    on = deep.speed(0.65)
    end()
    time.sleep(0.05)
    after = deep.speed(0.35)
    deep.send(signal.SIGSTOP)
    return ((before + after) / 2 / on - 1) * 100


def overhead_hosts(hz):
    gperf = dict(os.environ, LD_PRELOAD=libprofiler(), CPUPROFILE_FREQUENCY=str(hz),
                 CPUPROFILE=os.path.join(WORK, "gperf.prof"),
                 CPUPROFILESIGNAL=str(int(signal.SIGUSR2)))
    bare = dict(os.environ, DEEP_HZ=str(hz))
    return {
        "perf engine": (Deep(preloaded(PROFEP_CPU_ENGINE="perf")), profep_window),
        "timer engine": (Deep(preloaded(PROFEP_CPU_ENGINE="timer")), profep_window),
        PERF: (Deep(bare), perf_window),
        "gperftools": (Deep(gperf), toggled_window(signal.SIGUSR2)),
        "a perf event that tells nobody": (Deep(bare), toggled_window(signal.SIGUSR1)),
        "one that signals an empty handler": (Deep(dict(bare, DEEP_SIGNAL="1")),
                                              toggled_window(signal.SIGUSR1)),
    }


@row
def cpu_overhead():
    """CPU profile, 30-frame CPU-bound program: work lost for each second of CPU time."""
    reach = {100: "<= 0.1 %", 1000: "<= 0.5 %", 4000: "<= 1.5 %"}
    hosts = {hz: overhead_hosts(hz) for hz in reach}
    lost = {(hz, name): [] for hz in reach for name in hosts[hz]}
    try:
        for turn in range(rounds(5)):
            for hz, name in turned(lost, 4 * turn):
                deep, window = hosts[hz][name]
                lost[hz, name].append(loss(deep, window, hz))
    finally:
        for hz in reach:
            for deep, _ in hosts[hz].values():
                deep.stop()
    for hz, bound in reach.items():
        told = {name: f"{name} {middle(lost[hz, name], ' %')}" for name in hosts[hz]}
        ours = [told.pop(name) for name in ("perf engine", "timer engine")]
        tell(f"CPU profile at {hz} Hz, 30 frames", f"{bound}, below {PERF}", "; ".join(ours),
             "; ".join(told.values()))


@row
def sample_cost():
    """One warm sample of 30 frames above an empty signal."""
    interrupt, sent = (line.partition(": ")[2] for line in micro("sample", "perf"))
    tell("one warm sample, 30 frames", "<= 600 ns above an empty signal, <= 20 ns a frame",
         f"{sent}, when the thread sends it itself; behind the event's interrupt {interrupt}")
    lines = [line for line in micro("unwind") if "bounds" not in line]
    tell("the walk", "<= 20 ns a frame", lines[3].split(";")[0],
         lines[3].split(";")[1].strip() + " ns a frame")


def spin(threads, seconds, rhythm_us, **settings):
    """Runs the 60/30/10 program under a recording of its whole run: its profile, its own clock."""
    out = tempfile.mktemp(dir=WORK, suffix=".pb.gz")
    argv = [os.path.join(BUILD, "test/prog/spin"), str(threads), str(seconds)]
    if rhythm_us:
        argv.append(str(rhythm_us))
    said = subprocess.run(argv, env=preloaded(PROFEP_OUTPUT=out, **settings), check=True,
                          capture_output=True, text=True).stdout
    truth = [int(n) for n in re.findall(r"(?:sixty|thirty|ten) (\d+)", said)]
    profile = strict(out)
    os.unlink(out)
    return profile, truth


@row
def rate():
    """Rate reached; total weight against the thread's own CPU clock."""
    for engine, bound in (("perf", ">= 99 %; total within 2 %"), ("timer", "total within 2 %")):
        cells = []
        for hz in (100, 1000, 4000):
            rates, weights = [], []
            for _ in range(rounds(2)):
                profile, truth = spin(1, 2, 0, PROFEP_HZ=str(hz), PROFEP_CPU_ENGINE=engine)
                count, weight = profile["totals"]
                rates.append(count / (weight / 1e9) / hz * 100)
                weights.append(weight / sum(truth) * 100)
            reached = f"rate {middle(rates, ' %', 1)}, " if engine == "perf" else ""
            cells.append(f"{hz} Hz: {reached}total {middle(weights, ' %', 1)}")
        tell(f"rate and CPU time, {engine} engine", bound, "; ".join(cells))


def shares_of(profile):
    weight = {"spin_sixty": 0, "spin_thirty": 0, "spin_ten": 0}
    total = 0
    for sample in profile["samples"]:
        total += sample["values"][1]
        for name in sample["stack"]:
            if name in weight:
                weight[name] += sample["values"][1]
                break
    return [w / total * 100 for w in weight.values()], total


def shares_cell(threads, seconds, rhythm_us, hz, engine):
    profile, truth = spin(threads, seconds, rhythm_us, PROFEP_HZ=str(hz), PROFEP_CPU_ENGINE=engine)
    found, total = shares_of(profile)
    real = [t / sum(truth) * 100 for t in truth]
    worst = max((f - r for f, r in zip(found, real)), key=abs)
    return f"{threads}: {'/'.join(f'{f:.1f}' for f in found)}, worst {worst:+.1f}, " \
           f"total {total / sum(truth) * 100:.1f} %"


@row
def shares():
    """Shares of a program that spends 60, 30 and 10 % in three functions."""
    # As many samples as tell 2 points from chance: 60 % of 6,000 is known to 0.6 points. Of two
    # processors' time one thread gets a half.
    for engine, hz, seconds in (("perf", 1000, 20), ("timer", 100, 30)):
        period_us = 1000000 // hz
        rhythms = (period_us, 10 * period_us) if engine == "perf" else (period_us, 2 * period_us)
        cells = {(rhythm, threads): None for rhythm in rhythms for threads in (1, 16, 256)}

        def fill(key):
            alone = 2 if key[1] == 1 else 1
            cells[key] = shares_cell(key[1], rounds(seconds * alone), key[0], hz, engine)
        both = [threading.Thread(target=fill, args=((rhythm, 1),)) for rhythm in rhythms]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        for key in cells:
            if key[1] > 1:
                fill(key)
        for rhythm in rhythms:
            tell(f"60/30/10 at 1, 16, 256 threads, {engine} engine, {hz} Hz, rhythm "
                 f"{rhythm / 1000:g} ms = {rhythm // period_us} of its periods",
                 "within 2 points; total within 2 %",
                 "; ".join(cells[rhythm, threads] for threads in (1, 16, 256)))
