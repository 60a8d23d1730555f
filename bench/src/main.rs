//! `fief-bench [PREFIX]`: measures what tenants, networks and policies cost, prints a table, writes target/bench/report.json, and fails when a
//! goal is not met. See docs/scale.md for what each number means.

mod accept;
mod alias;
mod compare;
mod daemon;
mod make;
mod marks;
mod networks;
mod overlay;
mod policy;
mod receive;
mod report;
mod send;
mod tenants;
mod test_run;
mod world;

use std::path::Path;
use std::process::ExitCode;

use report::Row;

fn main() -> ExitCode {
    let only = std::env::args().nth(1).unwrap_or_default();
    let path = std::env::var("FIEF_BENCH_REPORT").unwrap_or("target/bench/report.json".into());
    if !nix::unistd::geteuid().is_root() {
        eprintln!("fief-bench: network namespaces need root; run it with sudo");
        return ExitCode::from(2);
    }
    let mut rows = Vec::new();
    let mut tell = |row: Row| {
        report::line(&row);
        rows.push(row);
    };
    report::heading();
    tell(Row::value("yardstick", "one system call that does nothing", compare::yardstick(), "ns"));
    tenants::run(&only, &mut tell);
    marks::run(&only, &mut tell);
    networks::run(&only, &mut tell);
    policy::run(&only, &mut tell);
    overlay::run(&only, &mut tell);
    if rows.len() == 1 {
        eprintln!("fief-bench: no benchmark's id begins with {only:?}");
        return ExitCode::from(2);
    }
    if let Err(error) = report::write(&rows, Path::new(&path)) {
        eprintln!("fief-bench: {path}: {error}");
        return ExitCode::from(2);
    }
    let missed: Vec<&str> = rows.iter().filter(|row| !row.met).map(|row| row.id.as_str()).collect();
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("not met: {}", missed.join(", "));
    ExitCode::FAILURE
}
