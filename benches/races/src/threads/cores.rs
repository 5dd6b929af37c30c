//! A core for each thread: left to itself, the scheduler may well let two threads that wait for each other take turns on
//! one.

use std::fs;
use std::sync::OnceLock;
use std::thread::available_parallelism;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// How many there are, for who is not kept on one.
pub fn number() -> usize {
    static NUMBER: OnceLock<usize> = OnceLock::new();
    *NUMBER.get_or_init(|| available_parallelism().map_or(1, usize::from))
}

/// Keeps this thread on one core.
pub fn take(thread: usize) {
    let mut core = CpuSet::new();
    core.set(thread % number());
    sched_setaffinity(None, &core).unwrap();
}

/// How long this thread was ever ready to run while its core did something else.
pub fn waited() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = told.split_whitespace().nth(1).unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}
