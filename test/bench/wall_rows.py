"""Rows about elapsed time: what it costs to read threads that wait."""
import glob
import os
import threading
import time

from common import BUILD, address_of, get, middle, preloaded, rounds, row, running, tell


def reader_of(pid):
    for comm in glob.glob(f"/proc/{pid}/task/*/comm"):
        try:
            with open(comm) as f:
                if f.read() == "profep-wall\n":
                    return os.path.dirname(comm)
        except OSError:
            pass
    return None


def cpu_ns(task):
    with open(f"{task}/schedstat") as f:
        return int(f.read().split()[0])


def window_cost(pid, target, seconds):
    """What the reading thread takes of a processor, in %, after it has met its threads."""
    asker = threading.Thread(target=get,
                             args=(target, f"/debug/pprof/wall?seconds={seconds + 4}&hz=100"))
    asker.start()
    time.sleep(2)
    task = reader_of(pid)
    before, begun = cpu_ns(task), time.monotonic()
    time.sleep(seconds)
    cost = (cpu_ns(task) - before) / (time.monotonic() - begun) / 1e7
    asker.join()
    return cost


@row
def wall():
    """100 Hz of 1,000 threads: the CPU time of the thread that reads them."""
    for workers, reach in ((0, "<= 2 % of a core"), (10, "")):
        with running([f"{BUILD}/test/prog/waits", "1000", str(workers)], preloaded()) as host:
            target = address_of(host.pid)
            costs = [window_cost(host.pid, target, 5) for _ in range(rounds(5))]
        what = "all asleep" if workers == 0 else f"{workers} of them at work every 5 ms"
        tell(f"wall clock profile, 100 Hz, 1,000 threads, {what}", reach, middle(costs, " %", 2))
