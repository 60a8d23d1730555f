//! What a mark may mean, to everybody we know.

use serde::Serialize;

use crate::registry::{Mark, Registry, Software, Use};

/// Somebody whose bits a value or mask touches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User<'a> {
    /// The software's short name.
    pub name: &'a str,
    /// The software.
    pub title: &'a str,
    /// How it uses the mark.
    #[serde(rename = "use")]
    pub how: &'a Use,
}

/// One reading of a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reading<'a> {
    /// The software's short name.
    pub name: &'a str,
    /// The software.
    pub title: &'a str,
    /// Which mark it would be.
    pub mark: Mark,
    /// What it says.
    pub says: &'a str,
    /// The numbers in it, with their width in bits.
    pub fields: Vec<(&'a str, u32, u32)>,
}

/// Whose uses touch these bits?
pub fn who(registry: &Registry, bits: u32) -> Vec<User<'_>> {
    let each = registry.software.iter().flat_map(|s| s.uses.iter().map(move |how| (s, how)));
    let touched = each.filter(|(_, how)| how.mask.0 & bits != 0);
    touched.map(|(s, how)| User { name: &s.name, title: &s.title, how }).collect()
}

/// Every reading of a value that fits: by layouts, and, where a software has none that holds, by its uses.
pub fn decode(registry: &Registry, value: u32) -> Vec<Reading<'_>> {
    registry.software.iter().flat_map(|software| readings(software, value)).collect()
}

fn readings(software: &Software, value: u32) -> Vec<Reading<'_>> {
    let reading =
        |mark, says, fields| Reading { name: &software.name, title: &software.title, mark, says, fields };
    let mut found = Vec::new();
    for layout in software.layouts.iter().filter(|layout| layout.holds(value)) {
        // A layout for every value says something only of one that is not empty, and the first that holds is meant.
        let is_known =
            found.iter().any(|known: &Reading<'_>| known.mark == layout.mark && layout.when.is_none());
        if value == 0 || is_known {
            continue;
        }
        let fields =
            layout.fields.iter().map(|(name, field)| (name.as_str(), field.of(value), field.width()));
        found.push(reading(layout.mark, layout.title.as_str(), fields.collect()));
    }
    for how in software.uses.iter().filter(|how| how.fits(value)) {
        // Who has layouts is read by them.
        if software.layouts.iter().all(|layout| layout.mark != how.mark) {
            found.push(reading(how.mark, how.purpose.as_str(), Vec::new()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: u32) -> Vec<String> {
        let registry = Registry::own();
        let show = |r: &Reading<'_>| {
            let fields: Vec<String> = r.fields.iter().map(|(name, n, _)| format!("{name} {n:#x}")).collect();
            format!("{}: {} {}", r.name, r.says, fields.join(" ")).trim().to_owned()
        };
        decode(&registry, value).iter().map(show).collect()
    }

    #[test]
    fn ciliums_identity_is_put_together() {
        let said = said(0x1234_0f56);
        assert!(said.contains(&"cilium: with an identity identity 0x561234".to_owned()), "{said:#?}");
        // It is also Calico's, as far as the bits say.
        assert!(said.iter().any(|line| line.starts_with("calico: ")), "{said:#?}");
        assert!(!said.iter().any(|line| line.starts_with("istio")), "{said:#?}");
    }

    #[test]
    fn a_value_is_only_whose_it_can_be() {
        assert!(said(0x4000).contains(&"kubernetes: to be masqueraded".to_owned()));
        assert!(said(0x40000).contains(&"tailscale: from a subnet route".to_owned()));
        assert!(said(0x539).contains(&"istio: the proxy's own packets".to_owned()));
        assert!(said(0x1_1f90).contains(&"kube-vip: a service's port port 0x1f90".to_owned()));
        assert!(
            said(0x0105_0007)
                .contains(&"eve: app and rule app 0x1 drop 0x0 rule 0x50007 user rule 0x0".to_owned())
        );
        assert_eq!(said(0), Vec::<String>::new());
    }

    #[test]
    fn who_goes_by_bits() {
        let registry = Registry::own();
        let names = |bits: u32| -> Vec<&str> {
            let packet = who(&registry, bits)
                .into_iter()
                .filter(|u| u.how.mark == Mark::Packet && u.how.mask.0 != u32::MAX);
            packet.map(|u| u.name).collect()
        };
        assert_eq!(names(0x40000), ["cilium", "calico", "weave", "tailscale"]);
        assert_eq!(names(0x2000), ["cni-portmap"]);
    }
}
