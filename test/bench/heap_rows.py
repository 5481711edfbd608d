"""Rows about the heap profile: what malloc costs, and what the tables take, beside other profilers."""
import os
import re
import shutil
import statistics
import subprocess

from common import BUILD, WORK, middle, preloaded, rounds, row, tell, turned

MICRO = os.path.join(BUILD, "test", "bench", "micro_malloc")
LIBS = "/usr/lib/x86_64-linux-gnu/"
JEMALLOC = LIBS + "libjemalloc.so.2"
TCMALLOC = LIBS + "libtcmalloc.so.4"
PINNED = ["taskset", "-c", "1"]


def ns(argv, env=None):
    """The best of a row of micro_malloc: noise only adds."""
    out = subprocess.run(argv, env=env, capture_output=True, text=True, cwd=WORK)
    found = re.search(r"([0-9.]+) ns best", out.stdout)
    if not found:
        raise SystemExit(f"bench: {argv}: {out.returncode} {out.stdout[-300:]}{out.stderr[-300:]}")
    return float(found.group(1))


def ours(**settings):
    return preloaded(PROFEP_CPU_ENGINE="timer", **settings)


def jemalloc(options):
    return dict(os.environ, LD_PRELOAD=JEMALLOC, MALLOC_CONF=options)


def micro(variants, name, turns):
    """Interleaved: ns of each variant, one number a turn."""
    took = {variant: [] for variant in variants}
    for turn in range(rounds(turns)):
        for variant in turned(variants, turn):
            argv, env = variants[variant]
            took[variant].append(ns(PINNED + [MICRO, name, *argv], env))
    return took


def added(took, name, base):
    return [value - bare for value, bare in zip(took[name], took[base])]


def peers(name):
    """What other profilers make of the same row, once each: some are hundreds of times slower."""
    found = []
    if shutil.which("heaptrack"):
        out = os.path.join(WORK, f"heaptrack.{name}")
        found.append(f"heaptrack {ns(['heaptrack', '-o', out, MICRO, name, '20']):.0f} ns")
    if os.path.exists(TCMALLOC):
        env = dict(os.environ, LD_PRELOAD=TCMALLOC, HEAPPROFILE=os.path.join(WORK, "gperf"))
        found.append(f"gperftools {ns([MICRO, name, '100'], env):.0f} ns")
    return "; ".join(found)


def malloc_row(name, reach_sampled, reach_map):
    variants = {"bare": ([], None),
                "sampled": ([], ours(PROFEP_LIVE_MAP="0")),
                "map": ([], ours())}
    if os.path.exists(JEMALLOC):
        variants.update({"je": ([], jemalloc("prof:false")),
                         "je prof": ([], jemalloc("prof:true,prof_active:true")),
                         "je off": ([], jemalloc("prof:true,prof_active:false"))})
    took = micro(variants, name, 8)
    bare = statistics.median(took["bare"])
    peer = f"bare {bare:.2f} ns"
    if "je" in took:
        peer += f"; jemalloc {statistics.median(took['je']):.2f} ns, profiling " \
                f"+{middle(added(took, 'je prof', 'je'))} ns, profiler idle " \
                f"+{middle(added(took, 'je off', 'je'))} ns"
    others = peers(name)
    tell(f"{name}, sampling alone", reach_sampled, f"+{middle(added(took, 'sampled', 'bare'))} ns",
         peer)
    tell(f"{name}, with the live map", reach_map, f"+{middle(added(took, 'map', 'bare'))} ns",
         others)


@row
def malloc_pair():
    """malloc and free of 64 bytes, at once."""
    malloc_row("pair", "<= +0.5 ns", "<= +1.5 ns")


@row
def malloc_build():
    """10^6 blocks made, then freed: ns a block."""
    malloc_row("build", "", "")


@row
def malloc_churn():
    """10^5 blocks, one at random replaced by another."""
    malloc_row("churn", "", "")


@row
def record_all():
    """Every allocation recorded with its stack of 20 frames."""
    took = micro({"bare": ([], None), "all": ([], ours(PROFEP_HEAP="all")),
                  "rate 1": ([], ours(PROFEP_HEAP_RATE="1"))}, "deep", 6)
    tell("record everything, 20 frames", "<= 100 ns a pair",
         f"{middle(added(took, 'all', 'bare'), ' ns', 0)}; at rate 1 "
         f"{middle(added(took, 'rate 1', 'bare'), ' ns', 0)}", peers("deep"))


def rss_after(argv, env):
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"bench: {argv} ended with {status}")
    return usage.ru_maxrss / 1024


@row
def heap_memory():
    """What the tables take after 10^8 replacements of 10^5 blocks."""
    divisor = "100" if rounds(3) < 3 else "1"
    argv = PINNED + [MICRO, "soak", divisor]
    bare = rss_after(argv, None)
    for what, settings in (("default", {}), ("rate 4096", {"PROFEP_HEAP_RATE": "4096"})):
        tell(f"resident memory added, {what}", "<= 16 MB",
             f"{rss_after(argv, ours(**settings)) - bare:.1f} MB", f"bare {bare:.1f} MB in all")
