use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

/// `fief get`
#[derive(Debug, Args)]
#[command(after_help = "RX and TX are bytes, DROPS packets, each since the datapath was loaded.\n\
    `fief get all -o yaml` prints what `fief apply -f -` reads; -o json adds where each object stands.")]
pub struct GetArgs {
    /// What to list
    #[arg(value_name = "KIND", default_value = "all")]
    pub kind: GetKind,
    /// Only the one with this name: NAME of a tenant, TENANT/NAME of a network or an endpoint, TENANT/NAMESPACE/NAME of
    /// a policy; with --tenant, TENANT/ is left out, and NAMESPACE/ too if it is `default`
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Only what is this tenant's
    #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
    /// Then wait, and print what changes (-o json: one event a line)
    #[arg(short, long)]
    pub watch: bool,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GetKind {
    /// Tenants
    #[value(alias = "tenant")]
    Tenants,
    /// Networks
    #[value(alias = "network")]
    Networks,
    /// Endpoints
    #[value(alias = "endpoint")]
    Endpoints,
    /// Policies
    #[value(aliases = ["policy", "networkpolicies", "networkpolicy"])]
    Policies,
    /// Numbers of endpoints that are the same to every policy
    #[value(alias = "identity")]
    Identities,
    /// Interfaces on segments of groups
    #[value(alias = "overlay")]
    Overlays,
    /// What was counted for all segments
    #[value(alias = "overlay-counter")]
    OverlayCounters,
    /// Everything there is
    All,
}
