//! One operation many times over, for an instruction counter: `instructions <operation> <iterations>`.
//!
//! With two numbers of iterations under `valgrind --tool=callgrind`, an operation costs (Ir₂ - Ir₁) / (n₂ - n₁)
//! instructions, whatever the start of the program costs. Without arguments every operation runs a few times, which is
//! what `cargo bench` and `cargo test --benches` do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

mod breaker;
mod retry;
mod stack;
mod support;

/// The name of an operation, and how to run it so many times.
type Operation = (&'static str, fn(u64));

fn main() {
    let operations: Vec<Operation> = [
        support::OPERATIONS,
        retry::OPERATIONS,
        breaker::OPERATIONS,
        stack::OPERATIONS,
    ]
    .concat();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [name, iterations] => {
            let found = operations.iter().find(|(known, _)| known == name);
            let Some((_, run)) = found else {
                panic!("no operation {name}");
            };
            run(iterations.parse().unwrap());
        }
        // Cargo passes flags of its own.
        _ => {
            for (name, run) in operations {
                run(10);
                println!("{name}: ok");
            }
        }
    }
}
