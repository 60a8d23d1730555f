use std::net::IpAddr;

use clap::Args;

/// `fief explain`
#[derive(Debug, Args)]
#[command(
    after_help = "UDP servers that do not ask which address was called see aliases for senders; logs are full of them."
)]
pub struct ExplainArgs {
    /// The alias, as a server or its log shows it
    #[arg(value_name = "ADDRESS")]
    pub address: IpAddr,
}
