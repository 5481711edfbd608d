"""What the rows of test/bench/run share: the table, hosts with and without the library, profiles."""
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
DEPS = os.environ.get("DEPS", os.path.join(BUILD, "deps"))
LIB = os.path.join(BUILD, "libprofep.so")
QUICK = bool(os.environ.get("QUICK"))
TIMES = int(os.environ.get("TIMES", "1"))
WORK = tempfile.mkdtemp(prefix="profep-bench-")
RUNDIR = os.path.join(WORK, "run")
PERF = "perf record -g"
ROWS = {}
TABLE = []


def row(function):
    ROWS[function.__name__] = function
    return function


def tell(what, reach, ours, peer=""):
    TABLE.append((what, reach, ours, peer))
    print(f"  {what}: {ours}" + (f"   [{peer}]" if peer else ""), flush=True)


def middle(values, unit="", digits=2):
    """Median and the middle half of the values, as text."""
    values = sorted(values)
    if len(values) < 4:
        return f"{statistics.median(values):.{digits}f}{unit}"
    q = statistics.quantiles(values, n=4)
    return f"{q[1]:.{digits}f}{unit} ({q[0]:.{digits}f} to {q[2]:.{digits}f})"


def rounds(full):
    return max(2, full // 3) if QUICK else full * TIMES


def turned(names, turn):
    """The names in an order that changes with each turn, so that none is always the first."""
    names = list(names)
    turn %= len(names)
    return names[turn:] + names[:turn]


def compiled(source, name=None, flags=()):
    out = os.path.join(WORK, name or os.path.basename(source).replace(".", "_"))
    if not os.path.exists(out):
        subprocess.run(["gcc", "-O2", "-g", "-D_GNU_SOURCE", "-o", out, os.path.join(ROOT, source), *flags],
                       check=True)
    return out


def preloaded(base=None, **settings):
    env = dict(os.environ if base is None else base, LD_PRELOAD=LIB,
               PROFEP_LISTEN="127.0.0.1:0", PROFEP_RUNDIR=RUNDIR)
    env.update(settings)
    return env


def libprofiler():
    for path in ("/usr/lib/x86_64-linux-gnu/libprofiler.so.0", "/usr/lib/libprofiler.so.0"):
        if os.path.exists(path):
            return path
    raise SystemExit("bench: no libprofiler.so.0; Debian package libgoogle-perftools4")


def address_of(pid):
    """host:port of a preloaded process; waits for its run file."""
    path = os.path.join(RUNDIR, f"{pid}.json")
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, KeyError):
            with open(path) as f:
                return json.load(f)[0]["targets"][0]
        time.sleep(0.01)
    raise SystemExit(f"bench: process {pid} did not publish {path} within 10 seconds")


def get(target, path, accept=None):
    connection = http.client.HTTPConnection(target, timeout=120)
    connection.request("GET", path, headers={"Accept": accept} if accept else {})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"bench: {path}: {answer.status} {body[:200]!r}")
    return body


@contextlib.contextmanager
def running(argv, env=None, **more):
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, **more)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def strict(path):
    """A profile as its strictest reader sees it."""
    out = subprocess.run([sys.executable, os.path.join(ROOT, "test/judge/pprof_strict.py"),
                          "--json", path], capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(f"bench: the profile breaks a rule: {out.stdout}{out.stderr}")
    return json.loads(out.stdout)


def micro(name, *arguments):
    """The lines that a program of test/bench/micro_*.c prints."""
    program = os.path.join(BUILD, "test", "bench", "micro_" + name)
    out = subprocess.run(["taskset", "-c", "1", program, *arguments], capture_output=True,
                         text=True)
    if out.returncode != 0:
        raise SystemExit(f"bench: {program} ended with {out.returncode}")
    return [line.strip() for line in out.stdout.splitlines() if line.strip()]
