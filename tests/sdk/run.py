"""Runs the SDK suites against a gateway on each driver, before sandbox providers and one of claude.py.

Starts `firstbyte sandbox` and four gateways (one open, one with a key, one before the open one, one with
a provider of every kind) on free loopback ports, runs the suites as their own processes, and ends what
it started by its process id. The last line is "N passed, N failed", with ", N skipped" where this
machine refuses a driver. What is recorded is read once, by no gateway.
"""

import argparse
import concurrent.futures
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

import claude
import kinds

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 30.0
KEY = "sk-firstbyte-sdk-tests"
WORDS = "ok,text=one two three four five"

# A primary that fails before any content, in each way; then a second provider that answers.
FALLBACKS = {
    "fall-503": "503",
    "fall-500": "500",
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

# What is silent is given up soon, and nothing else is: a slow machine must not look like a failure.
HASTE = {
    "head_timeout": "500ms",
    "first_content_timeout": "500ms",
    "idle_timeout": "500ms",
    "answer_timeout": "500ms",
}
# Waits longer than the client does: what ends it is the client.
LEISURE = {"head_timeout": "60s", "first_content_timeout": "60s"}

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


def a(script):
    """A target at the first provider."""
    haste = HASTE if "hang" in script.split(",") else {}
    return {"target": f"a/{script}", **haste}


def models():
    """The config's models: a name that the suites ask for, and its targets in order."""
    then = f"b/{WORDS}"
    rows = {
        "ok": ["a/ok"],
        "words": [f"a/{WORDS}"],
        "tools": ["a/tools=2"],
        "either": [f"a/{WORDS}", then],
        "slow": ["a/tokens=2000,delay=20ms"],
        "late": [{"target": "a/hang", **LEISURE}, then],
        "dead": ["a/503", "b/reset"],
        "silent": [a("hang"), a("hang,at=head")],
        # Targets of their own: a cool-down belongs to the target, and each suite wants to see it begin.
        "cooled-python": ["a/429,retry_after=60s", then],
        "cooled-node": ["a/429,retry_after=61s", then],
        "limited": ["a/429,retry_after=2s"],
        "fault-400": ["a/400", then],
        "fault-context": ["a/context_length"],
        "fault-policy": ["a/content_policy", then],
        "fall-refused": ["closed/ok", then],
        "cut-plain": ["a/framing=length,cut_byte=400", then],
        "cut-late": ["a/tokens=9,delay=10ms,cut_event=5", then],
        "thinks": [f"a/reasoning,{WORDS}"],
        "limited-anthropic": ["a/429,retry_after=3s"],
        "claude-then-words": ["claude/claude-overloaded", then],
        "503-then-claude": ["a/503", "claude/claude-text"],
    }
    for name in ("text", "tools", "beta", "400", "cut", "overloaded-late"):
        rows[f"claude-{name}"] = [f"claude/claude-{name}"]
    rows.update({name: [a(script), then] for name, script in FALLBACKS.items()})
    rows.update({name: [a(script), then] for name, (script, _) in CUTS.items()})
    return rows


def toml(value):
    """A string, list or table as TOML. JSON strings are TOML strings."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def config(driver, providers, ledger, keyed, through=None):
    """The gateway's config; before the gateway at `through`, if that is given."""
    lines = head(driver, ledger, keyed)
    for name, url in providers.items():
        kind = "anthropic" if name == "claude" else "openai"
        lines += [f"[providers.{name}]", f"kind = {toml(kind)}", f"base_url = {toml(url)}"]
        if name == "claude":
            lines.append('key = "env:FIRSTBYTE_SDK_CLAUDE"')
    if through:
        lines += ["[providers.through]", 'kind = "openai-responses"', f"base_url = {toml(through)}"]
    for name, targets in models().items():
        if through:
            targets = [f"through/{name}"]
        lines += [f"[models.{toml(name)}]", f"targets = {toml(targets)}"]
    return "\n".join(lines) + "\n"


def head(driver, ledger, keyed):
    """What every config begins with."""
    lines = [
        "[server]",
        'listen = ["127.0.0.1:0"]\nadmin = "127.0.0.1:0"',
        f"cores = 1\ndriver = {toml(driver)}",
        "[defaults]",
        'connect_timeout = "10s"\nbreaker = "off"',
        'retry_budget = { ratio = 1.0, floor = 1000, window = "10s" }',
        "[log]",
        f"ledger = {toml(f'file:{ledger}')}",
    ]
    if keyed:
        lines += ["[auth]", 'keys = [{ name = "sdk", key = "env:FIRSTBYTE_SDK_KEY" }]']
    return lines


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


def every_kind(args, driver, processes, sandbox, folder):
    """Starts a gateway with a provider of every kind; what the suites must know of it."""
    places = kinds.places(args.bin, folder)
    origins = [url.removesuffix("/v1") for url in sandbox]
    path = folder / "every.toml"
    lines = head(driver, folder / "every.jsonl", True)
    path.write_text("\n".join([*lines, *kinds.sections(places, origins, folder)]) + "\n")
    env = {"FIRSTBYTE_SDK_KEY": KEY, "FIRSTBYTE_SDK_CLOUD": "of-a-vendor"}
    gateway = processes.start("every", [args.bin, "serve", "-c", str(path)], env)
    found = wait_for(r"listening on (http://\S+/v1)\n", "every", processes, gateway)
    if found is None:
        raise SystemExit(f"the gateway ended:\n{processes.log('every')}")
    return {
        "SDK_EVERY": found[0],
        "SDK_KINDS": json.dumps(kinds.told(places)),
        "SDK_DRIVER": driver,
    }


def wait_for(pattern, name, processes, process):
    """What the process says of itself, once it has; None if it ended first."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended = process.poll() is not None
        found = re.findall(pattern, processes.log(name))
        if found:
            return found
        if ended:
            return None
        time.sleep(0.02)
    raise SystemExit(f"{name} did not come up within {PATIENCE:.0f} s:\n{processes.log(name)}")


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
    for line in re.findall(r"^(?:SKIPPED|not read): .*$", said, re.M):
        print(f"  {name}: {line}")
    if failed or not passed and "SKIPPED" not in said:
        print(said)
    print(f"  {name}: {passed} passed, {failed} failed", flush=True)
    return passed, failed


def run_driver(args, driver, folder):
    """Both suites against one driver. None: this machine refuses it."""
    ledger = folder / "ledger.jsonl"
    processes = Processes(folder)
    # Bound and not listening: connections to it are refused for as long as it is held.
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    claude_url, claude_server = claude.start()
    try:
        command = [args.bin, "sandbox", "--listen", "127.0.0.1:0", "--providers", "2"]
        sandbox = processes.start("sandbox", command)
        both = r"provider a on (http://\S+)\n(?:.*\n)*?.*provider b on (http://\S+)\n"
        found = wait_for(both, "sandbox", processes, sandbox)
        if found is None:
            raise SystemExit(f"the sandbox ended:\n{processes.log('sandbox')}")
        first, second = found[0]
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        providers = {"a": first, "b": second, "closed": dead, "claude": claude_url}
        urls = {}
        for name in ("open", "keyed", "through"):
            path = folder / f"{name}.toml"
            before = urls["open"] if name == "through" else None
            path.write_text(config(driver, providers, ledger, name == "keyed", before))
            env = {"FIRSTBYTE_SDK_KEY": KEY, "FIRSTBYTE_SDK_CLAUDE": claude.KEY}
            gateway = processes.start(name, [args.bin, "serve", "-c", str(path)], env)
            found = wait_for(r"listening on (http://\S+/v1)\n", name, processes, gateway)
            if found is None:
                if driver == "io_uring" and not io_uring_works():
                    print(f"  {driver}: refused by this machine")
                    return None
                raise SystemExit(f"the gateway ended:\n{processes.log(name)}")
            urls[name] = found[0]
        env = {
            "SDK_OPEN": urls["open"],
            "SDK_KEYED": urls["keyed"],
            "SDK_THROUGH": urls["through"],
            "SDK_KEY": KEY,
            "SDK_LEDGER": str(ledger),
            "SDK_FALLBACKS": json.dumps([*FALLBACKS, "fall-refused"]),
            "SDK_CUTS": json.dumps({name: code for name, (_, code) in CUTS.items()}),
            "SDK_NODE": args.node,
            **every_kind(args, driver, processes, (first, second), folder),
        }
        suites = [
            ("python", [args.python, str(HERE / "suite.py")]),
            ("python, responses", [args.python, str(HERE / "responses_suite.py")]),
            ("node", ["node", "--test", "--test-reporter=tap", str(HERE / "suite.mjs")]),
            ("python, anthropic", [args.python, str(HERE / "anthropic_suite.py")]),
            (
                "node, anthropic",
                ["node", "--test", "--test-reporter=tap", str(HERE / "anthropic_suite.mjs")],
            ),
            ("python, every kind", [args.python, str(HERE / "kinds_suite.py")]),
            (
                "node, every kind",
                ["node", "--test", "--test-reporter=tap", str(HERE / "kinds_suite.mjs")],
            ),
        ]
        suites = [suite for suite in suites if not args.only or suite[0] in args.only]
        run = lambda suite: run_suite(f"{driver}, {suite[0]}", suite[1], env)
        # Those of every kind have a gateway of their own, and can go side by side.
        alone = [suite for suite in suites if "every kind" not in suite[0]]
        counts = [run(suite) for suite in alone]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            counts += pool.map(run, [suite for suite in suites if suite not in alone])
        if any(failed for _, failed in counts):
            for name in ("open", "keyed", "through", "every", "sandbox"):
                print(f"---- {name} ----\n{processes.log(name)[-4000:]}")
        return tuple(map(sum, zip(*counts))) or (0, 0)
    finally:
        processes.stop()
        claude_server.shutdown()
        closed.close()


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
    parser.add_argument("--python", required=True, help="a python with openai and anthropic")
    parser.add_argument("--node", required=True, help="a folder with the packages of node")
    parser.add_argument("--driver", action="append", choices=["io_uring", "epoll"])
    parser.add_argument("--only", action="append", metavar="SUITE", help="a suite, by its name")
    args = parser.parse_args()
    # The suites run elsewhere. Not resolved: a venv's python is a link that knows where it lies.
    args.bin, args.python, args.node = map(os.path.abspath, (args.bin, args.python, args.node))
    passed = failed = skipped = 0
    # What `translate` says is the same on every driver.
    recorded = "python, recorded answers"
    if not args.only or recorded in args.only:
        command = [args.python, str(HERE / "recorded_suite.py")]
        passed, failed = run_suite(recorded, command, {"SDK_BIN": args.bin})
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
