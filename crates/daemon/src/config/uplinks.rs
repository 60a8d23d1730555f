//! `uplinks:` of `fiefd.yaml`: what an uplink must do to count as one that works, beyond a carrier and a route.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde::Deserialize;

/// Uplinks of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Uplinks {
    /// How all of them are probed; left out, they are not.
    probe: Option<Said>,
    /// What is different for one of them, by device.
    devices: BTreeMap<String, Device>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Device {
    probe: Option<Said>,
}

/// What was written of probes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Said {
    targets: Option<Vec<Target>>,
    interval: Option<Span>,
    timeout: Option<Span>,
    fall: Option<u32>,
    rise: Option<u32>,
}

/// How an uplink is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Who is asked; one who answers is enough.
    pub targets: Vec<Target>,
    /// From one probe to the next.
    pub interval: Duration,
    /// An answer that takes longer is none.
    pub timeout: Duration,
    /// Probes in a row without an answer until the uplink does not work.
    pub fall: u32,
    /// Probes in a row with an answer until it works again.
    pub rise: u32,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Target {
    /// The gateway of the device's default route.
    Gateway,
    /// An address, by an ICMP echo.
    Echo(Ipv4Addr),
    /// A TCP port.
    Tcp(SocketAddrV4),
}

impl TryFrom<String> for Target {
    type Error = String;
    fn try_from(text: String) -> Result<Target, String> {
        let of_text = || -> Option<Target> {
            match text.as_str() {
                "gateway" => Some(Target::Gateway),
                text if text.contains(':') => {
                    text.parse().ok().filter(|to: &SocketAddrV4| to.port() > 0).map(Target::Tcp)
                }
                text => text.parse().ok().map(Target::Echo),
            }
        };
        of_text().ok_or_else(|| {
            format!(
                "{text:?} is nobody to ask: write `gateway`, an IPv4 address, or one with a TCP port, as 192.0.2.1:443"
            )
        })
    }
}

/// A time, as `5s` or `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Span, String> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let milliseconds = match unit {
            "ms" => Some(1),
            "s" => Some(1000),
            "m" => Some(60_000),
            _ => None,
        };
        let time = milliseconds.and_then(|unit| number.parse::<u32>().ok().map(|n| u64::from(n) * unit));
        time.map(|time| Span(Duration::from_millis(time)))
            .ok_or_else(|| format!("{text:?} is no time: write it as `5s`, `500ms` or `1m`"))
    }
}

const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(1);
const TIMES: u32 = 3;
/// A shorter time would be the scheduler's to keep, not the uplink's.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(3600);
const MOST_TARGETS: usize = 8;
const MOST_TIMES: u32 = 100;

impl Uplinks {
    /// How a device is probed, if it is.
    pub fn probe(&self, device: &str) -> Option<ProbeSettings> {
        let own = self.devices.get(device).and_then(|device| device.probe.as_ref());
        if own.is_none() && self.probe.is_none() {
            return None;
        }
        let said = [own, self.probe.as_ref()];
        let first = |of: fn(&Said) -> Option<Duration>| said.into_iter().flatten().find_map(of);
        let times = |of: fn(&Said) -> Option<u32>| said.into_iter().flatten().find_map(of).unwrap_or(TIMES);
        let interval = first(|said| said.interval.map(|span| span.0)).unwrap_or(INTERVAL);
        let settings = ProbeSettings {
            targets: said
                .into_iter()
                .flatten()
                .find_map(|said| said.targets.clone())
                .unwrap_or_else(|| vec![Target::Gateway]),
            interval,
            timeout: first(|said| said.timeout.map(|span| span.0)).unwrap_or(TIMEOUT.min(interval)),
            fall: times(|said| said.fall),
            rise: times(|said| said.rise),
        };
        (!settings.targets.is_empty()).then_some(settings)
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let all = self.probe.iter().map(|_| ("uplinks.probe".to_owned(), ""));
        let each = self.devices.keys().map(|name| (format!("uplinks.devices.{name}.probe"), name.as_str()));
        for (place, device) in all.chain(each) {
            let Some(probe) = self.probe(device) else { continue };
            let ProbeSettings { targets, interval, timeout, fall, rise } = probe;
            anyhow::ensure!(
                (SHORTEST..=LONGEST).contains(&interval),
                "{place}: interval {interval:?} must lie between {SHORTEST:?} and an hour"
            );
            anyhow::ensure!(
                (SHORTEST..=interval).contains(&timeout),
                "{place}: timeout {timeout:?} must lie between {SHORTEST:?} and the interval, {interval:?}: \
                 one probe ends before the next"
            );
            for (name, times) in [("fall", fall), ("rise", rise)] {
                anyhow::ensure!(
                    (1..=MOST_TIMES).contains(&times),
                    "{place}: {name} {times} must lie between 1 and {MOST_TIMES} probes"
                );
            }
            anyhow::ensure!(
                targets.len() <= MOST_TARGETS,
                "{place}: {} targets, {MOST_TARGETS} at most: one who answers is enough",
                targets.len()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Uplinks {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn nobody_is_probed_until_somebody_says_so() {
        assert_eq!(Uplinks::default().probe("eth0"), None);
        let uplinks = read("probe: {}");
        let probe = uplinks.probe("eth0").unwrap();
        assert_eq!(probe.targets, [Target::Gateway]);
        assert_eq!((probe.interval, probe.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
        assert_eq!((probe.fall, probe.rise), (3, 3));
    }

    #[test]
    fn a_device_says_what_is_different_for_it() {
        let uplinks = read(
            "probe: { interval: 2s, fall: 4 }\ndevices:\n  wwan0: { probe: { targets: ['192.0.2.1:53', 192.0.2.2], \
             interval: 1m } }\n  ppp0: { probe: { targets: [] } }\n  eth7: {}\n",
        );
        let wwan = uplinks.probe("wwan0").unwrap();
        let far =
            ["192.0.2.1:53".to_owned(), "192.0.2.2".to_owned()].map(|text| Target::try_from(text).unwrap());
        assert_eq!((wwan.targets, wwan.interval, wwan.fall), (far.to_vec(), Duration::from_secs(60), 4));
        assert_eq!(uplinks.probe("ppp0"), None, "nobody to ask");
        assert_eq!(uplinks.probe("eth7"), uplinks.probe("eth0"));
        // One alone.
        let alone = read("devices: { eth1: { probe: { interval: 300ms } } }");
        assert_eq!(alone.probe("eth0"), None);
        assert_eq!(
            alone.probe("eth1").unwrap().timeout,
            Duration::from_millis(300),
            "never beyond the interval"
        );
    }
}
