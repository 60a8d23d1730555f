//! Who gets in whose way, and where there is room.

use serde::Serialize;

use crate::MarkLayout;
use crate::registry::{Mark, Software};

/// Two who use the same bits of the same mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Collision {
    /// Their short names.
    pub between: [String; 2],
    /// Which mark.
    pub mark: Mark,
    /// The bits they share.
    pub bits: u32,
    /// What each does with them.
    pub purposes: [String; 2],
}

/// Every pair among these that shares bits of a mark; each pair of uses is told once.
pub fn collisions(software: &[&Software]) -> Vec<Collision> {
    let mut found = Vec::new();
    for (i, one) in software.iter().enumerate() {
        for other in &software[i + 1..] {
            for a in &one.uses {
                for b in other.uses.iter().filter(|b| b.mark == a.mark && b.mask.0 & a.mask.0 != 0) {
                    found.push(Collision {
                        between: [one.name.clone(), other.name.clone()],
                        mark: a.mark,
                        bits: a.mask.0 & b.mask.0,
                        purposes: [a.purpose.clone(), b.purpose.clone()],
                    });
                }
            }
        }
    }
    found
}

/// The widest field of at most 16 bits that lies beside all of these, the lowest of equals; `None` if fewer than four
/// adjacent bits are free.
pub fn room(taken: u32) -> Option<MarkLayout> {
    let fits = |width: u32, shift: u32| {
        let mask = (u32::MAX >> (32 - width)) << shift;
        (mask & taken == 0).then_some(mask)
    };
    let masks = (4..=16).rev().flat_map(|width| (0..=32 - width).map(move |shift| (width, shift)));
    masks.into_iter().find_map(|(width, shift)| MarkLayout::new(fits(width, shift)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn who_shares_bits_is_named() {
        let registry = Registry::own();
        let named =
            |names: &[&str]| -> Vec<&Software> { names.iter().map(|n| registry.named(n).unwrap()).collect() };
        assert_eq!(collisions(&named(&["kubernetes", "cni-portmap", "calico"])), []);
        let found = collisions(&named(&["calico", "tailscale"]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].bits, found[0].mark), (0xc_0000, Mark::Packet));
        // Istio's connection mark says nothing of Kubernetes' packet mark.
        assert_eq!(collisions(&named(&["kubernetes", "istio"])), []);
    }

    #[test]
    fn the_widest_free_run_is_taken() {
        let mask = |taken| room(taken).map(MarkLayout::mask);
        assert_eq!(mask(0), Some(0xffff));
        assert_eq!(mask(0xffff), Some(0xffff_0000));
        assert_eq!(mask(0xffff_e000), Some(0x1fff), "beside Kubernetes, portmap and Calico");
        assert_eq!(mask(0xffff_efff), None, "and ztunnel: only bit 12 is left");
        assert_eq!(mask(u32::MAX), None);
        assert_eq!(mask(0xff0f_ffff), Some(0xf0_0000));
    }
}
