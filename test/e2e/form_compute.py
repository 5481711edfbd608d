#!/usr/bin/env python3
"""Clicks through the form of /profile in a real browser: what is computed from what, the choice of
the event, the recording and its graph.

form_compute.py URL PROFILE_DIR: prints "name: what the page showed" lines.
"""
import sys

from form_drive import RECORD, Browser

FIELD = "document.querySelector('[name=%s], #%s')"
CHANGE = ("(() => { const e = " + FIELD + "; e.value = '%s'; "
          "for (const t of ['input', 'change']) e.dispatchEvent(new Event(t, {bubbles: true})); "
          "return true; })()")


def main():
    browser = Browser(sys.argv[2])

    def change(name, value):
        browser.see(CHANGE % (name, name, value))
        return " ".join(browser.see((FIELD % (other, other)) + ".value")
                        for other in ("duration", "delay", "n"))

    try:
        browser.open(sys.argv[1])
        browser.until("document.readyState === 'complete' && !!document.getElementById('form')")
        print("title:", browser.see("document.title"))
        print("events:", browser.see("[...document.querySelectorAll('nav a')].map((a) => "
                                     "a.textContent + (a.ariaCurrent || "
                                     "a.getAttribute('aria-current') ? '*' : '')).join(', ')"))
        print("duration changed:", change("duration", "20"))
        print("delay changed:", change("delay", "0.002"))
        print("n changed:", change("n", "200000"))
        print("n beyond the delay's limits:", change("n", "400000"))
        print("a thousandth:", change("delay", "0.001"))
        change("duration", "0.5")
        print("command:", browser.see("document.getElementById('command').textContent"
                                      ".replace(/^.*[?]/, '?')"))
        browser.see("setTimeout(() => { " + RECORD + " }, 50)")
        browser.until("!!document.getElementById('crumbs') && document.readyState === 'complete'")
        # A window of a busy machine ends late.
        print("graph:", browser.see("document.title.replace(/^.*: /, '').replace(/[0-9.]+ s/, 'N s')"))
        browser.see("history.back()")
        browser.until("!!document.getElementById('work') && document.readyState === 'complete'")
        browser.see("document.querySelectorAll('nav a')[1].click()")
        browser.until("document.title === 'Wall clock profile' && "
                      "document.readyState === 'complete'")
        browser.see("document.querySelectorAll('nav a')[2].click()")
        browser.until("document.title === 'Allocation profile' && "
                      "document.readyState === 'complete'")
        print("allocations compute nothing:", browser.see("document.getElementById('n') === null"))
    finally:
        browser.process.kill()
        browser.process.wait()


if __name__ == "__main__":
    main()
