"""What a relay takes of the machine: processor time and memory of all its processes, by a control group of its own.

A group counts what a process spent that ended long ago, which the process table does not. Version 2 of control groups is
mounted on every Debian of today, beside version 1 where that is still in use.
"""
import os
import time


class Group:
    """A control group; whoever is put into it stays in it with all that it starts."""

    def __init__(self, name):
        mounts = [line.split() for line in open("/proc/mounts")]
        root = next((m[1] for m in mounts if m[2] == "cgroup2"), None)
        if root is None:
            raise SystemExit("no control groups (cgroup2) are mounted here: processor time cannot be measured")
        self.path = f"{root}/postern-bench-{os.getpid()}-{name}"
        os.mkdir(self.path)

    def enter(self):
        """Puts the calling process into it (between fork and exec)."""
        with open(f"{self.path}/cgroup.procs", "w") as procs:
            procs.write(str(os.getpid()))

    def cpu(self):
        """Seconds, user and system, of all that ever was in it."""
        for line in open(f"{self.path}/cpu.stat"):
            if line.startswith("usage_usec"):
                return int(line.split()[1]) / 1e6
        raise RuntimeError("cpu.stat has no usage_usec")

    def pids(self):
        return [int(line) for line in open(f"{self.path}/cgroup.procs")]

    def memory(self):
        """Resident and proportional set of all processes in it together, in MB (10^6 octets)."""
        rss = pss = 0
        for pid in self.pids():
            try:
                for line in open(f"/proc/{pid}/smaps_rollup"):
                    if line.startswith("Rss:"):
                        rss += int(line.split()[1])
                    elif line.startswith("Pss:"):
                        pss += int(line.split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass
        return {"rss": rss * 1024 / 1e6, "pss": pss * 1024 / 1e6}

    def peak(self):
        """The greatest resident set that a relay of one process ever had, in MB, exactly; `None` for one of several."""
        pids = self.pids()
        if len(pids) != 1:
            return None
        for line in open(f"/proc/{pids[0]}/status"):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        return None

    def kill(self):
        """Ends what is left in it at once, and the group."""
        with open(f"{self.path}/cgroup.kill", "w") as kill:
            kill.write("1")
        # A process that ended with much memory is in it for a moment still.
        for _ in range(400):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"{self.path} does not get empty")
