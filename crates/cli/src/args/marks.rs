use clap::{Args, Subcommand};
use fief_marks::registry::Bits;

/// `fief marks`
#[derive(Debug, Args)]
#[command(
    after_help = "Marks are written in hexadecimal with 0x, or in decimal. What fief knows is extended by files in \
    /etc/fief/marks.d, of the form of its own registry (`fief marks list -o yaml`)."
)]
pub struct MarksArgs {
    /// What to do
    #[command(subcommand)]
    pub command: MarksCommand,
}

/// What to do with marks.
#[derive(Debug, Subcommand)]
pub enum MarksCommand {
    /// List who uses which bits
    List,
    /// Say whose bits these are
    Who {
        /// Bits of a mark, as in 0x40000
        #[arg(value_name = "BITS")]
        bits: Bits,
    },
    /// Say everything that a mark may mean
    Decode {
        /// A whole mark, as in 0x12340f56
        #[arg(value_name = "MARK")]
        mark: Bits,
    },
    /// Draw who uses which bits
    Explain {
        /// Only these [default: everybody]
        #[arg(value_name = "SOFTWARE")]
        software: Vec<String>,
    },
    /// Look at what this host reads and writes of its marks
    #[command(
        after_help = "Looks at the current network namespace, at every other that has a name or a process in it, and at the \
        bpf programs of the machine (by their instructions: a heuristic). Needs root."
    )]
    Scan {
        /// Only this network namespace, by its name for `ip netns`, or a path to it; may be given again
        #[arg(long, value_name = "NAME")]
        netns: Vec<String>,
        /// Only the current network namespace
        #[arg(long, conflicts_with = "netns")]
        here: bool,
    },
    /// Say who gets in whose way on this host, what breaks, and how to mend it
    #[command(
        after_help = "Exit status: 0 nothing collides, 1 something does (notices do not count), 2 it cannot be told."
    )]
    Check {
        /// Bits to check against what is in the current network namespace [default: fief's field]
        #[arg(value_name = "MASK")]
        mask: Option<Bits>,
    },
    /// Say where fief's field lies best on this host, and why
    #[command(after_help = "Asks no daemon, and so says what one would choose here when it first starts.")]
    Choose,
    /// Move fief's field to other bits, while everything runs
    #[command(
        after_help = "Established connections go on, and no socket changes its tenant. Only half-open connections may be \
        waited for, 45 s at most. Without --to the best place on this host is taken. When nothing is given but a move is \
        under way, waits for its end. Exit status: 0 the field is there, 1 it is not."
    )]
    Move {
        /// Where to, as in 0xffff0000
        #[arg(long, value_name = "MASK")]
        to: Option<Bits>,
        /// Although somebody uses those bits
        #[arg(long)]
        force: bool,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not wait for the end
        #[arg(long)]
        no_wait: bool,
    },
    /// Print a C header that says where fief's field lies, for programs that must leave it alone
    Header,
    /// Say what would collide if these ran on one host, fief among them
    #[command(after_help = "Exit status: 0 nothing collides, 1 something does.")]
    Simulate {
        /// Who, by the short names of `fief marks list`
        #[arg(long, value_name = "SOFTWARE", value_delimiter = ',', required = true)]
        with: Vec<String>,
        /// fief's own field [default: the daemon's, else 0xffff]
        #[arg(long, value_name = "MASK")]
        mask: Option<Bits>,
    },
}
