//! How tests wait: for the thing itself, with a deadline. Where nothing must come, it is looked for all the while.

use std::{
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

/// What a busy machine may need for what takes a moment.
const DEADLINE: Duration = Duration::from_mins(2);

/// Tries until there is an answer; fails after two minutes.
pub fn wait<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited two minutes for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same in a runtime, by its clock: where that is paused, two minutes that nothing happens in are over at once.
pub async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited two minutes for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// It is so for all of this time: what must not come is given the time to come.
pub fn stays(what: &str, time: Duration, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(is(), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(is(), "{what}");
}

/// The same in a runtime, by its clock.
pub async fn stays_so(what: &str, time: Duration, mut is: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        assert!(is(), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(is(), "{what}");
}

/// By how much a count grows in this time.
pub fn growth(time: Duration, mut count: impl FnMut() -> u64) -> u64 {
    let before = count();
    std::thread::sleep(time);
    count().saturating_sub(before)
}

/// Lets the others work on, and comes wherever they are then.
pub fn at_any_moment(time: Duration) {
    std::thread::sleep(time);
}

/// Those who come wait until it is opened; one that never is holds them for good.
#[derive(Debug, Default)]
pub struct Latch {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    pub fn wait(&self) {
        let mut is_open = self.is_open.lock().unwrap();
        while !*is_open {
            is_open = self.opened.wait(is_open).unwrap();
        }
    }

    pub fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}
