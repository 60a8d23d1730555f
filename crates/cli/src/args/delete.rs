use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

/// `fief delete`
#[derive(Debug, Args)]
#[command(
    override_usage = "fief delete [OPTIONS] -f <FILE|DIR|->\n       fief delete [OPTIONS] <KIND> <NAME>..."
)]
pub struct DeleteArgs {
    /// Delete the objects that these documents name; what the documents ask for is not looked at
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", conflicts_with_all = ["kind", "names"])]
    pub files: Vec<PathBuf>,
    /// The tenant that all of these documents belong to, as in an apply
    #[arg(long, value_name = "TENANT", requires = "files", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
    /// What to delete
    #[arg(value_name = "KIND", required_unless_present = "files")]
    pub kind: Option<DeleteKind>,
    /// Whom to delete
    #[arg(value_name = "NAME", required_unless_present = "files", value_parser = NonEmptyStringValueParser::new())]
    pub names: Vec<String>,
    /// Print every object, however many there are
    #[arg(short, long)]
    pub verbose: bool,
}

/// What can be deleted by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeleteKind {
    /// A tenant with everything it has
    #[value(alias = "tenants")]
    Tenant,
    /// A network, by TENANT/NAME; its endpoints wait for another one of that name
    #[value(alias = "networks")]
    Network,
    /// An endpoint, by TENANT/NAME
    #[value(alias = "endpoints")]
    Endpoint,
    /// A policy, by TENANT/NAMESPACE/NAME
    #[value(aliases = ["policies", "networkpolicy", "networkpolicies"])]
    Policy,
}
