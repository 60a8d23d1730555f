//! Standard output and standard error, with colours where somebody sees them.

use std::io::{BufWriter, IsTerminal, Stdout, Write};

/// Standard output, buffered.
///
/// Writing to a pipe that was closed is an error like any other; [`crate::report`] passes over it in silence.
pub struct Screen {
    out: BufWriter<Stdout>,
    colour: bool,
}

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// Wrong.
    Bad,
}

impl Screen {
    /// Standard output.
    pub fn stdout() -> Screen {
        let out = std::io::stdout();
        Screen { colour: coloured(&out), out: BufWriter::new(out) }
    }

    /// Prints `text` as it is.
    pub fn print(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Prints `text` and ends the line.
    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Hands what was printed so far to the reader.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.out.flush()?)
    }

    /// `text` in `colour`, or as it is where colours are not wanted.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colour { painted(colour, text) } else { text.to_owned() }
    }
}

/// Does a person see this stream, and has not asked for plain text (no-color.org)?
pub fn coloured(stream: &impl IsTerminal) -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && unset("NO_COLOR") && !dumb
}

/// `text` in `colour` (ECMA-48, SGR).
pub fn painted(colour: Colour, text: &str) -> String {
    let code = match colour {
        Colour::Good => 32,
        Colour::Odd => 33,
        Colour::Bad => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
