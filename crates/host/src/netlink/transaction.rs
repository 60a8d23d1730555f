//! Transactions of nf_tables (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c): many messages that happen all together
//! or not at all.
//!
//! The kernel reads all of them before it answers. A message that it refuses is answered whether it asked for that or
//! not; what concerns none of them (no memory, no privilege, a commit that failed) is answered with the number of the
//! message that begins the batch. Then everything is taken back. So one message that asks for an answer is enough, and
//! ten thousand answers do not overrun the receive buffer.

use super::{Message, Socket, acknowledgement, messages_in};
use crate::HostError;

/// NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END (linux/netfilter/nfnetlink.h).
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

impl Socket {
    /// Carries out all of these messages of one subsystem of NETLINK_NETFILTER, or none of them.
    ///
    /// Errors: the first refusal, in the order of the messages, with the words of the message that it belongs to.
    pub fn transact(&mut self, subsystem: u8, mut messages: Vec<Message>) -> Result<(), HostError> {
        let Some(last) = messages.len().checked_sub(1) else { return Ok(()) };
        for (index, message) in messages.iter_mut().enumerate() {
            message.want_ack(index == last);
        }
        messages.insert(0, frame(BEGIN, "begin a transaction", subsystem));
        messages.push(frame(END, "end a transaction", subsystem));
        let first = self.write(&mut messages)?;
        // Of the first message, which is none of the caller's, and of the others.
        let (mut of_all, mut of_one): (_, Option<(usize, HostError)>) = (None, None);
        let mut done = false;
        while let Some(length) = self.try_receive()? {
            for (header, body) in messages_in(&self.buffer[..length]) {
                let index = header.sequence.wrapping_sub(first) as usize;
                let Some(message) = messages.get(index) else { continue };
                if header.kind != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                match acknowledgement(&header, body, &message.what) {
                    Ok(()) => done |= index == last + 1,
                    Err(error) if index == 0 => of_all = Some(error),
                    Err(error) if of_one.as_ref().is_none_or(|(before, _)| index < *before) => {
                        of_one = Some((index, error));
                    }
                    Err(_) => {}
                }
            }
        }
        match of_one.map(|(_, error)| error).or(of_all) {
            Some(error) => Err(error),
            None if done => Ok(()),
            None => Err(HostError::Garbled("a transaction".into())),
        }
    }
}

/// `struct nfgenmsg` with the subsystem as its resource.
fn frame(kind: u16, what: &str, subsystem: u8) -> Message {
    Message::new(kind, 0, what, |body| body.extend([0, 0, 0, subsystem])).unacknowledged()
}
