"""Runs both SDK suites against a gateway on each driver, before sandbox providers.

Starts `firstbyte sandbox` and two gateways (one open, one with a key) on free loopback ports, runs
suite.py and suite.mjs as their own processes, and ends what it started by its process id. The last
line is "N passed, N failed", with ", N skipped" where this machine refuses a driver.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 30.0
KEY = "sk-firstbyte-sdk-tests"
WORDS = "ok,text=one two three four five"

# A primary that fails before any content, in each way; then a second provider that answers.
FALLBACKS = {
    "fall-503": "503",
    "fall-500": "500",
    "fall-429": "429",
    "fall-401": "401",
    "fall-404": "404",
    "fall-html": "html_502",
    "fall-redirect": "redirect",
    "fall-reset": "reset",
    "fall-reset-head": "reset,at=head",
    "fall-hang": "hang",
    "fall-hang-head": "hang,at=head",
    "fall-error-first": "error_first",
    "fall-empty": "empty",
    "fall-garbage": "garbage",
    "fall-two-lengths": "two_lengths",
    "fall-cut": "cut_byte=20",
}

# A provider that fails after content: what the script is, and the code that the client gets.
CUTS = {
    "cut-fin": ("tokens=9,delay=10ms,cut_event=5", "stream_interrupted"),
    "cut-rst": ("tokens=9,delay=20ms,cut_event=5,how=rst", "stream_interrupted"),
    "cut-stall": ("tokens=9,hang,event=5", "stream_timeout"),
    "cut-error": ("tokens=9,delay=10ms,error_at=5", "stream_interrupted"),
    "cut-malformed": ("tokens=9,delay=10ms,malformed_at=5", "stream_interrupted"),
    "cut-chunk": ("tokens=9,delay=10ms,bad_chunk_at=5", "stream_interrupted"),
    "cut-giant": ("tokens=9,delay=10ms,giant_at=5,size=9MiB", "stream_interrupted"),
    "cut-no-finish": ("tokens=9,no_finish", "stream_interrupted"),
}


def models():
    """The config's models: a name that the suites ask for, and its targets in order."""
    rows = {
        "ok": ["a/ok"],
        "words": [f"a/{WORDS}"],
        "tools": ["a/tools=2"],
        "either": [f"a/{WORDS}", f"b/{WORDS}"],
        "slow": ["a/tokens=2000,delay=20ms"],
        "dead": ["a/503", "b/reset"],
        "silent": ["a/hang", "b/hang,at=head"],
        "limited": ["a/429,retry_after=2s"],
        "fault-400": ["a/400", f"b/{WORDS}"],
        "fault-context": ["a/context_length"],
        "fault-policy": ["a/content_policy", f"b/{WORDS}"],
        "fall-refused": ["closed/ok", f"b/{WORDS}"],
        "cut-plain": ["a/framing=length,cut_byte=400", f"b/{WORDS}"],
        "cut-late": ["a/tokens=9,delay=10ms,cut_event=5", f"b/{WORDS}"],
    }
    rows.update({name: [f"a/{script}", f"b/{WORDS}"] for name, script in FALLBACKS.items()})
    rows.update({name: [f"a/{script}", f"b/{WORDS}"] for name, (script, _) in CUTS.items()})
    return rows


def config(driver, ports, ledger, keyed):
    """The gateway's config as TOML. JSON strings are TOML strings."""
    text = json.dumps
    lines = [
        "[server]",
        f"listen = [{text(f'127.0.0.1:{ports[0]}')}]",
        f"admin = {text(f'127.0.0.1:{ports[1]}')}",
        f"cores = 1\ndriver = {text(driver)}",
        "[defaults]",
        'connect_timeout = "5s"\nhead_timeout = "1s"\nfirst_content_timeout = "1s"',
        'idle_timeout = "1s"\nanswer_timeout = "1s"\nbreaker = "off"',
        'retry_budget = { ratio = 1.0, floor = 1000, window = "10s" }',
        "[log]",
        f"ledger = {text(f'file:{ledger}')}",
    ]
    if keyed:
        lines += ["[auth]", 'keys = [{ name = "sdk", key = "env:FIRSTBYTE_SDK_KEY" }]']
    for name, port in (("a", ports[2]), ("b", ports[2]), ("closed", ports[3])):
        lines += [f"[providers.{name}]", 'kind = "openai"']
        lines += [f"base_url = {text(f'http://127.0.0.1:{port}/v1')}"]
    for name, targets in models().items():
        lines += [f"[models.{text(name)}]", f"targets = {text(targets)}"]
    # Waits longer than the client does: what ends it is the client.
    late = '{ target = "a/hang", head_timeout = "60s", first_content_timeout = "60s" }'
    lines += ["[models.late]", f"targets = [{late}, {text(f'b/{WORDS}')}]"]
    return "\n".join(lines) + "\n"


def free_ports(count):
    """Ports that nobody listens on now. Held together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Processes:
    """What was started, and is ended by its id."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def start(self, name, command, env=None):
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}
        )
        self.running.append((name, process))
        return process

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self):
        for _, process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for _, process in self.running:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=2).close()
        return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def wait_for(url, process):
    """Until the URL answers; False if the process ended first."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if answers(url):
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    raise SystemExit(f"{url} did not answer within {PATIENCE:.0f} s")


def run_suite(name, command, env):
    """Runs one suite; its counts by its last lines."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **env},
        timeout=600,
    )
    said = done.stdout.decode(errors="replace")
    python = re.findall(r"^(\d+) passed, (\d+) failed$", said, re.M)
    node = [re.findall(rf"^# {word} (\d+)$", said, re.M) for word in ("pass", "fail")]
    if python:
        passed, failed = map(int, python[-1])
    elif all(node):
        passed, failed = (int(found[-1]) for found in node)
    else:
        passed, failed = 0, 1
    if done.returncode != 0:
        failed = max(failed, 1)
    if failed or not passed:
        print(said)
    print(f"  {name}: {passed} passed, {failed} failed", flush=True)
    return passed, failed


def run_driver(args, driver, folder):
    """Both suites against one driver. None: this machine refuses it."""
    ports = free_ports(6)
    ledger = folder / "ledger.jsonl"
    processes = Processes(folder)
    try:
        sandbox = processes.start("sandbox", [args.bin, "sandbox", "--listen", f"127.0.0.1:{ports[4]}"])
        if not wait_for(f"http://127.0.0.1:{ports[4]}/v1/models", sandbox):
            raise SystemExit(f"the sandbox ended:\n{processes.log('sandbox')}")
        urls = {}
        for name, keyed, mine in (("open", False, ports[:2]), ("keyed", True, [ports[5], 0])):
            admin = mine[1] or free_ports(1)[0]
            path = folder / f"{name}.toml"
            path.write_text(config(driver, [mine[0], admin, ports[4], ports[3]], ledger, keyed))
            env = {"FIRSTBYTE_SDK_KEY": KEY}
            gateway = processes.start(name, [args.bin, "serve", "-c", str(path)], env)
            if not wait_for(f"http://127.0.0.1:{admin}/readyz", gateway):
                said = processes.log(name)
                if driver == "io_uring" and not io_uring_works():
                    print(f"  {driver}: refused by this machine")
                    return None
                raise SystemExit(f"the gateway ended:\n{said}")
            urls[name] = f"http://127.0.0.1:{mine[0]}/v1"
        env = {
            "SDK_OPEN": urls["open"],
            "SDK_KEYED": urls["keyed"],
            "SDK_KEY": KEY,
            "SDK_LEDGER": str(ledger),
            "SDK_FALLBACKS": json.dumps([*FALLBACKS, "fall-refused"]),
            "SDK_CUTS": json.dumps({name: code for name, (_, code) in CUTS.items()}),
            "SDK_NODE": str(args.node),
        }
        suites = [
            ("python", [str(args.python), str(HERE / "suite.py")]),
            ("node", ["node", "--test", "--test-reporter=tap", str(HERE / "suite.mjs")]),
        ]
        counts = [run_suite(f"{driver}, {name}", command, env) for name, command in suites]
        if any(failed for _, failed in counts):
            for name in ("open", "keyed", "sandbox"):
                print(f"---- {name} ----\n{processes.log(name)[-4000:]}")
        return tuple(map(sum, zip(*counts)))
    finally:
        processes.stop()


def io_uring_works():
    """Asks the kernel for the smallest ring: io_uring_setup(1, params)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(425, 1, ctypes.byref((ctypes.c_char * 120)()))
    if ring >= 0:
        os.close(ring)
    return ring >= 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, help="the firstbyte binary")
    parser.add_argument("--python", required=True, type=pathlib.Path, help="a python with openai")
    parser.add_argument("--node", required=True, type=pathlib.Path, help="a folder with node's openai")
    parser.add_argument("--driver", action="append", choices=["io_uring", "epoll"])
    args = parser.parse_args()
    passed = failed = skipped = 0
    for driver in args.driver or ["io_uring", "epoll"]:
        with tempfile.TemporaryDirectory(prefix="firstbyte-sdk-") as folder:
            counts = run_driver(args, driver, pathlib.Path(folder))
        if counts is None:
            skipped += 1
        else:
            passed, failed = passed + counts[0], failed + counts[1]
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
