//! `overlay:` of `fiefd.yaml`: on which card groups of users have segments, and what they may there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fief_datapath::overlay::maps::{ADDRESSES, PEERS};
use fief_overlay::{GROUP4, GROUP6, MOST_NETWORKS, PORT, Rules};
use serde::Deserialize;

/// The overlay of this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Overlay {
    /// The network card that segments' datagrams leave by; without one there is no overlay.
    pub device: Option<String>,
    /// The network namespace where the card is, a name for ip-netns(8) or a path, if it is not the daemon's own.
    pub namespace: Option<String>,
    /// The multicast group whose last three bytes a group's number replaces, for IPv4.
    pub group4: Ipv4Addr,
    /// The same for IPv6.
    pub group6: Ipv6Addr,
    /// The multicast groups' UDP port.
    pub port: u16,
    /// The first number of a group of users that has a segment.
    pub min_gid: u32,
    /// The most hops a datagram may go.
    pub max_ttl: u8,
    /// May a user be on the segments of his supplementary groups too?
    pub supplementary_groups: bool,
    /// How many networks a group has.
    pub networks_per_group: u8,
    /// How many members of a group may have sockets on this host at a time; with 0 there are interfaces only.
    pub members_per_group: u32,
    /// Frames a second that a port may send to everybody.
    pub rate: u32,
    /// Seconds that an Ethernet address is remembered on the fast path.
    pub expire_time: u32,
    /// Ethernet addresses that a port may have.
    pub macs_per_port: u32,
    /// A file of the other hosts, `ADDRESS[:PORT]` a line, where there is no multicast.
    pub peers: Option<PathBuf>,
}

impl Default for Overlay {
    fn default() -> Overlay {
        Overlay {
            device: None,
            namespace: None,
            group4: GROUP4,
            group6: GROUP6,
            port: PORT,
            min_gid: 1000,
            max_ttl: 1,
            supplementary_groups: false,
            networks_per_group: 1,
            members_per_group: 1024,
            rate: 1000,
            expire_time: 128,
            macs_per_port: 1024,
            peers: None,
        }
    }
}

/// A card's name has 15 bytes (IFNAMSIZ).
const LONGEST_NAME: usize = 15;
/// Of the 65536 sockets that there is room for (`segment_claimed` in bpf/lib/segment.h), one group gets no more than a quarter.
const MOST_MEMBERS: u32 = 8192;
/// Interfaces that one user has on one host, at most.
pub const PER_USER: u32 = 16;
/// With all of them one user does not fill the table of all.
const MOST_MACS: u32 = ADDRESSES / PER_USER;
/// The guard of sockets forgets who was silent for longer (SILENCE in bpf/lib/segment.h).
const LONGEST_MEMORY: u32 = 600;

impl Overlay {
    /// Whose segment somebody may be on.
    pub fn rules(&self) -> Rules {
        Rules {
            least: self.min_gid,
            supplementary: self.supplementary_groups,
            networks: self.networks_per_group,
        }
    }

    /// How long an Ethernet address is remembered.
    pub fn expire_time(&self) -> Duration {
        Duration::from_secs(self.expire_time.into())
    }

    /// The other hosts, by the file; none without one.
    pub fn read_peers(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let Some(path) = &self.peers else { return Ok(Vec::new()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow::anyhow!("overlay.peers: read {}: {error}", path.display()))?;
        read_peers(&text, self.port, path)
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if let Some(device) = &self.device {
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
            anyhow::ensure!(
                (1..=LONGEST_NAME).contains(&device.len()) && device.bytes().all(plain),
                "overlay.device {device:?} is no name of a network card, as eth0"
            );
        }
        anyhow::ensure!(
            self.group4.is_multicast(),
            "overlay.group4 {} is no multicast address, as {GROUP4}: its last three bytes become the group's number",
            self.group4
        );
        anyhow::ensure!(
            self.group6.is_multicast() && (2..=5).contains(&(self.group6.octets()[1] & 0x0f)),
            "overlay.group6 {} is no multicast address of a link, a site or between (ff02:: to ff05::), as {GROUP6}",
            self.group6
        );
        anyhow::ensure!(self.port > 0, "overlay.port must lie between 1 and 65535");
        anyhow::ensure!(
            (1..1 << 23).contains(&self.min_gid),
            "overlay.minGid {} must lie between 1 and 8388607: groups above have no segment, and group 0 has none",
            self.min_gid
        );
        anyhow::ensure!(self.max_ttl > 0, "overlay.maxTtl must lie between 1 and 255; 1 stays on the LAN");
        anyhow::ensure!(
            (1..=MOST_NETWORKS).contains(&self.networks_per_group),
            "overlay.networksPerGroup {} must lie between 1 and {MOST_NETWORKS}",
            self.networks_per_group
        );
        anyhow::ensure!(
            self.members_per_group <= MOST_MEMBERS,
            "overlay.membersPerGroup {} must lie between 0, for interfaces only, and {MOST_MEMBERS}",
            self.members_per_group
        );
        anyhow::ensure!(self.rate > 0, "overlay.rate must be a frame a second at least");
        anyhow::ensure!(
            (1..=MOST_MACS).contains(&self.macs_per_port),
            "overlay.macsPerPort {} must lie between 1 and {MOST_MACS}",
            self.macs_per_port
        );
        anyhow::ensure!(
            (1..=LONGEST_MEMORY).contains(&self.expire_time),
            "overlay.expireTime {} must lie between 1 and {LONGEST_MEMORY} seconds",
            self.expire_time
        );
        self.read_peers()?;
        Ok(())
    }
}

fn read_peers(text: &str, port: u16, path: &Path) -> anyhow::Result<Vec<SocketAddr>> {
    let mut peers = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let bare = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(line);
        let peer: Option<SocketAddr> =
            line.parse().ok().or_else(|| bare.parse().ok().map(|address: IpAddr| (address, port).into()));
        let usable = |peer: &SocketAddr| {
            let address = peer.ip();
            let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
            !(address.is_multicast() || address.is_unspecified() || broadcast || peer.port() == 0)
        };
        let Some(peer) = peer.filter(usable) else {
            anyhow::bail!(
                "overlay.peers: {}:{number}: `{line}` is no host; write its address, as 192.0.2.1, 192.0.2.1:4789 or \
                 [2001:db8::1]:4789",
                path.display()
            );
        };
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    anyhow::ensure!(
        peers.len() <= PEERS,
        "overlay.peers: {} has {} hosts, {PEERS} at most; a LAN with more needs multicast",
        path.display(),
        peers.len()
    );
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_with_or_without_a_port() {
        let read = |text: &str| read_peers(text, PORT, Path::new("peers"));
        let text = "# the others\n192.0.2.1\n192.0.2.2:4789 # a switch\n\n2001:db8::1\n[2001:db8::2]\n[2001:db8::3]:7\n";
        let peers: Vec<String> = read(text).unwrap().iter().map(ToString::to_string).collect();
        let all = [
            "192.0.2.1:14789",
            "192.0.2.2:4789",
            "[2001:db8::1]:14789",
            "[2001:db8::2]:14789",
            "[2001:db8::3]:7",
        ];
        assert_eq!(peers, all);
        for bad in
            ["host.example.com", "192.0.2.1:0", "239.0.0.1", "0.0.0.0", "255.255.255.255", "192.0.2.1/24"]
        {
            let error = read(&format!("192.0.2.9\n{bad}\n")).unwrap_err().to_string();
            assert!(error.contains("peers:2: ") && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn no_more_hosts_are_taken_than_the_programs_hold() {
        let file = |hosts: usize| (0..hosts).map(|i| format!("192.0.2.1:{}\n", i + 1)).collect::<String>();
        let read = |hosts: usize| read_peers(&file(hosts), PORT, Path::new("peers"));
        assert_eq!(read(PEERS).unwrap().len(), PEERS);
        let error = read(PEERS + 1).unwrap_err().to_string();
        assert!(error.contains("peers has 257 hosts, 256 at most"), "{error}");
    }

    #[test]
    fn nothing_said_is_no_overlay() {
        let overlay: Overlay = serde_saphyr::from_str("{}").unwrap();
        assert_eq!((overlay.device.clone(), overlay.port, overlay.min_gid), (None, 14789, 1000));
        let said = "{ device: eth0, supplementaryGroups: true, minGid: 5000 }";
        let overlay: Overlay = serde_saphyr::from_str(said).unwrap();
        assert_eq!(overlay.device.as_deref(), Some("eth0"));
        assert_eq!(overlay.rules(), Rules { least: 5000, supplementary: true, networks: 1 });
    }
}
