//! The short way on the host (bpf/lib/host.h): programs at uplinks, beside whatever else is attached there. They have no
//! pins and go with their daemon; packets take the whole way then.
//!
//! Links are made by hand: aya's hold the object that their program came from, which is megabytes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use aya_obj::generated::bpf_attach_type;

use super::{Pair, descriptor, program};
use crate::maps::{map_error, take};
use crate::{DatapathError, Device, chain, syscall};

const CHANGES: &str = "fief_changes";

/// The programs of the short way on the host.
pub struct HostWay {
    /// For the host's ends of links.
    pub link: Pair,
    inwards: AtUplink,
    outwards: AtUplink,
    changes: Array<MapData, u64>,
    count: u64,
    uplinks: BTreeMap<u32, Uplink>,
}

/// A program for uplinks.
struct AtUplink {
    name: &'static str,
    program: Arc<OwnedFd>,
    number: u32,
}

/// Both links of an uplink. The first one goes first: nothing comes in by a short way where nobody sees what leaves.
struct Uplink {
    _inwards: OwnedFd,
    _outwards: OwnedFd,
}

impl HostWay {
    pub(super) fn load(mut programs: Ebpf) -> Result<HostWay, DatapathError> {
        let link = Pair {
            ingress: descriptor(&mut programs, "outer_in")?,
            egress: descriptor(&mut programs, "outer_out")?,
        };
        let [inwards, outwards] = ["uplink_in", "uplink_out"].map(|name| AtUplink::load(&mut programs, name));
        let changes =
            Array::try_from(take(&mut programs, CHANGES)?).map_err(|error| map_error(CHANGES, &error))?;
        let (inwards, outwards) = (inwards?, outwards?);
        Ok(HostWay { link, inwards, outwards, changes, count: 0, uplinks: BTreeMap::new() })
    }

    /// Puts programs at exactly these uplinks. Those that are there stay, unless `looks` and somebody has taken one away.
    /// Returns whether anything was done, and what could not be.
    pub fn attach(&mut self, uplinks: &[Device], looks: bool) -> (bool, Vec<DatapathError>) {
        let is_kept = |index: &u32| uplinks.iter().any(|uplink| uplink.index == *index);
        let before = self.uplinks.len();
        self.uplinks.retain(|index, _| is_kept(index));
        let (mut did, mut errors) = (self.uplinks.len() != before, Vec::new());
        for uplink in uplinks {
            if self.uplinks.contains_key(&uplink.index) {
                if !looks || self.is_at(uplink) {
                    continue;
                }
                self.uplinks.remove(&uplink.index);
            }
            match self.put(uplink) {
                Ok(links) => {
                    self.uplinks.insert(uplink.index, links);
                    did = true;
                }
                Err(error) => errors.push(error),
            }
        }
        (did, errors)
    }

    /// The uplinks that have them, by number.
    pub fn uplinks(&self) -> impl Iterator<Item = u32> {
        self.uplinks.keys().copied()
    }

    /// All ways of before are over: something has changed on the host.
    pub fn end(&mut self) -> Result<(), DatapathError> {
        self.count += 1;
        self.changes.set(0, self.count, 0).map_err(|error| map_error(CHANGES, &error))
    }

    /// Outwards we come first: who changes a packet behind us does so on both ways. Inwards last, so that whoever stands
    /// before us sees all of them.
    fn put(&self, uplink: &Device) -> Result<Uplink, DatapathError> {
        Ok(Uplink {
            _outwards: self.outwards.link(uplink, bpf_attach_type::BPF_TCX_EGRESS, true)?,
            _inwards: self.inwards.link(uplink, bpf_attach_type::BPF_TCX_INGRESS, false)?,
        })
    }

    /// Does the kernel say that they are there?
    fn is_at(&self, uplink: &Device) -> bool {
        self.inwards.is_at(uplink, TcAttachType::Ingress) && self.outwards.is_at(uplink, TcAttachType::Egress)
    }
}

impl AtUplink {
    fn load(programs: &mut Ebpf, name: &'static str) -> Result<AtUplink, DatapathError> {
        let loaded = descriptor(programs, name)?;
        let info = program(programs, name)?.info();
        let info = info.map_err(|error| DatapathError::Load(format!("{name}: {}", chain(&error))))?;
        Ok(AtUplink { name, program: loaded, number: info.id() })
    }

    fn link(&self, at: &Device, kind: bpf_attach_type, is_first: bool) -> Result<OwnedFd, DatapathError> {
        let failed = |error: std::io::Error| DatapathError::Attach {
            program: self.name,
            place: at.name.clone(),
            error: error.to_string(),
        };
        syscall::link_device(self.program.as_fd(), at.index, kind, is_first).map_err(failed)
    }

    fn is_at(&self, uplink: &Device, direction: TcAttachType) -> bool {
        let there = SchedClassifier::query_tcx(&uplink.name, direction);
        there.is_ok_and(|(_, there)| there.iter().any(|program| program.id() == self.number))
    }
}
