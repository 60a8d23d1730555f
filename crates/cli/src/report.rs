//! Errors, on standard error.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use fief_api::{ClientError, ErrorBody};

use crate::args::Format;
use crate::complaints::Refused;
use crate::screen::{Colour, coloured, painted};
use crate::text::visible;

/// Prints `error` and gives the exit status: `trouble`, or success if only the reader of our output has gone.
pub fn print(error: &anyhow::Error, format: Format, trouble: ExitCode) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let stderr = io::stderr();
    let text = match format {
        Format::Json => json(error),
        Format::Table | Format::Yaml => text(error, stderr.is_terminal(), coloured(&stderr)),
    };
    // If even standard error is gone, the exit status remains.
    let _ = stderr.lock().write_all(text.as_bytes());
    trouble
}

fn text(error: &anyhow::Error, terminal: bool, colour: bool) -> String {
    let complaints = match error.downcast_ref::<Refused>() {
        Some(refused) if terminal => refused.graphical(colour),
        Some(refused) => refused.plain(),
        None => String::new(),
    };
    let (heading, body) =
        (if colour { painted(Colour::Bad, "error:") } else { "error:".into() }, body(error));
    let help = body.help.map(|help| format!("help: {}\n", visible(&help))).unwrap_or_default();
    format!("{complaints}{heading} {}\n{help}", visible(&body.error))
}

fn json(error: &anyhow::Error) -> String {
    // A body of plain strings and numbers can always be written.
    serde_json::to_string_pretty(&body(error)).unwrap_or_default() + "\n"
}

fn body(error: &anyhow::Error) -> ErrorBody {
    if let Some(refused) = error.downcast_ref::<Refused>() {
        return refused.body.clone();
    }
    if let Some(ClientError::Api { body, .. }) = error.downcast_ref::<ClientError>() {
        return body.clone();
    }
    ErrorBody { error: error.to_string(), help: None, diagnostics: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_help_is_on_its_own_line() {
        let body = ErrorBody { error: "no".into(), help: Some("ask root".into()), diagnostics: Vec::new() };
        let error = ClientError::Api { status: 403, body }.into();
        assert_eq!(text(&error, false, false), "error: no\nhelp: ask root\n");
        assert_eq!(text(&error, true, true), "\u{1b}[31merror:\u{1b}[0m no\nhelp: ask root\n");
        assert!(json(&error).contains("\"help\": \"ask root\""));
    }
}
