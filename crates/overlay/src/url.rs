//! Where a VDE program wants to be plugged in: `vxvdex://[GROUP]/[OPTION[=VALUE]]...`, as vxvdex and vxvde write it.

use std::net::IpAddr;
use std::time::Duration;

use crate::segment::MOST_NETWORKS;

/// Which group is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupName {
    /// By number.
    Number(u32),
    /// By its name in the group database.
    Name(String),
}

/// What such a name says; what it leaves out is the daemon's to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Url {
    /// The multicast group, where vxvde has one to choose.
    pub multicast: Option<IpAddr>,
    /// `grp`: whose segment; without, or empty, the caller's own.
    pub group: Option<GroupName>,
    /// `net`: which of the group's networks.
    pub network: u8,
    /// `vni`
    pub vni: Option<u32>,
    /// `port`
    pub port: Option<u16>,
    /// `ttl`
    pub ttl: Option<u8>,
    /// `rcvbuf`, in bytes; K, M and G are understood.
    pub receive_buffer: Option<u32>,
    /// `lro`: the longest frame that segments of TCP are joined to, in bytes.
    pub longest: Option<usize>,
    /// `v6`; `v4` is the default.
    pub six: bool,
    /// `hashsize`: places for Ethernet addresses.
    pub places: Option<usize>,
    /// `expiretime`: how long they are remembered.
    pub lifetime: Option<Duration>,
    /// `if`: the network card.
    pub device: Option<String>,
    /// `bind`: the address to send from.
    pub bind: Option<IpAddr>,
}

/// What cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// An option that there is not.
    #[error(
        "there is no option `{0}`; grp, net, vni, port, ttl, rcvbuf, lro, v4, v6, hashsize, expiretime, if and bind there are"
    )]
    Unknown(String),
    /// A value that is none.
    #[error("`{option}={value}`: {wanted}")]
    Value {
        /// The option.
        option: String,
        /// What stands there.
        value: String,
        /// What may.
        wanted: &'static str,
    },
    /// The part before the slash.
    #[error("`{0}` is no multicast address; options come behind a slash, as in vxvdex:///grp=1000")]
    Multicast(String),
    /// Twice, or against each other.
    #[error("`{0}` is said twice, or against the address")]
    Twice(String),
}

/// Places are memory, and a user's own.
const MOST_PLACES: usize = 1 << 20;

impl Url {
    /// Reads what is behind `vxvdex://`. Options are divided by slashes.
    pub fn read(text: &str) -> Result<Url, BadUrl> {
        let (head, options) = text.split_once('/').unwrap_or((text, ""));
        let mut url = Url { multicast: multicast(head)?, ..Url::default() };
        let mut said = Vec::new();
        for option in options.split('/').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            // Both are one choice.
            let once = if key == "v4" { "v6" } else { key };
            if said.contains(&once) {
                return Err(BadUrl::Twice(key.to_owned()));
            }
            said.push(once);
            url.take(key, value)?;
        }
        match url.multicast {
            Some(IpAddr::V4(_)) if url.six => Err(BadUrl::Twice("v6".into())),
            Some(IpAddr::V6(_)) if said.contains(&"v6") && !url.six => Err(BadUrl::Twice("v4".into())),
            group => Ok(Url { six: url.six || matches!(group, Some(IpAddr::V6(_))), ..url }),
        }
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), BadUrl> {
        let bad = |wanted| BadUrl::Value { option: key.to_owned(), value: value.to_owned(), wanted };
        let number =
            |most: u64, wanted| decimal(value).filter(|number| *number <= most).ok_or_else(|| bad(wanted));
        match key {
            "grp" if value.is_empty() => self.group = None,
            "grp" => {
                self.group = Some(match decimal(value) {
                    Some(gid) => {
                        GroupName::Number(gid.try_into().map_err(|_| bad("a group's number or name"))?)
                    }
                    None if value.starts_with(|c: char| c.is_ascii_digit()) => {
                        return Err(bad("a group's number, in decimal, or its name"));
                    }
                    None => GroupName::Name(value.to_owned()),
                });
            }
            "net" => {
                self.network = number(u64::from(MOST_NETWORKS) - 1, "a decimal number, 7 at most")? as u8
            }
            "vni" => self.vni = Some(number(0xff_ffff, "a decimal number below 16777216")? as u32),
            "port" => self.port = Some(number(65_535, "a port, in decimal")?.max(1) as u16),
            "ttl" => self.ttl = Some(number(255, "a decimal number, 255 at most")? as u8),
            "rcvbuf" => {
                let bytes = bytes(value).ok_or_else(|| bad("bytes, as 262144, 256K or 1M"))?;
                self.receive_buffer = Some(bytes);
            }
            "lro" => {
                let longest = number(65_535, "the longest frame that the program takes, in bytes, as 9216")?;
                self.longest = (longest > 0).then_some(longest as usize);
            }
            "v4" => self.six = !flag(value).ok_or_else(|| bad("nothing, or 1 or 0"))?,
            "v6" => self.six = flag(value).ok_or_else(|| bad("nothing, or 1 or 0"))?,
            "hashsize" => {
                let places = number(MOST_PLACES as u64, "places, 1 to 1048576")? as usize;
                self.places = Some(places.max(1));
            }
            "expiretime" => {
                let seconds = number(86_400, "seconds, a day at most")?;
                self.lifetime = Some(Duration::from_secs(seconds));
            }
            "if" if !value.is_empty() => self.device = Some(value.to_owned()),
            "if" => return Err(bad("a network card's name")),
            "bind" => self.bind = Some(value.parse().map_err(|_| bad("an IP address"))?),
            _ => return Err(BadUrl::Unknown(key.to_owned())),
        }
        Ok(())
    }
}

fn multicast(head: &str) -> Result<Option<IpAddr>, BadUrl> {
    if head.is_empty() {
        return Ok(None);
    }
    let bare = head.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(head);
    let address: Option<IpAddr> = bare.parse().ok();
    match address.filter(IpAddr::is_multicast) {
        Some(address) => Ok(Some(address)),
        None => Err(BadUrl::Multicast(head.to_owned())),
    }
}

/// Digits and nothing else: `0x10` and `+1` are no numbers.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn bytes(text: &str) -> Option<u32> {
    let (number, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (text.get(..text.len() - 1)?, 10),
        b'M' => (text.get(..text.len() - 1)?, 20),
        b'G' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    decimal(number)?.checked_shl(shift)?.try_into().ok()
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "" | "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_option_is_read() {
        let all = "/grp=users/net=2/vni=1000/port=14789/ttl=1/rcvbuf=256K/lro=9216/v6/hashsize=4096/expiretime=60/if=eth0/bind=fe80::1";
        let url = Url::read(all).unwrap();
        assert_eq!(url.group, Some(GroupName::Name("users".into())));
        assert_eq!((url.vni, url.port, url.ttl, url.six), (Some(1000), Some(14789), Some(1), true));
        assert_eq!(url.network, 2);
        assert_eq!((url.receive_buffer, url.places), (Some(262_144), Some(4096)));
        assert_eq!(url.longest, Some(9216));
        assert_eq!(url.lifetime, Some(Duration::from_secs(60)));
        assert_eq!((url.device.as_deref(), url.bind), (Some("eth0"), Some("fe80::1".parse().unwrap())));
    }

    #[test]
    fn nothing_said_is_ones_own_segment() {
        for text in ["", "/", "/grp=", "/grp", "//"] {
            assert_eq!(Url::read(text), Ok(Url::default()), "{text:?}");
        }
        assert_eq!(Url::read("/grp=1000").unwrap().group, Some(GroupName::Number(1000)));
        assert_eq!(Url::read("[ff05:56de::1]/").unwrap().multicast, Some("ff05:56de::1".parse().unwrap()));
        assert!(Url::read("ff05:56de::1/").unwrap().six && !Url::read("239.0.0.1/v4").unwrap().six);
        assert!(
            !Url::read("/v6=0").unwrap().six
                && !Url::read("/v4").unwrap().six
                && Url::read("/v4=0").unwrap().six
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_remedy() {
        for (text, says) in [
            ("grp=1000", "vxvdex:///grp=1000"),
            ("192.0.2.1/", "no multicast address"),
            ("/vni=0x10", "decimal"),
            ("/vni=16777216", "below 16777216"),
            ("/grp=0x3e8", "in decimal"),
            ("/net=8", "7 at most"),
            ("/grp=4294967296", "number or name"),
            ("/port=65536", "a port"),
            ("/ttl=256", "255"),
            ("/rcvbuf=5T", "256K"),
            ("/rcvbuf=8G", "256K"),
            ("/lro", "as 9216"),
            ("/lro=65536", "as 9216"),
            ("/colour=red", "no option `colour`"),
            ("/if=", "network card"),
            ("/bind=eth0", "an IP address"),
            ("/v6=yes", "1 or 0"),
            ("/grp=1/grp=2", "twice"),
            ("/v4/v6", "twice"),
            ("239.0.0.1/v6", "against the address"),
            ("ff05::1/v4", "against the address"),
        ] {
            let error = Url::read(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[ -~]{0,80}") {
            let _ = Url::read(&text);
        }
    }
}
