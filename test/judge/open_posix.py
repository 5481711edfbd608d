#!/usr/bin/env python3
"""Runs programs bare and watched, and compares their exit status.

open_posix.py LIBRARY JOBS LIST: LIST names a program a line. A status that a program has only when
it is watched, in REPEATS runs of each kind, is a difference. Prints each of them, then one line
with the numbers. Exit status 1 when there are any.
"""

import concurrent.futures
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

REPEATS = 5
SECONDS = 90
DUMP_PERIOD = 0.05
dumps = 0
refusals = {}


def targets(rundir):
    for name in os.listdir(rundir):
        try:
            with open(os.path.join(rundir, name), encoding="utf-8") as file:
                yield json.load(file)[0]["targets"][0]
        except (OSError, ValueError, LookupError):
            pass


def poll(rundir, is_over):
    """Asks every process of the program for its threads, until it is over."""
    global dumps
    while not is_over.wait(DUMP_PERIOD):
        for target in targets(rundir):
            try:
                url = f"http://{target}/debug/pprof/threads?debug=2"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    answer.read()
                dumps += 1
            except urllib.error.HTTPError as error:
                refusals[error.code] = refusals.get(error.code, 0) + 1
            except (OSError, ValueError, http.client.HTTPException):
                pass  # the program has ended, perhaps in the middle of its answer


def run(program, library):
    """How it ends: its exit status, minus the signal's number, or "time"."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o700)
        rundir = os.path.join(place, "run")
        os.mkdir(rundir, 0o700)
        environment = dict(os.environ)
        if library:
            environment.update(LD_PRELOAD=library, PROFEP_LISTEN="127.0.0.1:0",
                               PROFEP_RUNDIR=rundir, PROFEP_HZ="250",
                               PROFEP_OUTPUT=os.path.join(place, "p.%p.pb.gz"))
        is_over = threading.Event()
        poller = threading.Thread(target=poll, args=(rundir, is_over))
        if library:
            poller.start()
        child = subprocess.Popen([program], cwd=place, env=environment, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 start_new_session=True)
        try:
            status = child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            status = "time"
        finally:
            is_over.set()
            try:
                os.killpg(child.pid, 9)
            except ProcessLookupError:
                pass
            child.wait()
            if library:
                poller.join()
        return status


def compare(program, library):
    bare, watched = {run(program, None)}, {run(program, library)}
    for _ in range(REPEATS - 1):
        if watched <= bare:
            break
        bare.add(run(program, None))
        watched.add(run(program, library))
    return program, bare, watched


def main():
    library, jobs, path = sys.argv[1:4]
    with open(path, encoding="utf-8") as file:
        programs = file.read().split()
    began = time.monotonic()
    different, statuses = 0, {}
    with concurrent.futures.ThreadPoolExecutor(int(jobs)) as pool:
        for program, bare, watched in pool.map(lambda each: compare(each, library), programs):
            first = next(iter(bare)) if len(bare) == 1 else "varies"
            statuses[first] = statuses.get(first, 0) + 1
            if not watched <= bare:
                different += 1
                print(f"{os.path.basename(program)}: bare {bare}, watched {watched}", flush=True)
    ended = ", ".join(f"{key}: {statuses[key]}" for key in sorted(statuses, key=str))
    print(f"{len(programs)} programs, {different} differences; bare ended with {ended}; "
          f"{dumps} dumps, refused {refusals}; {time.monotonic() - began:.0f} s")
    return 1 if different or not programs else 0


sys.exit(main())
