//! What a call of each contestant costs in instructions, counted by callgrind: the same on a busy machine.
//!
//! A contestant runs alone in a process of its own, for two numbers of calls; the difference of the counts over the
//! difference of the calls is the cost of one, and start and set-up cancel out.

use std::process::Command;

use results::Measure;

use crate::race::LISTED;

/// Prints the table of these races, as many contestants at once as there are cores: what is counted is not time.
pub fn table(races: &[&'static str]) {
    for race in races {
        results::begin(race);
        let told = run(race, &[("RACES_LIST", "")], false);
        let lines: Vec<&str> = told.lines().collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for lines in lines.chunks(cores) {
            let counting = |line| move || (line, each(race, line));
            let counted: Vec<(&str, f64)> = std::thread::scope(|scope| {
                let threads: Vec<_> = lines
                    .iter()
                    .map(|line| scope.spawn(counting(*line)))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            for (line, each) in counted {
                let name = &line[1..];
                println!("{name:<100} {each:>9.0}");
                let (title, name) = name.split_once(LISTED).unwrap();
                results::keep(Measure::new(title, name, each, "instructions"));
            }
        }
    }
}

/// What one call costs.
fn each(race: &str, line: &str) -> f64 {
    let (wears, contestant) = line.split_at(1);
    // Where calls get dearer with their number, few are a better measure than many.
    let times = if wears == "-" {
        [10, 30]
    } else {
        [1_000, 3_000]
    };
    let [few, many] = times.map(|times| count(race, contestant, times));
    many.saturating_sub(few) as f64 / f64::from(times[1] - times[0])
}

fn count(race: &str, contestant: &str, times: u32) -> u64 {
    let times = times.to_string();
    let told = run(
        race,
        &[("RACES_ONLY", contestant), ("RACES_TIMES", &times)],
        true,
    );
    let collected = told
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .expect("callgrind tells what it has collected");
    collected.1.trim().parse().unwrap()
}

/// Runs this program again, and returns what it wrote; under callgrind, what that wrote.
fn run(race: &str, env: &[(&str, &str)], counted: bool) -> String {
    let program = std::env::current_exe().unwrap();
    let mut command = if counted {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    let output = command
        .arg(race)
        .envs(env.iter().copied())
        .env_remove("RACES_RECORD")
        .output()
        .expect("valgrind is there");
    let told = if counted {
        output.stderr
    } else {
        output.stdout
    };
    let told = String::from_utf8(told).unwrap();
    assert!(output.status.success(), "{told}");
    told
}
