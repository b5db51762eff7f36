//! What every command does first, since each may hold secrets or mail: nobody else may read its files or its memory.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Files are for their owner alone, and memory ends neither in a core dump nor before another process of the same user.
pub(super) fn harden() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Each is best effort: systemd's unit says the same.
    let _ = setrlimit(Resource::Core, none);
    // Whoever has traced it from the start (a debugger) sees everything anyway, and has to.
    if !is_traced() {
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// `TracerPid` is 0 when nobody traces it (`proc(5)`).
fn is_traced() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"))
            .is_some_and(|pid| pid.trim() != "0")
    })
}
