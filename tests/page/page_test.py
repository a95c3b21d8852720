# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""The status page in a real browser (Debian's chromium, driven by playwright), of a real server under
load. Run it by `./dev page`, which installs both.

MILLRACE_PAGE_PICTURES names the folder for the pictures (default: build/page).
"""

import contextlib
import os
import pathlib
import re
import statistics
import threading
import time
import urllib.request

import client
import pytest
from playwright.sync_api import sync_playwright
from server_process import PATIENCE, ROOT, Entry, Server

CHROMIUM = os.environ.get("MILLRACE_CHROMIUM", "/usr/bin/chromium")
PICTURES = pathlib.Path(os.environ.get("MILLRACE_PAGE_PICTURES", ROOT / "build" / "page"))
VIEWERS = 10
MILLISECONDS = PATIENCE * 1000


class Load:
    """Some streams of one model, each with a few requests on their way, until the block ends."""

    def __init__(self, server, streams=3):
        self._server, self._streams = server, streams
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,))
                         for number in range(streams)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number):
        stream = client.Stream(self._server.stub, millrace_stream_name=f"camera-{number}")
        stream.send(*(client.numbered("identity", index) for index in range(4)))
        while not self._ended.wait(0.01):
            stream.answer()
            stream.send(client.numbered("identity", 4))
        stream.rest()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, ["identity", Entry("two_in_two_out", replicas=1)]) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that containers don't give; it opens our page only.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, server, width=1280, height=900, scheme="light"):
    """The page once it shows the models; in the end nothing may have been said on the console or
    been refused by the policy, and nothing been asked of another server."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script("window.refused = []; document.addEventListener('securitypolicyviolation',"
                         "event => window.refused.push(event.violatedDirective))")
    page.goto(f"http://{server.http}/")
    page.wait_for_selector("section.card[data-name=identity]", timeout=MILLISECONDS)
    try:
        yield page
        assert page.evaluate("window.refused") == []
        assert said == []
        assert all(url.startswith((f"http://{server.http}/", "data:")) for url in asked), asked
    finally:
        context.close()


def figure(page, label):
    text = page.text_content(f"section.card[data-name=identity] .figures > div:has-text('{label}') .value")
    found = re.match(r"[\d.]+", text)
    return float(found[0]) if found else 0


def test_numbers_move_under_load(server, browser):
    with opened(browser, server) as page:
        assert page.text_content("#ready") == "ready"
        assert figure(page, "requests/s") == 0
        with Load(server):
            page.wait_for_function("document.querySelector('section.card[data-name=identity] "
                                   ".figures .value').textContent.match(/^[1-9]/)",
                                   timeout=MILLISECONDS)
            page.wait_for_selector(".size i", timeout=MILLISECONDS)
            page.wait_for_selector("#streams tr:has-text('camera-2')", timeout=MILLISECONDS)
            assert figure(page, "p50") > 0
            time.sleep(12)  # For the pictures.
            picture(page, "status-page.png")
    with opened(browser, server, width=390, height=844, scheme="dark") as page, Load(server):
        time.sleep(12)
        picture(page, "status-page-phone.png")


def picture(page, name):
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / name)


def test_killed_replica_shows_with_its_cause(server, browser):
    with opened(browser, server) as page:
        server.signal_worker(server.replicas_by_model()[0][0])
        page.wait_for_selector("#restarts tr:has-text('signal 9')", timeout=MILLISECONDS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_fits_any_width_in_both_schemes(server, browser, width, scheme):
    with opened(browser, server, width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground, ink = (sum(map(int, re.findall(r"\d+", page.evaluate(
            f"getComputedStyle(document.body).{each}"))[:3])) for each in ("backgroundColor", "color"))
        assert (ground > ink) == (scheme == "light")


def test_page_says_that_its_server_is_gone(browser, tmp_path):
    with Server(tmp_path, ["identity"]) as other:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://{other.http}/")
        page.wait_for_selector("#link:has-text('live')", timeout=MILLISECONDS)
        other.stop()
        page.wait_for_selector("#link:has-text('not connected')", timeout=MILLISECONDS)
        context.close()


class Viewer:
    """Takes events as a browser does."""

    def __init__(self, server):
        self._answer = urllib.request.urlopen(f"http://{server.http}/events", timeout=PATIENCE)
        self.events = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for line in self._answer:
                self.events += line.startswith(b"data: ")

    def close(self):
        with contextlib.suppress(OSError):
            self._answer.fp.raw._sock.shutdown(2)
        self._thread.join()
        self._answer.close()


def cpu_seconds(server):
    stat = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def core_used(server, seconds=5):
    began, before = time.monotonic(), cpu_seconds(server)
    time.sleep(seconds)
    return (cpu_seconds(server) - before) / (time.monotonic() - began)


def test_ten_viewers_cost_little(server):
    """The server's CPU without and with viewers, in turns; idle, so that nothing else is in it."""
    without, watched = [], []
    for _ in range(6):
        without.append(core_used(server))
        viewers = [Viewer(server) for _ in range(VIEWERS)]
        watched.append(core_used(server))
        for viewer in viewers:
            viewer.close()
        assert all(viewer.events >= 3 for viewer in viewers)
    cost = statistics.median(watched) - statistics.median(without)
    print(f"\nthe server's CPU, in percent of a core: {100 * statistics.median(without):.2f} without "
          f"viewers, {100 * statistics.median(watched):.2f} with {VIEWERS}: they cost {100 * cost:.2f}")
    assert cost < 0.02
