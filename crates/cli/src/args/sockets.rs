use clap::Args;
use clap::builder::NonEmptyStringValueParser;

/// `fief sockets`
#[derive(Debug, Args)]
pub struct SocketsArgs {
    /// Only those of this tenant
    #[arg(value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
}
