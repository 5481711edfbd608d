"""Rows about real servers under load: with the library, and bare."""
import contextlib
import os
import pwd
import re
import socket
import subprocess
import tempfile
import time

from common import PERF, WORK, preloaded, rounds, row, running, tell
from servers import (CLIENT, ON_ITS_OWN, beside_bare, nothing, peers, perf_window, profep_window,
                     told)

REACH = ">= 99 % of bare"


def tell_both(what, ratios):
    """With a 100 Hz CPU profile on, and without."""
    tell(f"{what}, 100 Hz profile on", REACH, told(ratios, "profile"), peers(ratios))
    tell_heap(what, ratios)


def tell_heap(what, ratios):
    tell(f"{what}, heap and locks alone", REACH, told(ratios, "heap"),
         f"with PROFEP_HEAP=off: {told(ratios, 'off')}" if "off" in ratios else peers(ratios))


def usual():
    ours = preloaded()
    return {"profile": (ours, profep_window), "heap": (ours, nothing), PERF: (None, perf_window)}


@contextlib.contextmanager
def redis_server(env):
    directory = tempfile.mkdtemp(dir=WORK)
    sock = os.path.join(directory, "sock")

    def load():
        subprocess.run([*CLIENT, "redis-benchmark", "-s", sock, "-q", "-n", "40000", "-c", "20",
                        "-P", "2", "-r", "100000", "-t", "set,get"],
                       check=True, stdout=subprocess.DEVNULL)
        return 80000
    argv = [*ON_ITS_OWN, "redis-server", "--port", "0", "--unixsocket", sock, "--save", "",
            "--appendonly", "no", "--dir", directory]
    with running(argv, env=env) as process:
        while not os.path.exists(sock):
            time.sleep(0.05)
        yield [process.pid], load


@row
def redis():
    """redis SET and GET: a 100 Hz CPU profile on; heap and locks alone; nothing but being there."""
    variants = dict(usual(), off=(preloaded(PROFEP_HEAP="off"), nothing))
    tell_both("redis SET and GET", beside_bare(redis_server, variants, rounds(16), 3))


def nginx_conf(path, port):
    temps = "".join(f"{kind}_temp_path {path};" for kind in
                    ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(path + "/conf", "w") as f:
        user = "user root;" if os.getuid() == 0 else ""  # a worker must reach its run file
        f.write(f"{user} daemon off; worker_processes 1; pid {path}/pid; error_log {path}/log;"
                "events { worker_connections 256; } http { access_log off;" + temps +
                f"server {{ listen 127.0.0.1:{port};"
                'location / { return 200 "served\\n"; } } }')
    return [*ON_ITS_OWN, "nginx", "-c", path + "/conf", "-p", path]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(child) for child in f.read().split()]


def only_child(pid):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        children = children_of(pid)
        if children:
            return children[0]
        time.sleep(0.05)
    raise SystemExit("bench: nginx started no worker")


@contextlib.contextmanager
def nginx_server(env):
    path, port = tempfile.mkdtemp(dir=WORK), free_port()

    def load():
        out = subprocess.run([*CLIENT, "wrk", "-t1", "-c20", "-d1",
                              f"http://127.0.0.1:{port}/"],
                             check=True, capture_output=True, text=True).stdout
        return int(re.search(r"(\d+) requests in", out).group(1))
    with running(nginx_conf(path, port), env=env) as process:
        try:
            worker = only_child(process.pid)
            time.sleep(1.5)  # a worker is a descendant: it listens when it is a second old
            yield [worker], load
        finally:
            process.terminate()  # ends its worker too
            process.wait()


@row
def nginx():
    """nginx, one worker: a 100 Hz CPU profile of the worker on; heap and locks alone."""
    tell_both("nginx", beside_bare(nginx_server, usual(), rounds(16), 3))


@contextlib.contextmanager
def memcached_server(env):
    sock = os.path.join(tempfile.mkdtemp(dir=WORK), "sock")
    text = b"".join(b"set key%d 0 0 64\r\n%s\r\nget key%d\r\n" % (i, b"v" * 64, i)
                    for i in range(500))
    answer = len(b"".join(b"STORED\r\nVALUE key%d 0 64\r\n%s\r\nEND\r\n" % (i, b"v" * 64)
                          for i in range(500)))

    def load():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(sock)
            for _ in range(300):
                client.sendall(text)
                left = answer
                while left > 0:
                    left -= len(client.recv(left))
        return 300000
    user = ["-u", "root"] if os.getuid() == 0 else []
    with running([*ON_ITS_OWN, "memcached", "-s", sock, "-t", "2", *user], env=env) as process:
        while not os.path.exists(sock):
            time.sleep(0.05)
        yield [process.pid], load


@row
def memcached():
    """memcached, set and get of 64 bytes, 1,000 at once: a 100 Hz CPU profile on; without."""
    tell_both("memcached", beside_bare(memcached_server, usual(), rounds(16), 3))


def postgres_bin():
    """Its tools lie outside PATH in Debian."""
    for version in sorted(os.listdir("/usr/lib/postgresql"), reverse=True):
        return f"/usr/lib/postgresql/{version}/bin/"
    return ""


@contextlib.contextmanager
def postgres_server(env):
    """It refuses to be root. Its backends are children of its first process, one a client."""
    path, user = tempfile.mkdtemp(dir="/tmp", prefix="profep-bench-pg-"), []
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    where = ["-h", path, "-U", "bench"]
    subprocess.run([*user, postgres_bin() + "initdb", "-D", path + "/data", "-U", "bench",
                    "-A", "trust", "--no-sync"], cwd=path, **quiet)
    argv = [*ON_ITS_OWN, *user, postgres_bin() + "postgres", "-D", path + "/data", "-k", path,
            "-c", "listen_addresses=", "-c", "fsync=off"]
    if env and user:
        os.makedirs(path + "/run", mode=0o700, exist_ok=True)
        os.chown(path + "/run", nobody.pw_uid, nobody.pw_gid)
        env = dict(env, PROFEP_RUNDIR=path + "/run")
    with running(argv, env=env, cwd=path) as process:
        try:
            while subprocess.run([postgres_bin() + "pg_isready", *where, "-d", "postgres"],
                                 stdout=subprocess.DEVNULL).returncode != 0:
                time.sleep(0.1)
            subprocess.run([postgres_bin() + "pgbench", *where, "-i", "-q", "postgres"], **quiet)

            def load():
                out = subprocess.run(
                    [*CLIENT, postgres_bin() + "pgbench", *where, "-n", "-S", "-M", "prepared",
                     "-c", "2", "-t", "4000", "postgres"], check=True, capture_output=True,
                    text=True).stdout
                return int(re.search(r"actually processed: (\d+)", out).group(1))
            yield [], load
        finally:
            process.terminate()
            process.wait()
            subprocess.run(["rm", "-rf", path], check=True)


@row
def postgres():
    """postgres, pgbench's SELECT by two clients: heap and locks on in every process."""
    tell_heap("postgres", beside_bare(postgres_server, {"heap": (preloaded(), nothing)},
                                      rounds(16), 3))
