"""What the scripts that start gateways share: which binary, processes and what they say, a config, a load.

Each of them takes FIRSTBYTE_BIN as the binary; without it, it builds one and takes that. It runs on both
drivers unless one is named, and ends with 1 if what it shows does not hold.
"""

import argparse
import collections
import errno
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PATIENCE = 60.0
DRIVERS = ["io_uring", "epoll"]
CHAT = "/v1/chat/completions"


def binary(release=False):
    """FIRSTBYTE_BIN, or what is built for this."""
    if named := os.environ.get("FIRSTBYTE_BIN"):
        return named
    command = ["cargo", "build", "--locked", "--quiet", "--bin", "firstbyte"]
    subprocess.run(command + ["--release"] * release, cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str(target / ("release" if release else "debug") / "firstbyte")


def arguments(doc, *counts):
    """A command line with --driver and counts: name, default, what of."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=raw)
    parser.add_argument("--driver", choices=DRIVERS, help="without it: both")
    for name, default, what in counts:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what} ({default})")
    return parser


def asked(parser):
    """What was asked for, with the drivers."""
    found = parser.parse_args()
    found.drivers = [found.driver] if found.driver else DRIVERS
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_true(look, what, patience=PATIENCE):
    """Looks until there is something to see."""
    end = time.monotonic() + patience
    while not (seen := look()):
        if time.monotonic() > end:
            sys.exit(f"in vain waited for {what}")
        time.sleep(0.005)
    return seen


def fetch(port, path, method="GET"):
    """Status and text of an answer on the admin listener."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


class Process:
    """A process, and what it writes, line by line."""

    def __init__(self, command, **more):
        self.lines = []
        self.grew = threading.Condition()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.grew:
                self.lines.append(line)
                self.grew.notify_all()
        with self.grew:
            self.lines.append("")
            self.grew.notify_all()

    def wait_for(self, text, times=1):
        """Waits until so many lines say it."""
        until = time.monotonic() + PATIENCE
        with self.grew:
            while sum(text in line for line in self.lines) < times:
                if "" in self.lines or not self.grew.wait(until - time.monotonic()):
                    sys.exit(f"no {text!r} in:\n{''.join(self.lines)}")

    def said(self, text):
        """How many lines say it."""
        with self.grew:
            return sum(text in line for line in self.lines)

    def cpu(self):
        """Seconds of CPU time that it has had."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waited(self):
        """Seconds that its event loops were ready to run and had no core."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                if (task / "comm").read_text().startswith("core-"):
                    total += int((task / "schedstat").read_text().split()[1])
            except FileNotFoundError:
                # A thread of another kind that has ended meanwhile.
                pass
        return total / 1e9

    def resident(self):
        """KiB of memory that are resident."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))

    def descriptors(self):
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """Its exit code after SIGTERM."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(PATIENCE)


class Sandbox(Process):
    """Sandbox providers a, b, ..; `urls` by their names."""

    def __init__(self, program, providers=1, before=()):
        command = [*before, program, "sandbox", "--listen", "127.0.0.1:0", "--providers", str(providers)]
        super().__init__(command)
        self.wait_for("provider ", providers)
        told = [line.split() for line in self.lines if line.startswith("provider ")]
        self.urls = {line[1]: line[3] for line in told}


def write_config(path, driver, port, admin, urls, models, server="", more=""):
    """A config whose providers speak as OpenAI does, and whose models have these targets."""
    text = f"""[server]
listen = ["127.0.0.1:{port}"]
admin = "127.0.0.1:{admin}"
driver = "{driver}"
{server}
[log]
ledger = "off"
{more}
"""
    for name, url in urls.items():
        text += f'[providers.{name}]\nkind = "openai"\nbase_url = "{url}"\n'
    for name, targets in models.items():
        text += f"[models.{name}]\ntargets = {json.dumps(targets)}\n"
    # In one step: a reload never reads half a file.
    whole = path.with_suffix(".new")
    whole.write_text(text)
    whole.rename(path)


def body(model, stream):
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}


class Load:
    """Clients that ask without a pause and note how each request came out. Half of them keep their
    connection for as long as the gateway does, half open one for each request; half of the requests
    are streamed. An answer counts if it is whole and `judge`, given its fields, complains of nothing."""

    def __init__(self, port, count, model="m", judge=lambda fields: None):
        self.port, self.model, self.judge = port, model, judge
        self.stopping = threading.Event()
        self.results = collections.Counter()
        self.lock = threading.Lock()
        self.threads = [
            threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        keep, turn, connection = number % 2 == 0, number, None
        while not self.stopping.is_set():
            turn += 1
            result, connection = self.ask(connection, keep, turn % 4 < 2)
            with self.lock:
                self.results[result] += 1
            if result == "refused":
                time.sleep(0.002)

    def ask(self, connection, keep, stream):
        fields = {"content-type": "application/json"}
        if not keep:
            fields["connection"] = "close"
        fresh = connection is None
        try:
            if fresh:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                connection.connect()
        except OSError as error:
            refused = error.errno == errno.ECONNREFUSED
            return ("refused" if refused else f"connect: {error!r}"), None
        try:
            connection.request("POST", CHAT, json.dumps(body(self.model, stream)), fields)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return f"{'fresh' if fresh else 'kept'}: {error!r}", None
        whole = text.endswith("data: [DONE]\n\n") if stream else "choices" in text
        if answer.status != 200 or not whole:
            connection.close()
            return f"status {answer.status}: {text[-120:]!r}", None
        if complaint := self.judge(answer.headers):
            connection.close()
            return complaint, None
        if answer.will_close:
            connection.close()
            connection = None
        return "ok", connection

    def count(self):
        with self.lock:
            return sum(self.results.values())

    def wait_for_more(self, more):
        wanted = self.count() + more
        until_true(lambda: self.count() >= wanted, f"more of the load: {dict(self.results)}")

    def end(self):
        """How the requests came out, once all are over."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE)
        return self.results


def told(results, most=5):
    """Prints what came out otherwise than well."""
    for what, count in results.most_common(most):
        print(f"    {count} x {what}")
