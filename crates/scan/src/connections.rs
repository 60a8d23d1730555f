//! Tracked connections and sockets: the marks they carry now.

use fief_host::netlink::Socket;
use fief_host::netlink::attribute::{find, number_be};
use fief_host::{HostError, sockets};
use fief_marks::registry::{Mark, Masked};

use crate::holders::Holders;
use crate::sink::Sink;
use crate::uses::{Subsystem, Use};

/// NFNL_SUBSYS_CTNETLINK << 8, and the message.
const GET: u16 = 1 << 8 | 1;
const CTA_MARK: u16 = 8;
/// `struct nfgenmsg`.
const HEADER: usize = 4;

/// Looks at the connection tracking table.
pub(crate) fn tracked(sink: &mut Sink<'_>) -> Result<(), HostError> {
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let encode = |body: &mut Vec<u8>| body.extend([0; HEADER]);
    let listed = socket.dump(GET, "list connections", encode, |_, body| {
        sink.seen();
        connection(body, sink);
    });
    match listed {
        // A kernel without it tracks nothing; a table that changed while it was written out has told most.
        Err(HostError::Overrun) => Ok(()),
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(()),
        other => other,
    }
}

fn connection(body: &[u8], sink: &mut Sink<'_>) {
    let attributes = body.get(HEADER..).unwrap_or_default();
    if let Some(mark) = find(attributes, CTA_MARK).and_then(number_be).filter(|mark| *mark != 0) {
        sink.add(
            carrying(Subsystem::Connection, "conntrack", Mark::Connection, mark, Vec::new()),
            String::new,
        );
    }
}

/// Looks at the sockets, and at who holds those with a mark.
pub(crate) fn open(sink: &mut Sink<'_>) -> Result<(), HostError> {
    let mut holders = Holders::default();
    sockets::visit(|socket| {
        sink.seen();
        if socket.mark != 0 {
            let holder = holders.of(socket.inode);
            let place = match &holder {
                Some(name) => format!("{} {name}", socket.protocol),
                None => socket.protocol.to_owned(),
            };
            let names = holder.into_iter().map(|name| format!("process {name}")).collect();
            sink.add(carrying(Subsystem::Socket, &place, Mark::Socket, socket.mark, names), || {
                format!("{} {}", socket.local, socket.remote)
            });
        }
    })
}

/// Something that carries a mark sets all of it: packets get the whole mark of their socket.
fn carrying(subsystem: Subsystem, place: &str, mark: Mark, value: u32, names: Vec<String>) -> Use {
    let sets = Some(Masked { value, mask: value });
    Use { mark, writes: value, sets, ..Use::at(subsystem, place, names) }
}

/// For the fuzzer: reads these bytes as a connection.
pub fn fuzz(bytes: &[u8]) {
    let mut quiet = |_| ();
    connection(bytes, &mut Sink::new(String::new(), &mut quiet));
}
