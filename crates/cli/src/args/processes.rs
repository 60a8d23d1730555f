use clap::Args;
use clap::builder::NonEmptyStringValueParser;

/// `fief ps`
#[derive(Debug, Args)]
#[command(after_help = "A thread is listed by itself where its tenant is not its process's.")]
pub struct PsArgs {
    /// Only this tenant's
    #[arg(value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
}

/// `fief identify`
#[derive(Debug, Args)]
#[command(
    after_help = "Prints the tenant's name, or nothing if the process is the host's. As `ip vrf identify`."
)]
pub struct IdentifyArgs {
    /// The process [default: the one that asks]
    #[arg(value_name = "PID")]
    pub pid: Option<u32>,
}

/// `fief pids`
#[derive(Debug, Args)]
#[command(after_help = "Prints one process id and its command a line. As `ip vrf pids`.")]
pub struct PidsArgs {
    /// The tenant
    #[arg(value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: String,
}
