//! `fief`, the command line: reads what the user typed, asks the daemon, prints what it said.
//!
//! Architecture invariant: nothing here changes the host's network. What is to happen to it is the daemon's work,
//! and what is wrong with a document is for `fief-model` to say. `fief marks scan` and its sisters look at it.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod complaints;
mod context;
mod networks;
mod outcomes;
mod policies;
mod report;
mod screen;
mod sources;
mod table;
mod tenants;
mod text;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use context::Context;

fn main() -> ExitCode {
    let Cli { root, output, command } = Cli::parse();
    let mut context = Context::new(root.as_deref(), output);
    let compares = matches!(command, Command::Diff(_) | Command::Policy(_));
    let trouble = if compares { ExitCode::from(2) } else { ExitCode::FAILURE };
    let ran = match command {
        Command::Apply(args) => commands::apply::run(args, &mut context),
        Command::Diff(args) => commands::diff::run(args, &mut context),
        Command::Validate(args) => commands::validate::run(args, &mut context),
        Command::Delete(args) => commands::delete::run(args, &mut context),
        Command::Get(args) => commands::get::run(args, &mut context),
        Command::Status => commands::status::run(&mut context),
        Command::Doctor => commands::doctor::run(&mut context),
        Command::Exec(args) => commands::exec::run(args, &context),
        Command::Join(args) => commands::join::run(args, &mut context),
        Command::Leave(args) => commands::leave::run(args, &mut context),
        Command::Ps(args) => commands::processes::ps(args, &mut context),
        Command::Identify(args) => commands::processes::identify(args, &mut context),
        Command::Pids(args) => commands::processes::pids(args, &mut context),
        Command::Flows(args) => commands::flows::run(args, &mut context),
        Command::Sockets(args) => commands::sockets::run(args, &mut context),
        Command::Explain(args) => commands::explain::run(args, &mut context),
        Command::Policy(args) => commands::policy::run(args, &mut context),
        Command::Marks(args) => commands::marks::run(args, &mut context),
        Command::Schema => commands::schema::run(&mut context),
        Command::Completion(args) => commands::completion::run(args, &mut context),
        Command::Man(args) => commands::man::run(args, &mut context),
    };
    let flushed = ran.and_then(|status| context.out.flush().map(|()| status));
    flushed.unwrap_or_else(|error| report::print(&error, context.format, trouble))
}
