use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

/// `fief flows`
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Only those of this tenant's endpoints
    #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
    /// Only those of which this became
    #[arg(long, value_enum)]
    pub verdict: Option<Verdict>,
    /// Go on with what comes, until interrupted
    #[arg(long, short)]
    pub follow: bool,
}

/// What became of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// They did not pass
    Dropped,
    /// They passed although a rule forbids it: their tenant's policies are only recorded
    Audited,
}

impl Verdict {
    /// As the daemon calls it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Dropped => "dropped",
            Verdict::Audited => "audited",
        }
    }
}
