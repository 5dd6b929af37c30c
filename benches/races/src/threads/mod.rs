//! Some threads that hammer one breaker, or one budget, and do nothing else: the worst case of what they share.
//!
//! With more threads than cores they wait for one another's turns as well, which is no fault of a contestant: compare
//! with the hand-written one at the same number of threads.

mod contest;
mod contestants;
mod cores;

use self::contest::Contestant;
use crate::race::is_counted;
use crate::service::FAIL;

pub fn race() {
    // Instructions are those of one thread, and counted in the other races.
    if is_counted() {
        return;
    }
    println!("{} cores\n", cores::number());
    check();
    contest::run("one breaker, five in a row", &contestants::in_a_row());
    contest::run("one breaker, half of 100", &contestants::of_the_last());
    contest::run("one breaker, half within 10 s", &contestants::over_time());
    contest::run("one retry budget", &contestants::budget());
}

/// They are shared: what one worker has tripped is open for the next. The rules are checked in the other races.
fn check() {
    let breakers: [fn() -> Vec<Contestant>; 2] = [contestants::in_a_row, contestants::of_the_last];
    for contestant in breakers.iter().flat_map(|list| list()) {
        assert_eq!(contestant.after(0, 7), 8, "{}", contestant.name);
        contestant.after(200, FAIL);
        assert_eq!(contestant.after(0, 7), 0, "{}", contestant.name);
    }
}
