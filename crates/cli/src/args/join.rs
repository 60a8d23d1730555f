use clap::Args;
use clap::builder::NonEmptyStringValueParser;

/// `fief join`
#[derive(Debug, Args)]
#[command(after_help = "Run it inside a network namespace of your own: unshare --map-root-user --net.\n\
    The interface comes up without an address; every member of the group, on every host of the LAN, is on its segment.")]
pub struct JoinArgs {
    /// The group, by name or number [default: your effective group]
    #[arg(short, long, value_name = "G", value_parser = NonEmptyStringValueParser::new())]
    pub group: Option<String>,
    /// Which of the group's networks, where the host has several for each [default: 0]
    #[arg(short, long, value_name = "N")]
    pub network: Option<u8>,
    /// What to call the interface
    #[arg(short, long, value_name = "NAME", default_value = fief_api::overlays::DEVICE)]
    pub dev: String,
    /// The interface's MTU [default: what passes the network in one piece]
    #[arg(short, long, value_name = "BYTES")]
    pub mtu: Option<u32>,
}

/// `fief leave`
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// Which interface
    #[arg(short, long, value_name = "NAME", default_value = fief_api::overlays::DEVICE)]
    pub dev: String,
}
