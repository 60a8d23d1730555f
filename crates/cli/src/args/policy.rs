use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

/// `fief policy`
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// What to do
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say what would become of a packet, and which rules say so
    #[command(after_help = "Exit status: 0 allowed, 1 denied, 2 trouble. Nothing is sent.")]
    Test(PolicyTestArgs),
}

/// `fief policy test`
#[derive(Debug, Args)]
pub struct PolicyTestArgs {
    /// Who calls: an endpoint, or an address
    #[arg(long, value_name = "[TENANT/]NAME|ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    pub from: String,
    /// Who is called: an endpoint, or an address
    #[arg(long, value_name = "[TENANT/]NAME|ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    pub to: String,
    /// What is called: 80/tcp, 53/udp, 80 (TCP), a name of a port of the called endpoint, or icmp
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = NonEmptyStringValueParser::new())]
    pub port: String,
    /// The tenant of endpoints that are written without one
    #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
}
