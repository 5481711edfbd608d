#!/usr/bin/env python3
"""A client that misbehaves: http_hostile.py PORT [windows]

Speaks TAP. Every case sends bytes over a raw socket and judges what comes back. The server must
answer each with a clean 4xx in one plain sentence (or close), and serve a good client meanwhile.
"""
import json
import re
import select
import socket
import struct
import sys
import threading
import time

PORT = int(sys.argv[1])
count = 0
failures = 0


def ok(is_good, promise, note=""):
    global count, failures
    count += 1
    print(f"{'ok' if is_good else 'not ok'} {count} - {promise}")
    if not is_good:
        failures += 1
        print(f"# {note!r}")


def connect():
    return socket.create_connection(("127.0.0.1", PORT), timeout=10)


def receive(sock):
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        data += b"<reset>"
    sock.close()
    return data


def send(data):
    sock = connect()
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return receive(sock)


def good():
    began = time.monotonic()
    reply = send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return time.monotonic() - began, reply.startswith(b"HTTP/1.1 200 OK\r\n")


def status_of(reply):
    match = re.match(rb"HTTP/1\.[01] (\d{3}) ", reply)
    return int(match.group(1)) if match else 0


def is_sentence(reply):
    """Go's headers and one plain sentence that ends in a newline."""
    head, _, body = reply.partition(b"\r\n\r\n")
    return (b"X-Go-Pprof: 1" in head and b"Content-Type: text/plain; charset=utf-8" in head
            and b"Connection: close" in head and re.fullmatch(rb"[ -~]+\n", body) is not None)


HOST = b"Host: localhost\r\n"
CASES = [
    ("ten kilobytes of headers", b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 1700 + b"\r\n", 431),
    ("one header of ten kilobytes", b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 10240, 431),
    ("a first line of ten kilobytes", b"GET /" + b"a" * 10240 + b" HTTP/1.1\r\n\r\n", 414),
    ("ten megabytes of headers", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1700000, 431),
    ("a hundred headers", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100 + b"\r\n", 431),
    ("NUL in the target", b"GET /a\0b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("NUL in a header", b"GET / HTTP/1.1\r\nHost: local\0host\r\n\r\n", 400),
    ("control characters", b"GET / HTTP/1.1\r\nA: \x01\x02\r\n\r\n", 400),
    ("bytes of a TLS hello", bytes.fromhex("16030100c8010000c40303") + b"\x55" * 193, 400),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("HTTP/2.0 in words", b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("no Host", b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", b"GET /healthz HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    ("another site's Host", b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    ("a rebound Host", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 403),
    ("another site as target", b"GET http://evil.example/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
     403),
    ("another site's Origin",
     b"GET /healthz HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n\r\n", 403),
    ("no site's Origin", b"GET /healthz HTTP/1.1\r\n" + HOST + b"Origin: null\r\n\r\n", 403),
    ("a request across sites",
     b"GET /healthz HTTP/1.1\r\n" + HOST + b"Sec-Fetch-Site: cross-site\r\n\r\n", 403),
    ("an unknown method", b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("a known method at the wrong place", b"DELETE /healthz HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    ("CONNECT", b"CONNECT evil.example:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("a bad escape", b"GET /%zz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("an escaped NUL", b"GET /healthz%00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("dots in the path", b"GET /debug/../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    ("a length that is no number",
     b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", 400),
    ("a negative length",
     b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    ("two lengths", b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST
     + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    ("a length and chunks", b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST
     + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("an unknown coding", b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST
     + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ("a broken chunk size", b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST
     + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ("a chunk of 16 exabytes", b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST
     + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab", 400),
    ("a body beyond the limit", b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST
     + b"Content-Length: 70000\r\n\r\n" + b"+" * 70000, 413),
]


def malformed():
    for name, data, wanted in CASES:
        reply = send(data)
        is_good = status_of(reply) == wanted and is_sentence(reply)
        ok(is_good, f"{name}: {wanted} in one sentence", reply[:600])


def well_formed():
    reply = send(b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST
                 + b"Transfer-Encoding: chunked\r\n\r\n3\r\n0x1\r\n2\r\n+0\r\n0\r\n\r\n")
    ok(status_of(reply) == 200 and reply.endswith(b"num_symbols: 1\n"), "a body in chunks", reply)
    reply = send(b"GET /healthz HTTP/1.0\r\n\r\n")
    ok(reply.startswith(b"HTTP/1.0 200") and reply.endswith(b"ok\n"), "HTTP/1.0 without Host",
       reply)
    reply = send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
                 + b"GET /debug/profep HTTP/1.1\r\n" + HOST + b"\r\n")
    ok(reply.count(b"HTTP/1.1 ") == 1 and reply.endswith(b"ok\n"),
       "pipelined requests: the first is answered, then the connection ends", reply)
    sock = connect()
    for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n":
        sock.sendall(bytes([byte]))
        time.sleep(0.005)
    ok(status_of(receive(sock)) == 200, "a request byte by byte")


def slow():
    began = time.monotonic()
    sock = connect()
    sock.sendall(b"GET / HT")
    reply = receive(sock)
    took = time.monotonic() - began
    ok(status_of(reply) == 408 and is_sentence(reply) and took > 2.5,
       f"half a request: 408 after {took:.1f} s", reply)
    sock = connect()
    sock.sendall(b"POST /debug/pprof/symbol HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n0")
    reply = receive(sock)
    ok(status_of(reply) == 400 and is_sentence(reply), "half a body: 400", reply)


def slowloris():
    socks = [connect() for _ in range(200)]
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\r\n")
    took, is_good = good()
    # One after the other, they would all have been told that they are late before it.
    is_before = not select.select([socks[-1]], [], [], 0)[0]
    ok(is_good and is_before,
       f"beside 200 slow clients a good one is served before they end, in {took:.2f} s")
    for sock in socks:
        sock.close()


def windows():
    reply = send(b"GET /debug/profep HTTP/1.1\r\n" + HOST + b"\r\n")
    return json.loads(reply.partition(b"\r\n\r\n")[2])["sampler"]["windows"]


def wait_windows(wanted, seconds):
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if windows() == wanted:
            return time.monotonic() - began
    return None


PROFILE = b"GET /debug/pprof/profile?seconds=30 HTTP/1.1\r\n" + HOST + b"\r\n"


def leavers():
    socks = [connect() for _ in range(8)]
    for sock in socks:
        sock.sendall(PROFILE)
    ok(wait_windows(8, 20) is not None, "eight windows are open together")
    for sock in socks[:4]:
        sock.close()
    took = wait_windows(4, 10)
    ok(took is not None, f"four left, their windows are free after {took} s")
    for sock in socks[4:]:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    took = wait_windows(0, 10)
    ok(took is not None, f"four were reset, their windows are free after {took} s")


def storm():
    """Clients that go away at every moment leave nothing behind."""
    def leave(after):
        sock = connect()
        sock.sendall(PROFILE)
        time.sleep(after)
        sock.close()
    for _ in range(10):
        threads = [threading.Thread(target=leave, args=(i / 500,)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ok(wait_windows(0, 20) is not None, "200 clients that left leave no window")
    ok(good()[1], "and the next one is served")


malformed()
well_formed()
slow()
slowloris()
leavers()
storm()
print(f"1..{count}")
sys.exit(1 if failures else 0)
