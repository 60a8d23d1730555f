//! Programs at a device (tc-bpf(8)): `struct tcmsg` and TCA_* of linux/rtnetlink.h, TCA_BPF_* of linux/pkt_cls.h. They
//! go with their device, whoever put them there, and one that takes another's place does so between two packets.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use super::Named;
use crate::netlink::Message;
use crate::netlink::attribute::{nest, push, push_text};

/// TC_H_CLSACT: the place of both directions.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// What the program returns is what becomes of the packet.
const ACT_DIRECT: u32 = 1;
/// Of any protocol, at the first preference (TC_H_MAKE).
const EVERYTHING: u32 = 1 << 16 | 0x0003_u16.to_be() as u32;

/// Which packets a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Those that the device receives.
    Ingress,
    /// Those that leave by it.
    Egress,
}

/// A program (BPF_PROG_TYPE_SCHED_CLS) at a device.
#[derive(Debug, Clone)]
pub struct Classifier {
    /// The device.
    pub device: Named,
    /// Which packets it sees.
    pub direction: Direction,
    /// The program, loaded.
    pub program: Arc<OwnedFd>,
    /// What `tc filter show` calls it.
    pub name: &'static str,
}

/// The place where classifiers are. Refused with EEXIST if the device has it.
pub(super) fn place(device: u32, what: String) -> Message {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    Message::new(libc::RTM_NEWQDISC, flags, what, |body| {
        header(body, device, CLSACT_HANDLE, CLSACT, 0);
        push_text(body, TCA_KIND, "clsact");
    })
}

impl Classifier {
    /// Puts it at the device, in the place of the one that is there.
    pub(super) fn message(&self, device: u32, what: String) -> Message {
        let direction = match self.direction {
            Direction::Ingress => 0xffff_fff2,
            Direction::Egress => 0xffff_fff3,
        };
        Message::new(libc::RTM_NEWTFILTER, libc::NLM_F_CREATE, what, |body| {
            header(body, device, 1, direction, EVERYTHING);
            push_text(body, TCA_KIND, "bpf");
            nest(body, TCA_OPTIONS, |options| {
                push(options, TCA_BPF_FD, &self.program.as_raw_fd().to_ne_bytes());
                push_text(options, TCA_BPF_NAME, self.name);
                push(options, TCA_BPF_FLAGS, &ACT_DIRECT.to_ne_bytes());
            });
        })
    }
}

fn header(body: &mut Vec<u8>, device: u32, handle: u32, parent: u32, info: u32) {
    body.extend([0; 4]);
    for number in [device, handle, parent, info] {
        body.extend(number.to_ne_bytes());
    }
}
