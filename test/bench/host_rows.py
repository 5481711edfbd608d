"""Rows about the host: starting it, leaving it alone, serving while profiled, answering."""
import os
import re
import resource
import shutil
import statistics
import subprocess
import time

from common import (DEPS, LIB, WORK, address_of, compiled, get, libprofiler, micro, middle,
                    preloaded, rounds, row, running, tell, turned)

BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@row
def constructor():
    """From the end of the last constructor before ours to the beginning of the first after."""
    first = compiled("test/bench/around.c", "around_first.so", ["-shared", "-fPIC", "-DFIRST"])
    last = compiled("test/bench/around.c", "around_last.so", ["-shared", "-fPIC"])
    between = {"ours": [], "none": []}
    for turn in range(rounds(200)):
        for name in turned(between, turn):
            middle_one = LIB + " " if name == "ours" else ""
            env = preloaded(BASE, LD_PRELOAD=f"{last} {middle_one}{first}")
            out = subprocess.run(["/bin/true"], env=env, capture_output=True, text=True)
            between[name].append(int(out.stderr) / 1e3)
    tell("constructor", "<= 150 us", middle(between["ours"], " us", 0),
         f"nothing in between {middle(between['none'], ' us', 1)}")


def spawn_us(env, count):
    begun = time.perf_counter()
    for _ in range(count):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], env), 0)
    return (time.perf_counter() - begun) / count * 1e6


@row
def startup():
    """A whole /bin/true."""
    variants = {"bare": BASE, "libprofep": preloaded(BASE),
                "libprofep, a descendant": preloaded(BASE, PROFEP_MARK="1"),
                "gperftools": dict(BASE, LD_PRELOAD=libprofiler())}
    times = {name: [] for name in variants}
    for turn in range(rounds(30)):
        for name in turned(variants, turn):
            times[name].append(spawn_us(variants[name], 30))
    added = {name: [ours - bare for ours, bare in zip(times[name], times["bare"])]
             for name in variants}
    peer = f"gperftools +{middle(added['gperftools'], ' us', 0)}; " \
           f"bare {middle(times['bare'], ' us', 0)} in all"
    for name in ("libprofep", "libprofep, a descendant"):
        tell(f"/bin/true under {name}", "<= +300 us", "+" + middle(added[name], " us", 0), peer)


@row
def build():
    """make -j2 of zlib: compilers, shells and an archiver by the dozen."""
    tree = os.path.join(WORK, "zlib")
    shutil.copytree(os.path.join(DEPS, "src", "zlib"), tree)
    variants = {"bare": BASE, "libprofep": preloaded(BASE)}
    wall, cpu = {n: [] for n in variants}, {n: [] for n in variants}
    for turn in range(rounds(4)):
        for name in turned(variants, turn):
            subprocess.run(["make", "-C", tree, "clean"], stdout=subprocess.DEVNULL, check=True)
            before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(["make", "-C", tree, "-j2", "libz.a"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=True, env=variants[name])
            wall[name].append(time.perf_counter() - begun)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def added(name):
        return [f"{middle([(o / b - 1) * 100 for o, b in zip(t[name], t['bare'])], ' %', 1)} {what}"
                for t, what in ((wall, "time"), (cpu, "CPU time"))]
    tell(f"make -j2 of zlib ({statistics.median(wall['bare']):.1f} s)", "<= +2 %",
         ", ".join(added("libprofep")))


def look_idle(env):
    with running(["sleep", "60"], env=env) as process:
        if "PROFEP_RUNDIR" in env:
            address_of(process.pid)
        time.sleep(1)
        with open(f"/proc/{process.pid}/status") as f:
            status = f.read()
        tasks = f"/proc/{process.pid}/task"

        def switches():
            total = 0
            for tid in os.listdir(tasks):
                with open(f"{tasks}/{tid}/status") as f:
                    total += sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", f.read()))
            return total
        before = switches()
        time.sleep(3)
        return (int(re.search(r"VmRSS:\s+(\d+)", status).group(1)),
                int(re.search(r"Threads:\s+(\d+)", status).group(1)), (switches() - before) / 3)


@row
def idle():
    """Threads, memory and wake-ups of a host that sleeps."""
    bare, ours = look_idle(BASE), look_idle(preloaded(BASE))
    peer = look_idle(dict(BASE, LD_PRELOAD=libprofiler()))

    def told(look):
        return f"+{look[1] - bare[1]} thread, +{(look[0] - bare[0]) / 1024:.2f} MB RSS, " \
               f"{look[2] - bare[2]:.1f} wake-ups/s"
    tell("idle host", "1 thread, <= 1.5 MB, 0 wake-ups/s", told(ours), "gperftools " + told(peer))


@row
def size():
    """The stripped library."""
    peer = os.path.getsize(os.path.realpath(libprofiler())) / 1e6
    tell("libprofep.so, stripped", "<= 1 MB", f"{os.path.getsize(LIB) / 1e6:.3f} MB",
         f"gperftools {peer:.3f} MB, and libstdc++, libgcc, libunwind, liblzma beside it")


@row
def encode():
    """10,000 distinct stacks, encoded and compressed."""
    for line in micro("encode", "pprof, gzip level 1"):
        tell("profile.proto of 10,000 stacks", "<= 30 ms", re.sub(r"\s+", " ", line.split("1", 1)[1]).strip())


def big_program():
    """200,000 functions with C++ names; their names and 80 MB of other sections lie in a debug
    file of 100 MB, found by its build-id's neighbour, the debuglink."""
    base = os.path.join(WORK, "big")
    with open(base + ".S", "w") as f:
        f.write(".text\n")
        for i in range(200000):
            part = f"component_{i % 97}"
            name = f"_ZN7example{len(part)}{part}{len('handler_') + len(str(i))}handler_{i}" \
                   "ERKSt6vectorIiSaIiEES5_"
            f.write(f".globl {name}\n.type {name},@function\n{name}: ret\n.size {name},.-{name}\n")
        f.write('.section .debug_filler,"",@progbits\n.fill 10000000, 8, 0x5a\n'
                '.section .note.GNU-stack,"",@progbits\n')
    with open(base + ".c", "w") as f:
        f.write("#include <time.h>\nint main(void) { for (volatile long i = 0;; i++) {"
                "struct timespec t; if (i % 1000 == 0) clock_gettime(CLOCK_MONOTONIC, &t); } }\n")
    for argv in (["gcc", "-g", "-o", base, base + ".c", base + ".S"],
                 ["objcopy", "--only-keep-debug", base, base + ".debug"],
                 ["strip", base], ["objcopy", f"--add-gnu-debuglink={base}.debug", base]):
        subprocess.run(argv, check=True)
    os.unlink(base + ".S")
    return base


@row
def symbolize():
    """The first and the next profile of a program with a 100 MB debug file: time beyond the window."""
    program = big_program()
    size_mb = os.path.getsize(program + ".debug") / 1e6
    first, later = [], []
    for _ in range(rounds(3)):
        with running([program], env=preloaded()) as process:
            target = address_of(process.pid)
            for took in (first, later, later):
                begun = time.perf_counter()
                get(target, "/debug/pprof/profile?seconds=1")
                took.append((time.perf_counter() - begun - 1) * 1000)
    os.unlink(program + ".debug")
    tell(f"names from a debug file of {size_mb:.0f} MB, 200,000 functions",
         "first <= 1 s, then <= 50 ms",
         f"first {middle(first, ' ms', 0)}, then {middle(later, ' ms', 0)}")
