#!/usr/bin/env python3
"""Runs every scenario against every relay in interleaved rounds, and writes what was measured as JSON. Called by bench/run."""
import argparse
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from account import Group

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = f"{HERE}/target/release/postern-bench"
# name, sessions, messages, octets, more options of `postern-bench round`
SCENARIOS = [
    ("1-session", 1, 1000, 10240, []),
    ("10-sessions", 10, 3000, 10240, []),
    ("50-sessions", 50, 5000, 10240, []),
    ("200-sessions", 200, 5000, 10240, []),
    ("one-each", 50, 2000, 10240, ["--one-each"]),
    ("starttls", 50, 3000, 10240, ["tls"]),
    ("5MB", 10, 50, 5_000_000, []),
]
# Relays that take a second for what Postern does in the tenth of one get fewer messages.
SHARE = {"chasquid": 0.4, "exim": 0.2, "haraka": 0.3, "opensmtpd": 0.4, "postfix": 0.6}
# Round trips of the network part, in milliseconds, and the most connections that Postern opens where nothing is said.
RTTS, MOST = (20, 50, 150), 20
# As many from Postfix as from Postern, so that the beginning weighs the same in both; OpenSMTPD as it comes sends ten a second.
NETWORK_SHARE = dict(SHARE, postfix=1, opensmtpd=0.2)
# It holds ten times the size of a message for each session: 50 × 35 MiB took 8.5 GB.
SPARED = {("chasquid", "50 × 35 MiB")}


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Relay:
    """One start of one peer, in a folder and a control group of its own."""

    def __init__(self, args, name, tls=False, to=None, **env):
        """`to`: the port that it sends to, in place of one that is free; `env`: what its script is told besides."""
        self.name, self.script = name, f"{HERE}/peers/{name}.sh"
        self.dir = tempfile.mkdtemp(dir=args.work, prefix=name)
        os.chmod(self.dir, 0o755)
        self.port, self.sink = free_port(), to or free_port()
        self.env = dict(os.environ, CERTS=args.certs, **env)
        if tls:
            self.env.update(TLS_IN="1", TLS_OUT="1")
        self.args = args
        self.start()

    def start(self):
        self.group = Group(os.path.basename(self.dir))
        begun = time.monotonic()
        out = open(f"{self.dir}/start", "ab")
        subprocess.run(
            [self.script, "start", self.args.cache, self.dir, str(self.port), str(self.sink)],
            env=self.env, preexec_fn=self.group.enter, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=True, timeout=60,
        )
        while time.monotonic() < begun + 60:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                self.listening = time.monotonic() - begun
                return
            except OSError:
                time.sleep(0.005)
        self.end()
        raise RuntimeError(f"{self.name} does not listen")

    def end(self):
        subprocess.run([self.script, "stop", self.dir], env=self.env, timeout=60, check=False)
        self.group.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Pipe:
    """A line over a distance to a port of this machine; `said`, when it has ended: the connections that it saw."""

    def __init__(self, to, rtt_ms, connections=None):
        limit = ["--connections", str(connections)] if connections else []
        self.process = subprocess.Popen([BENCH, "delay", "--to", f"127.0.0.1:{to}", "--rtt", f"{rtt_ms}ms", *limit],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])
        self.said = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.said.update(json.loads(self.process.stdout.readline() or "{}"))
        self.process.wait(60)


def bench(*arguments):
    done = subprocess.run([BENCH, *map(str, arguments)], stdout=subprocess.PIPE, check=True, timeout=1200)
    return json.loads(done.stdout)


def settle(relay):
    """Waits until the relay has nothing left to do, so that its processor time is whole."""
    before = relay.group.cpu()
    for _ in range(40):
        time.sleep(0.25)
        now = relay.group.cpu()
        if now - before < 0.005:
            return
        before = now


def throughput(args, peer, scenario):
    name, sessions, messages, size, more = scenario
    tls = "tls" in more
    options = [o for o in more if o != "tls"]
    common = ["--sessions", sessions, "--messages", messages, "--size", size, *options]
    if peer == "disk":
        return bench("disk", "--dir", args.work, "--producers", sessions, "--messages", messages, "--size", size)
    if tls:
        common += ["--tls-in", "--tls-out", args.certs]
    if peer == "direct":
        at = f"127.0.0.1:{free_port()}"
        return bench("round", "--target", at, "--sink", at, *common)
    common[3] = max(int(messages * SHARE.get(peer, 1)), sessions)
    with Relay(args, peer, tls) as relay:
        time.sleep(0.5)
        before = relay.group.cpu()
        found = bench("round", "--target", f"127.0.0.1:{relay.port}", "--sink", f"127.0.0.1:{relay.sink}", *common)
        settle(relay)
        found["cpu_per_1000"] = (relay.group.cpu() - before) * 1000 / max(found["accepted"], 1)
        return found


class Watch(threading.Thread):
    """Looks at the memory five times a second; a relay that never had but one process has an exact peak besides."""

    def __init__(self, group):
        super().__init__(daemon=True)
        self.alone = True
        self.group, self.over, self.most = group, threading.Event(), {"rss": 0, "pss": 0}

    def run(self):
        while not self.over.wait(0.2):
            self.alone &= len(self.group.pids()) == 1
            now = self.group.memory()
            self.most = {key: max(self.most[key], now[key]) for key in now}

    def end(self):
        self.over.set()
        self.join()
        exact = self.group.peak() if self.alone else None
        if exact is not None:
            self.most = {"rss": exact, "pss": max(exact, self.most["pss"])}
        return self.most


def memory(args, peer):
    """Idle, with 1,000 connections that do nothing, and the peak of three loads, each on a relay just started."""
    found = {}
    with Relay(args, peer) as relay:
        time.sleep(2)
        found["idle"] = relay.group.memory()
        hold = subprocess.Popen([BENCH, "hold", "--target", f"127.0.0.1:{relay.port}", "--connections", "1000"],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stand = hold.stdout.readline().strip()
        time.sleep(1)
        found["1000 connections"] = relay.group.memory() if stand == "1000" else None
        hold.stdin.close()
        hold.wait(60)
    loads = [("50 sessions", 50, 3000, 10240), ("10 × 5 MB", 10, 50, 5_000_000), ("50 × 35 MiB", 50, 50, 35 << 20)]
    for name, sessions, messages, size in loads:
        if (peer, name) in SPARED:
            continue
        with Relay(args, peer) as relay:
            watch = Watch(relay.group)
            watch.start()
            messages = max(int(messages * SHARE.get(peer, 1)), sessions)
            got = bench("round", "--target", f"127.0.0.1:{relay.port}", "--sink", f"127.0.0.1:{relay.sink}",
                        "--sessions", sessions, "--messages", messages, "--size", size)
            found[name] = dict(watch.end(), lost=got["lost"], faults=got["faults"])
    return found


def over_network(args, peer, rtt_ms, messages, takes=None, most=None):
    """10 KB each from 10 sessions, through a relay as it comes (Postern with `most` connections, if given) to a sink so far away, which
    takes no more than `takes` connections at once."""
    sink = free_port()
    limit = {"MAX_CONNECTIONS": str(most)} if most else {}
    with Pipe(sink, rtt_ms, takes) as pipe, Relay(args, peer, to=pipe.port, STOCK="1", **limit) as relay:
        time.sleep(0.5)
        found = bench("round", "--target", f"127.0.0.1:{relay.port}", "--sink", f"127.0.0.1:{sink}",
                      "--sessions", 10, "--messages", messages, "--size", 10240)
        if peer == "postern":
            with open(f"{relay.dir}/out", errors="replace") as log:
                lines = [line.strip() for line in log]
            found["closed"] = sum("connector paused" in line for line in lines)
            found["learned"] = [line for line in lines if "connector learned" in line]
    return dict(found, rtt_ms=rtt_ms, messages=messages, pipe=pipe.said, load=os.getloadavg()[0])


def waiting(args):
    """The peak of Postern while 40 messages of 35 MiB come in, wait for connections to an upstream two seconds away, and leave."""
    sink = free_port()
    with Pipe(sink, 2000) as pipe, Relay(args, "postern", to=pipe.port, STOCK="1") as relay:
        time.sleep(2)
        idle = relay.group.memory()
        watch = Watch(relay.group)
        watch.start()
        found = bench("round", "--target", f"127.0.0.1:{relay.port}", "--sink", f"127.0.0.1:{sink}",
                      "--sessions", 10, "--messages", 40, "--size", 35 << 20, "--quiet", 60)
        return {"idle": idle, "peak": watch.end(), "lost": found["lost"], "faults": found["faults"]}


def network(args, peers, messages, note):
    """Every relay as it comes at three distances; Postern with one connection, with two, and before an upstream that takes two; its
    memory. `note(kind, peer, found)` hears each."""
    for rtt_ms in RTTS:
        note(f"{rtt_ms} ms", "bound", {"arrivals_per_second": MOST * 1000 / rtt_ms})
        for peer in peers:
            count = int(messages * NETWORK_SHARE.get(peer, 1))
            note(f"{rtt_ms} ms", peer, attempt(over_network, args, peer, rtt_ms, count))
    if "postern" not in peers:
        return
    # One connection sends 20 a second, two send 40.
    for kind, share, limit in (("max_connections = 1", 5, {"most": 1}), ("max_connections = 2", 2, {"most": 2}), ("the upstream takes 2", 2, {"takes": 2})):
        note(kind, "postern", attempt(over_network, args, "postern", 50, messages // share, **limit))
    note("40 × 35 MiB wait", "postern", attempt(waiting, args))


def attempt(what, *arguments, **named):
    """One peer that fails must not take the others with it."""
    try:
        return what(*arguments, **named)
    except Exception as fault:  # noqa: BLE001
        return {"failed": str(fault)}


def backlog(args, peer, messages):
    """So many messages wait for a smarthost that is away; everything is killed at once; how long until it listens again."""
    with Relay(args, peer) as relay:
        got = bench("fill", "--target", f"127.0.0.1:{relay.port}", "--messages", messages)
        relay.group.kill()
        relay.start()
        return {"queued": got["accepted"], "faults": got["faults"], "listening_s": relay.listening,
                "memory": relay.group.memory()}


def fill(relay, messages):
    """1 KB each, nothing leaves: what they cost, how long they took, and the slowest answers."""
    before = relay.group.cpu()
    got = bench("fill", "--target", f"127.0.0.1:{relay.port}", "--messages", messages, "--size", 1024)
    accepted = max(got["accepted"], 1)
    return {"cpu": relay.group.cpu() - before, "accepted": accepted, "seconds": accepted / got["accepted_per_second"],
            "wait_p99_ms": got["wait_p99_ms"], "faults": got["faults"]}


def growth(args, messages, steps, parts=4):
    """The processor time and the rate of each step while the queue grows, and what the same mail costs a Postern whose queue is
    empty, in turns with it: the machine's speed moves by more than what is looked for."""
    found = []
    with Relay(args, "postern") as relay:
        for step in range(steps):
            here, empty = [], []
            for _ in range(parts):
                with Relay(args, "postern") as other:
                    empty.append(fill(other, messages // steps // parts))
                here.append(fill(relay, messages // steps // parts))

            def each(of, key):
                return sum(part[key] for part in of) / sum(part["accepted"] for part in of)

            found.append({"queued": (step + 1) * messages // steps, "accepted_per_second": 1 / each(here, "seconds"),
                          "cpu_per_1000": each(here, "cpu") * 1000, "cpu_per_1000_empty": each(empty, "cpu") * 1000,
                          "wait_p99_ms": max(part["wait_p99_ms"] for part in here),
                          "faults": sum(part["faults"] for part in here), "memory": relay.group.memory()})
            say(f"growth: {found[-1]}")
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="postfix,postern,exim,opensmtpd,haraka,chasquid")
    parser.add_argument("--scenarios", default="", help="only these, by name, with commas")
    parser.add_argument("--only", default="rounds,memory,backlog", help="of rounds, memory, backlog, growth, network")
    parser.add_argument("--network-messages", type=int, default=2000, help="at each distance of the network part")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    args.work = tempfile.mkdtemp(prefix="postern-bench-", dir=os.path.dirname(args.out))
    os.chmod(args.work, 0o755)
    args.certs = f"{args.work}/certs"
    os.mkdir(args.certs)
    subprocess.run([BENCH, "cert", args.certs], check=True)
    # Each relay reads the key as the user that it runs as.
    os.chmod(f"{args.certs}/key.pem", 0o644)
    asked = args.only.split(",")
    chosen = [s for s in SCENARIOS if not args.scenarios or s[0] in args.scenarios.split(",")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    result = {
        "commit": commit.stdout.strip() or "unknown", "date": time.strftime("%Y-%m-%d"), "kernel": platform.release(),
        "processors": os.cpu_count(), "rounds": {}, "memory": {}, "backlog": {}, "growth": [], "network": {}, "absent": {},
    }
    peers = []
    for peer in args.peers.split(","):
        script = f"{HERE}/peers/{peer}.sh"
        done = subprocess.run([script, "install", args.cache], capture_output=True, text=True, check=False) \
            if os.path.exists(script) else None
        if done is not None and done.returncode == 0:
            peers.append(peer)
        else:
            result["absent"][peer] = (done.stderr or done.stdout).strip()[-300:] if done else "no script"
            say(f"{peer} cannot be had here: {result['absent'][peer]}")

    def keep():
        with open(args.out, "w") as out:
            json.dump(result, out, indent=1)

    def note(kind, peer, found):
        result["network"].setdefault(kind, {}).setdefault(peer, []).append(found)
        say(f"network {kind} {peer}: {json.dumps(found)}")
        keep()

    try:
        for turn in range(args.rounds if "rounds" in asked else 0):
            for scenario in chosen:
                for peer in ["direct", "disk", *peers]:
                    found = attempt(throughput, args, peer, scenario)
                    result["rounds"].setdefault(scenario[0], {}).setdefault(peer, []).append(found)
                    say(f"round {turn + 1} {scenario[0]} {peer}: {json.dumps(found)}")
                    keep()
        for peer in peers if "memory" in asked else []:
            result["memory"][peer] = attempt(memory, args, peer)
            say(f"memory {peer}: {json.dumps(result['memory'][peer])}")
            keep()
        if "backlog" in asked:
            result["backlog"]["postern"] = backlog(args, "postern", 100_000)
            say(f"backlog: {result['backlog']}")
        if "growth" in asked:
            result["growth"] = growth(args, 1_000_000, 10)
        for _ in range(args.rounds if "network" in asked else 0):
            network(args, [peer for peer in peers if peer not in ("haraka", "chasquid")], args.network_messages, note)
        keep()
    finally:
        shutil.rmtree(args.work, ignore_errors=True)


if __name__ == "__main__":
    main()
