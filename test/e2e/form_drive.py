#!/usr/bin/env python3
"""Drives the page of /allocs_profile in a real browser: fills the form, records, reads the graph.

form_drive.py URL PROFILE_DIR [PNG]: prints "name: what the page showed" lines. The browser is
spoken to over a pipe, in its own protocol, so what is waited for is what the page says.
"""
import base64
import json
import os
import select
import subprocess
import sys
import time

PATIENCE = 120
# The part of the bar that is filled, or - where the bar is not shown.
NOTE = ("() => { sessionStorage.seen = (sessionStorage.seen || '') + ' ' + "
        "(document.getElementById('work').hidden ? '-' : document.getElementById('bar').value); }")
RECORD = "document.querySelector('button.main').click(); "


class Browser:
    def __init__(self, profile):
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()

        def place():  # the browser reads commands from 3 and answers on 4
            os.dup2(to_read, 13)
            os.dup2(to_write, 14)
            os.dup2(13, 3)
            os.dup2(14, 4)

        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
             "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             "--window-size=1280,900", f"--user-data-dir={profile}"],
            preexec_fn=place, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.number, self.bytes, self.session = 0, b"", None

    def ask(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.bytes:
                if not select.select([self.back], [], [], PATIENCE)[0]:
                    raise SystemExit(f"error: no answer to {method} {parameters}")
                more = os.read(self.back, 1 << 16)
                if not more:
                    raise SystemExit("error: the browser is gone")
                self.bytes += more
            text, self.bytes = self.bytes.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self.number:
                return answer.get("result", {})

    def open(self, url):
        target = self.ask("Target.createTarget", url=url)["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def see(self, expression):
        """The value of an expression, None while the page is between two documents."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True).get(
            "result", {}).get("value")

    def until(self, expression):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            value = self.see(expression)
            if value:
                return value
            time.sleep(0.05)
        raise SystemExit(f"error: never true: {expression}")


def main():
    url, profile = sys.argv[1:3]
    browser = Browser(profile)
    try:
        browser.open(url)
        browser.until("document.readyState === 'complete' && !!document.getElementById('command')")
        text = "document.getElementById('%s').textContent"
        print("title:", browser.see("document.title"))
        print("command:", browser.see(text % "command"))
        field = "document.getElementById('form').elements.%s"
        browser.see(field % "sample_rate" + ".value = 2")
        print("out of range is refused:",
              browser.see("!document.getElementById('form').checkValidity()"))
        browser.see(field % "sample_rate" + ".value = 0.05")
        browser.see(field % "duration" + ".value = 3600")
        # While a browser waits for an answer it answers no question: the page notes what it shows.
        browser.see("setInterval(" + NOTE + ", 50)")
        browser.see("setTimeout(() => { " + RECORD + "setTimeout(() => { "
                    "document.getElementById('cancel').click(); "
                    "sessionStorage.cancelled = 'yes'; }, 400); }, 50)")
        browser.until("sessionStorage.cancelled === 'yes'")
        print("cancelled:", browser.see("document.getElementById('work').hidden"),
              browser.see("document.getElementById('form').hidden"))
        browser.see(field % "duration" + ".value = 4")
        browser.see("sessionStorage.seen = ''")
        browser.see("setTimeout(() => { " + RECORD + " }, 50)")
        browser.until("!!document.getElementById('crumbs') && document.readyState === 'complete'")
        # A window of a busy machine ends late.
        print("graph:", browser.see("document.title.replace(/^.*: /, '').replace(/[0-9.]+ s/, 'N s')"))
        seen = browser.see("sessionStorage.seen").split()
        shares = [float(share) for share in seen if share != "-"]
        print("progress rises:", len(shares) > 2 and shares == sorted(shares) and shares[-1] > 0.5)
        print("family:", browser.see("document.documentElement.dataset.family"))
        print("types:", browser.see("[...document.querySelectorAll('#types label')]"
                                    ".map((l) => l.textContent).join(', ')"))
        print("chosen:", browser.see("document.querySelector('#types input:checked')"
                                     ".parentElement.textContent"))
        print("functions:", browser.see("document.getElementById('rows').rows.length > 0"))
        if len(sys.argv) > 3:
            png = browser.ask("Page.captureScreenshot", format="png")["data"]
            with open(sys.argv[3], "wb") as file:
                file.write(base64.b64decode(png))
        browser.see("history.back()")
        browser.until("!!document.getElementById('work') && document.readyState === 'complete'")
        print("back:", browser.see("document.getElementById('work').hidden"))
    finally:
        browser.process.kill()
        browser.process.wait()


if __name__ == "__main__":
    main()
