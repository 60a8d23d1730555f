//! The names of one network, as it sees them itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};
use ipnet::IpNet;

use crate::NetworkConfig;

/// What a network knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It stands for these addresses; the second is the zone.
    Addresses(Vec<IpAddr>, Name),
    /// It is the reverse name of an address that has this name.
    Name(Name, Name),
    /// It is the network's domain itself.
    Apex(Name),
    /// It exists, with nothing to it: another name ends with it.
    Nothing(Name),
    /// There is no such name on this network.
    NoSuch(Name),
    /// It is not for this network to say.
    Elsewhere,
}

/// The names of one network: documents' names first, then endpoints, then host names that nobody else has.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Lower case, without the dots at the ends; may be empty.
    domain: String,
    /// By name in lower case, without the domain.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// What other names end with.
    inner: BTreeSet<String>,
    reverse: HashMap<IpAddr, String>,
    subnets: Vec<IpNet>,
    forwards: bool,
}

impl View {
    /// The names of a network whose endpoints without an address of their own have those that `leased` says.
    pub(crate) fn new(config: &NetworkConfig, leased: impl Fn(&[u8; 6]) -> Option<Ipv4Addr>) -> View {
        let subnets = [Some(IpNet::from(config.subnet)), config.subnet6.map(IpNet::from)];
        let mut view = View {
            domain: plain(&config.domain),
            subnets: subnets.into_iter().flatten().collect(),
            forwards: !config.upstreams.is_empty(),
            ..View::default()
        };
        for (name, addresses) in &config.names {
            view.add(&relative(&plain(name), &view.domain), addresses);
        }
        let addresses: Vec<Vec<IpAddr>> = config
            .endpoints
            .iter()
            .map(|endpoint| {
                let v4 = endpoint.address.or_else(|| leased(&endpoint.mac)).map(IpAddr::from);
                v4.into_iter().chain(endpoint.address6.map(IpAddr::from)).collect()
            })
            .collect();
        // All endpoints before the first host name: one that is another endpoint's name is not had by asking for it.
        for (endpoint, addresses) in config.endpoints.iter().zip(&addresses) {
            view.add(&plain(&endpoint.name), addresses);
        }
        for (endpoint, addresses) in config.endpoints.iter().zip(&addresses) {
            view.add(&plain(endpoint.hostname()), addresses);
        }
        view
    }

    /// Are there servers for other names?
    pub(crate) fn forwards(&self) -> bool {
        self.forwards
    }

    /// What the network knows of what is asked.
    pub(crate) fn find(&self, asked: &Query) -> Found {
        let name = plain(&asked.name().to_ascii());
        let within = self.within(&name);
        if let Some(short) = within {
            let Ok(zone) = Name::from_ascii(format!("{}.", self.domain)) else { return Found::Elsewhere };
            return match self.names.get(short) {
                _ if short.is_empty() => Found::Apex(zone),
                Some(addresses) => Found::Addresses(addresses.clone(), zone),
                None if self.inner.contains(short) => Found::Nothing(zone),
                None => Found::NoSuch(zone),
            };
        }
        if let Some(addresses) = self.names.get(&name) {
            // The zone is the name itself: what stands above it is not this network's.
            return Found::Addresses(addresses.clone(), asked.name().clone());
        }
        if let Ok(net) = asked.name().parse_arpa_name() {
            return self.find_reverse(net, asked.name());
        }
        // Names of one label mean hosts here; the servers of the world know none. They do know top-level domains, which
        // are asked for by other types.
        let host = !name.is_empty() && !name.contains('.');
        let address = [RecordType::A, RecordType::AAAA].contains(&asked.query_type());
        if host && address { Found::NoSuch(Name::root()) } else { Found::Elsewhere }
    }

    fn find_reverse(&self, net: IpNet, name: &Name) -> Found {
        if !self.subnets.iter().any(|subnet| subnet.contains(&net)) {
            return Found::Elsewhere;
        }
        // The zone of an address: what is left without its last label.
        let zone = name.base_name();
        let host = net.prefix_len() == net.max_prefix_len();
        match self.reverse.get(&net.addr()) {
            Some(found) if host => match self.full(found) {
                Some(found) => Found::Name(found, zone),
                None => Found::NoSuch(zone),
            },
            _ if host => Found::NoSuch(zone),
            _ => Found::Nothing(name.clone()),
        }
    }

    /// The name without the domain, if it is in the domain; empty for the domain itself.
    fn within<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.domain.is_empty() {
            return None;
        }
        let rest = name.strip_suffix(self.domain.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
    }

    fn full(&self, name: &str) -> Option<Name> {
        // A name with dots that stands outside of the domain is one of its own.
        let dot = if self.domain.is_empty() || name.contains('.') { "" } else { "." };
        let domain = if dot.is_empty() { "" } else { self.domain.as_str() };
        Name::from_ascii(format!("{name}{dot}{domain}.")).ok()
    }

    /// Adds a name unless there is one like it.
    fn add(&mut self, name: &str, addresses: &[IpAddr]) {
        if name.is_empty() || self.names.contains_key(name) {
            return;
        }
        for (dot, _) in name.match_indices('.') {
            self.inner.insert(name[dot + 1..].to_owned());
        }
        for address in addresses {
            self.reverse.entry(*address).or_insert_with(|| name.to_owned());
        }
        self.names.insert(name.to_owned(), addresses.to_vec());
    }
}

/// Lower case, without dots at the ends.
fn plain(name: &str) -> String {
    name.trim_matches('.').to_ascii_lowercase()
}

/// A name of a document may be written with the domain.
fn relative(name: &str, domain: &str) -> String {
    let short = name.strip_suffix(domain).filter(|_| !domain.is_empty());
    short.and_then(|short| short.strip_suffix('.')).unwrap_or(name).to_owned()
}
