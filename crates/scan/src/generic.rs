//! Generic netlink (genetlink.c): families with numbers that are given out at run time.

use fief_host::HostError;
use fief_host::netlink::Socket;
use fief_host::netlink::attribute::{find, push, text};

const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`: command, version, reserved.
const HEADER: usize = 4;

/// A family that this kernel has.
pub(crate) struct Family {
    socket: Socket,
    id: u16,
    /// Bytes of the family's own header behind `struct genlmsghdr`.
    header: usize,
}

impl Family {
    /// The family of this name; `None` if the kernel does not have it, or has not loaded it.
    pub(crate) fn find(name: &str) -> Result<Option<Family>, HostError> {
        let mut socket = Socket::open(libc::NETLINK_GENERIC)?;
        let mut id = None;
        let encode = |body: &mut Vec<u8>| body.extend([GET_FAMILY, 1, 0, 0]);
        socket.dump(CONTROLLER, "list generic netlink families", encode, |_, body| {
            let attributes = body.get(HEADER..).unwrap_or_default();
            if find(attributes, FAMILY_NAME).map(text).as_deref() == Some(name) {
                id = find(attributes, FAMILY_ID)
                    .and_then(|id| id.first_chunk())
                    .map(|id| u16::from_ne_bytes(*id));
            }
        })?;
        Ok(id.map(|id| Family { socket, id, header: 0 }))
    }

    /// The same with a header of its own of so many bytes, which are sent as they are given to `dump_with`.
    pub(crate) fn with_header(self, header: usize) -> Family {
        Family { header, ..self }
    }

    /// Asks for a listing; `each` sees the attributes of every answer.
    pub(crate) fn dump(
        &mut self,
        command: u8,
        attributes: &[(u16, [u8; 4])],
        each: impl FnMut(&[u8]),
    ) -> Result<(), HostError> {
        self.dump_with(command, &[], attributes, each)
    }

    /// The same with the family's own header.
    pub(crate) fn dump_with(
        &mut self,
        command: u8,
        own: &[u8],
        attributes: &[(u16, [u8; 4])],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), HostError> {
        let encode = |body: &mut Vec<u8>| {
            body.extend([command, 1, 0, 0]);
            body.extend(own);
            attributes.iter().for_each(|(kind, value)| push(body, *kind, value));
        };
        let skip = HEADER + self.header;
        self.socket.dump(self.id, "ask a generic netlink family", encode, |_, body| {
            each(body.get(skip..).unwrap_or_default());
        })
    }
}
