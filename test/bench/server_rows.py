"""Rows about servers that are asked for something all the while: with the library, and bare."""
import contextlib
import os
import re
import socket
import subprocess
import tempfile
import threading
import time

from common import (PERF, WORK, address_of, get, middle, preloaded, rounds, row, running, tell,
                    turned)

WINDOW_S = 2


def cpu_s(pid):
    """CPU seconds of a process's threads that live."""
    total = 0
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/schedstat") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def nothing(pid):
    del pid
    return lambda: None


def profep_window(pid):
    thread = threading.Thread(target=get, args=(
        address_of(pid), f"/debug/pprof/profile?seconds={WINDOW_S}&hz=100"))
    thread.start()
    return thread.join


def perf_window(pid):
    return subprocess.Popen(
        ["perf", "record", "-q", "-g", "-F", "100", "-p", str(pid), "-o", "/dev/null",
         "--", "sleep", str(WINDOW_S)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait


def measure(pid, window, load):
    """Requests a second, and for each CPU second of the server, while a window is open."""
    end = window(pid)
    time.sleep(0.1)
    before = cpu_s(pid)
    count, took = load()
    used = cpu_s(pid) - before
    end()
    return count / took, count / used


def beside_bare(start, variants, instances, turns):
    """variants: name -> (environment or None for bare, window). start(environment) is a context
    with (pid, load) of a server that has just been started. Each measurement of a variant stands
    between two of bare; and since no two processes lie in memory alike, which alone may make one
    some per cent faster, servers are started afresh. Name -> two lists of per cents of bare's."""
    ratios = {name: ([], []) for name in variants}
    environments = {env and tuple(sorted(env.items())): env for env, _ in variants.values()}
    environments[None] = None
    for instance in range(instances):
        with contextlib.ExitStack() as stack:
            hosts = {key: stack.enter_context(start(env)) for key, env in environments.items()}
            for pid, load in hosts.values():
                load()
            bare_pid, bare_load = hosts[None]
            before = measure(bare_pid, nothing, bare_load)
            for turn in range(turns * len(variants)):
                name = turned(variants, instance + turn)[0]
                env, window = variants[name]
                pid, load = hosts[env and tuple(sorted(env.items()))]
                ours = measure(pid, window, load)
                after = measure(bare_pid, nothing, bare_load)
                for values, o, b, a in zip(ratios[name], ours, before, after):
                    values.append(o / (b + a) * 200)
                before = after
    return ratios


def told(ratios, name):
    rates, costs = (middle(values, " %", 1) for values in ratios[name])
    return f"{rates} of bare's throughput, {costs} of its requests a CPU s"


@contextlib.contextmanager
def redis_server(env):
    directory = tempfile.mkdtemp(dir=WORK)
    sock = os.path.join(directory, "sock")

    def load():
        begun = time.perf_counter()
        subprocess.run(["redis-benchmark", "-s", sock, "-q", "-n", "30000", "-c", "20", "-P", "2",
                        "-r", "100000", "-t", "set,get"], check=True, stdout=subprocess.DEVNULL)
        return 60000, time.perf_counter() - begun
    argv = ["redis-server", "--port", "0", "--unixsocket", sock, "--save", "", "--appendonly",
            "no", "--dir", directory]
    with running(argv, env=env) as process:
        while not os.path.exists(sock):
            time.sleep(0.05)
        yield process.pid, load


@row
def redis():
    """redis SET and GET: a 100 Hz CPU profile on; heap and locks alone; nothing but being there."""
    ours = preloaded()
    ratios = beside_bare(redis_server, {
        "profile": (ours, profep_window), "heap": (ours, nothing),
        "off": (preloaded(PROFEP_HEAP="off"), nothing), PERF: (None, perf_window)}, rounds(6), 3)
    tell("redis SET and GET, 100 Hz profile on", ">= 99 % of bare", told(ratios, "profile"),
         f"{PERF} {told(ratios, PERF)}")
    tell("redis SET and GET, heap on", ">= 99 % of bare", told(ratios, "heap"),
         f"with PROFEP_HEAP=off {told(ratios, 'off')}")


def nginx_conf(path, port):
    temps = "".join(f"{kind}_temp_path {path};" for kind in
                    ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(path + "/conf", "w") as f:
        user = "user root;" if os.getuid() == 0 else ""  # a worker must reach its run file
        f.write(f"{user} daemon off; worker_processes 1; pid {path}/pid; error_log {path}/log;"
                "events { worker_connections 256; } http { access_log off;" + temps +
                f"server {{ listen 127.0.0.1:{port};"
                'location / { return 200 "served\\n"; } } }')
    return ["nginx", "-c", path + "/conf", "-p", path]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def only_child(pid):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            children = f.read().split()
        if children:
            return int(children[0])
        time.sleep(0.05)
    raise SystemExit("bench: nginx started no worker")


@contextlib.contextmanager
def nginx_server(env):
    path, port = tempfile.mkdtemp(dir=WORK), free_port()

    def load():
        out = subprocess.run(["wrk", "-t1", "-c20", "-d1", f"http://127.0.0.1:{port}/"],
                             check=True, capture_output=True, text=True).stdout
        found = re.search(r"(\d+) requests in ([0-9.]+)s", out)
        return int(found.group(1)), float(found.group(2))
    with running(nginx_conf(path, port), env=env) as process:
        try:
            worker = only_child(process.pid)
            time.sleep(1.5)  # a worker is a descendant: it listens when it is a second old
            yield worker, load
        finally:
            process.terminate()  # ends its worker too
            process.wait()


@row
def nginx():
    """nginx, one worker, with a 100 Hz CPU profile of the worker on."""
    ratios = beside_bare(nginx_server, {"profile": (preloaded(), profep_window),
                                        PERF: (None, perf_window)}, rounds(4), 4)
    tell("nginx, 100 Hz profile on", ">= 99 % of bare", told(ratios, "profile"),
         f"{PERF} {told(ratios, PERF)}")
