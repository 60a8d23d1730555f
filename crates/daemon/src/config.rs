//! `fiefd.yaml`: the few things that are chosen once for a host.

pub mod overlay;
pub mod uplinks;

use std::net::Ipv4Addr;
use std::path::Path;

use fief_marks::{BadMask, MarkLayout};
use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::networks::links::LONGEST;
use overlay::Overlay;
use uplinks::Uplinks;

/// Where the host's own `local` rule stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalRule {
    /// At preference 0, untouched: another tenant's local address is refused (EACCES), and a remote network that
    /// uses such an address cannot be reached.
    #[default]
    Keep,
    /// Behind the tree: every tenant sees its own local addresses only.
    Move,
}

/// By which way tenants' packets pass the host, behind the first ones of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostWay {
    /// From link to uplink and back at once, past its routes and filters.
    #[default]
    Short,
    /// All of them by its routes and filters.
    Whole,
}

/// Where the slot shall stand in the packet mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MarkMask {
    /// Beside whatever runs on this host: chosen once, and kept until it is moved.
    #[default]
    Auto,
    /// Nowhere: fief writes no marks.
    None,
    /// There.
    At(MarkLayout),
}

impl TryFrom<String> for MarkMask {
    type Error = String;
    fn try_from(text: String) -> Result<MarkMask, String> {
        match text.as_str() {
            "auto" => Ok(MarkMask::Auto),
            "none" | "0" | "0x0" => Ok(MarkMask::None),
            mask => mask.parse().map(MarkMask::At).map_err(|e: BadMask| format!("{e}, or `auto`, or `none`")),
        }
    }
}

/// The daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Our field in the packet mark.
    pub mark_mask: MarkMask,
    /// Where the `local` rule stands.
    pub local_rule: LocalRule,
    /// By which way tenants' packets pass the host.
    pub host_way: HostWay,
    /// Routing table of slot n is this plus n; a multiple of 256.
    pub table_base: u32,
    /// Preference of the rule that stands before the host's own, 1..=32763; the two behind it are fief's as well.
    pub rule_preference: u32,
    /// Where IPv4 aliases of UDP senders are taken from; /4 to /16.
    pub alias_range: Ipv4Net,
    /// Where the addresses of links to tenants' namespaces are taken from; a /12.
    pub link_range: Ipv4Net,
    /// How long an alias stands for a sender who is silent, in seconds.
    pub alias_idle: u64,
    /// What an uplink must do to count as one that works.
    pub uplinks: Uplinks,
    /// Segments of groups of users on the LAN.
    pub overlay: Overlay,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mark_mask: MarkMask::Auto,
            local_rule: LocalRule::default(),
            host_way: HostWay::default(),
            table_base: 256_000_000,
            rule_preference: 10,
            alias_range: Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 5),
            link_range: Ipv4Net::new_assert(Ipv4Addr::new(248, 0, 0, 0), 12),
            alias_idle: 300,
            uplinks: Uplinks::default(),
            overlay: Overlay::default(),
        }
    }
}

impl Config {
    /// Reads the file; what it leaves out, or a missing file, is the default.
    pub fn read(path: &Path) -> anyhow::Result<Config> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => anyhow::bail!("read {}: {error}", path.display()),
        };
        Config::parse(&text).map_err(|error| error.context(format!("in {}", path.display())))
    }

    fn parse(text: &str) -> anyhow::Result<Config> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Config::default());
        }
        let config: Config = serde_saphyr::from_str(text)?;
        anyhow::ensure!(
            config.table_base.is_multiple_of(256)
                && config.table_base >= 256
                && config.table_base <= u32::MAX - 0xffff,
            "tableBase {} must be a multiple of 256 between 256 and 4294901760: tables hash by their low byte",
            config.table_base
        );
        anyhow::ensure!(
            (3..=32_763).contains(&config.rule_preference),
            "rulePreference {} must lie between 3 and 32763: it, two before and two behind it lie between local and main",
            config.rule_preference
        );
        let class_e = Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4);
        anyhow::ensure!(
            class_e.contains(&config.alias_range)
                && config.alias_range.prefix_len() <= 16
                && config.alias_range.trunc() == config.alias_range,
            "aliasRange {} must be a prefix of at most 16 bits in 240.0.0.0/4, which nobody routes, as in 240.0.0.0/5",
            config.alias_range
        );
        let (links, aliases) = (config.link_range, config.alias_range);
        anyhow::ensure!(
            class_e.contains(&links) && links.prefix_len() == LONGEST && links.trunc() == links,
            "linkRange {links} must be a /{LONGEST} in 240.0.0.0/4, which nobody routes, as in 248.0.0.0/12"
        );
        anyhow::ensure!(
            !aliases.contains(&links) && !links.contains(&aliases),
            "linkRange {links} and aliasRange {aliases} must not overlap"
        );
        anyhow::ensure!(
            (1..=86_400).contains(&config.alias_idle),
            "aliasIdle {} must lie between 1 and 86400 seconds",
            config.alias_idle
        );
        config.uplinks.check()?;
        config.overlay.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_default() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::parse("# nothing\n").unwrap(), Config::default());
        let config = Config::parse("markMask: \"0xffff0000\"\nlocalRule: move\n").unwrap();
        let high = MarkMask::At(MarkLayout::new(0xffff_0000).unwrap());
        assert_eq!((config.mark_mask, config.local_rule), (high, LocalRule::Move));
        assert_eq!(Config::parse("markMask: auto").unwrap(), Config::default());
        assert_eq!(config.table_base, Config::default().table_base);
        assert_eq!(Config::parse("hostWay: short").unwrap(), Config::default());
        assert_eq!(Config::parse("hostWay: whole").unwrap().host_way, HostWay::Whole);
        for none in ["none", "0", "\"0x0\"", "0x0"] {
            let config = Config::parse(&format!("markMask: {none}")).unwrap();
            assert_eq!(config.mark_mask, MarkMask::None, "{none}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_remedy() {
        for (text, says) in [
            ("markMask: \"0xf0f0\"", "adjacent"),
            ("tableBase: 1000", "multiple of 256"),
            ("rulePreference: 2", "between 3 and 32763"),
            ("rulePreference: 32764", "between 3 and 32763"),
            ("localrule: move", "localrule"),
            ("aliasRange: 10.0.0.0/8", "240.0.0.0/4"),
            ("aliasRange: 240.0.0.0/24", "at most 16 bits"),
            ("linkRange: 10.0.0.0/12", "240.0.0.0/4"),
            ("linkRange: 248.0.0.0/16", "must be a /12"),
            ("linkRange: 240.16.0.0/12", "must not overlap"),
            ("aliasIdle: 0", "between 1 and 86400"),
            ("localRule: away", "away"),
            ("hostWay: long", "long"),
            ("overlay: { devise: eth0 }", "devise"),
            ("overlay: { device: \"\" }", "as eth0"),
            ("overlay: { device: a-name-that-is-too-long }", "as eth0"),
            ("overlay: { group4: 192.0.2.1 }", "no multicast address"),
            ("overlay: { group6: \"2001:db8::1\" }", "no multicast address"),
            ("overlay: { group6: \"ff0e::1\" }", "of a link, a site"),
            ("overlay: { port: 0 }", "between 1 and 65535"),
            ("overlay: { minGid: 0 }", "between 1 and 8388607"),
            ("overlay: { minGid: 8388608 }", "between 1 and 8388607"),
            ("overlay: { maxTtl: 0 }", "stays on the LAN"),
            ("overlay: { membersPerGroup: 8193 }", "and 8192"),
            ("overlay: { rate: 0 }", "a frame a second"),
            ("overlay: { macsPerPort: 0 }", "between 1 and 16384"),
            ("overlay: { macsPerPort: 16385 }", "between 1 and 16384"),
            ("overlay: { networksPerGroup: 0 }", "between 1 and 8"),
            ("overlay: { networksPerGroup: 9 }", "between 1 and 8"),
            ("overlay: { expireTime: 0 }", "between 1 and 600 seconds"),
            ("overlay: { expireTime: 601 }", "between 1 and 600 seconds"),
            ("overlay: { peers: /no/such/file }", "/no/such/file"),
            ("uplinks: { prob: {} }", "prob"),
            ("uplinks: { probe: { targets: [\"2001:db8::1\"] } }", "an IPv4 address"),
            ("uplinks: { probe: { targets: [\"192.0.2.1:0\"] } }", "192.0.2.1:443"),
            ("uplinks: { probe: { interval: 5 } }", "as `5s`"),
            ("uplinks: { probe: { interval: 1ms } }", "between 50ms and an hour"),
            ("uplinks: { probe: { interval: 1s, timeout: 2s } }", "one probe ends before the next"),
            ("uplinks: { devices: { eth1: { probe: { fall: 0 } } } }", "uplinks.devices.eth1.probe: fall 0"),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_example_is_a_configuration() {
        let config = Config::parse(include_str!("../../../examples/fiefd/overlay.yaml")).unwrap();
        assert_eq!(config.overlay.device.as_deref(), Some("eth0"));
    }
}
