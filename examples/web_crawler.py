"""A web crawler: `python examples/web_crawler.py [--address auto] [--pages 200]`.

One task fetches a page and returns its links; the driver keeps what was seen and submits what is new, as soon as any
page has come. The site is a small one that this program serves itself, so nothing but this machine is asked. Nodes of a
cluster ask it at the address by which this machine reaches them; if theirs is another, say so: `--host 10.0.0.5`.
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import threading
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import rabbitry

LINK = re.compile(r'href="(/page/\d+)"')


class Site(BaseHTTPRequestHandler):
    """Pages that link to their children in a binary tree, and to some others at random: all can be reached from 0."""

    pages = 0

    def do_GET(self) -> None:
        """Answer with one page."""
        number = int(self.path.rpartition("/")[2])
        at_random = random.Random(number)
        linked = [2 * number + 1, 2 * number + 2, *(at_random.randrange(self.pages) for _ in range(3))]
        links = "".join(f'<a href="/page/{each}">{each}</a>' for each in linked if each < self.pages)
        body = f"<h1>Page {number}</h1>{links}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@rabbitry.remote(num_cpus=0.25, retry_exceptions=[OSError], max_retries=3, retry_delay=0.1)
def fetch(url: str) -> list[str]:
    """Return the links of a page. It mostly waits for the network: four of these share a CPU."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return LINK.findall(response.read().decode())


def crawl(base: str) -> tuple[dict[str, int], Counter[str]]:
    """Return the depth at which each page was found, and how often each is linked to."""
    depths = {"/page/0": 0}
    linked: Counter[str] = Counter()
    under_way = {fetch.remote(base + "/page/0"): "/page/0"}
    while under_way:
        [ref], _ = rabbitry.wait(list(under_way), num_returns=1)
        path = under_way.pop(ref)
        for link in rabbitry.get(ref):
            linked[link] += 1
            if link not in depths:
                depths[link] = depths[path] + 1
                under_way[fetch.remote(base + link)] = link
    return depths, linked


def this_machine() -> str:
    """Return the address that this machine has where the nodes are. Nothing is sent: the kernel knows the way."""
    node = next(each["NodeManagerAddress"] for each in rabbitry.nodes() if each["Alive"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.connect((node, 9))
        return str(any_socket.getsockname()[0])


def main() -> None:
    """Serve the site, crawl it, and show how deep it is."""
    parser = argparse.ArgumentParser(description="A web crawler over a site that it serves itself.")
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    parser.add_argument("--pages", type=int, default=200, help="of the site")
    parser.add_argument("--host", help="this machine, as the nodes reach it (default: found out)")
    options = parser.parse_args()
    Site.pages = options.pages
    with rabbitry.init(options.address):
        host = options.host or (this_machine() if options.address else "127.0.0.1")
        with ThreadingHTTPServer((host, 0), Site) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            depths, linked = crawl(f"http://{host}:{server.server_port}")
            server.shutdown()

    print(f"{len(depths)} pages, {sum(linked.values())} links\n")
    print("clicks   pages")
    by_depth = Counter(depths.values())
    for depth, count in sorted(by_depth.items()):
        print(f"{depth:>6} {count:>7}  {'#' * max(1, round(40 * count / max(by_depth.values())))}")
    print("\nmost linked to:", ", ".join(f"{path} ({count})" for path, count in linked.most_common(3)))


if __name__ == "__main__":
    main()
