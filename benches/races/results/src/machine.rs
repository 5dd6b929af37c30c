//! Where and with what it was measured.

use std::fs;
use std::process::Command;

use crate::markdown::NOISE;
use crate::measures::Measures;

/// Date, machine, versions, commit and noise, as one paragraph.
pub fn paragraph(measures: &Measures) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("an unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let servers: Vec<&str> = measures
        .table("servers", "version")
        .map(|server| server.name.as_str())
        .collect();
    let servers = match servers.as_slice() {
        [] => "no servers".to_owned(),
        servers => servers.join(", "),
    };
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    let mut spreads: Vec<f64> = measures.0.iter().filter_map(|m| m.spread).collect();
    spreads.sort_by(f64::total_cmp);
    let spread = spreads.get(spreads.len() / 2).copied().unwrap_or(0.0);
    format!(
        "{date}. {model}, {cores} cores, Linux {kernel}; {rustc}, `lto = \"thin\"` and one codegen unit for what needs no server; \
         {servers}. mainstay as of commit {commit}.\n\n\
         **{NOISE}.** Half of all quartiles lie within {spread:.0} % of their median or nearer; the load was {load} when it was over, \
         the races' own included.\n",
        date = said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        // Its version; what follows is the builder's own name.
        kernel = said("uname", &["-r"]).split('-').next().unwrap_or_default(),
        rustc = said("rustc", &["-V"]),
        commit = said("git", &["rev-parse", "--short", "HEAD"]),
        spread = spread * 100.0,
    )
}
