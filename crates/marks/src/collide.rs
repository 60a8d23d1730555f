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
    (4..=16).rev().find_map(|width| beside(taken, width))
}

/// The lowest field of this width, 4..=16, that shares no bit with these.
pub fn beside(taken: u32, width: u32) -> Option<MarkLayout> {
    let run = u32::MAX.checked_shr(32 - width)?;
    let masks = (0..=32 - width).map(|shift| run << shift);
    masks.filter(|mask| mask & taken == 0).find_map(|mask| MarkLayout::new(mask).ok())
}

/// A part of fief that wants bits of the mark for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand<'a> {
    /// What for.
    pub name: &'a str,
    /// The fewest bits it can do with, and the most it can use; adjacent ones.
    pub width: (u32, u32),
}

/// Not all that was asked for fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} wants {wanted} adjacent bits of the mark, and at most {free} are free beside the others")]
pub struct TooFew {
    /// Who gets nothing.
    pub name: String,
    /// The fewest bits it can do with.
    pub wanted: u32,
    /// The longest run that is left.
    pub free: u32,
}

/// Places for all demands beside what is taken, the first ones first: each gets the least it can do with, and then, in
/// the same order, as much as it can use. The masks are in the order of the demands.
pub fn allocate(taken: u32, demands: &[Demand<'_>]) -> Result<Vec<u32>, TooFew> {
    let place = |widths: &[u32]| {
        let mut taken = taken;
        let mut masks = Vec::with_capacity(widths.len());
        for (demand, width) in demands.iter().zip(widths) {
            let Some(mask) = run(taken, *width) else {
                let free = (1..=32).rev().find(|width| run(taken, *width).is_some()).unwrap_or(0);
                return Err(TooFew { name: demand.name.to_owned(), wanted: *width, free });
            };
            taken |= mask;
            masks.push(mask);
        }
        Ok(masks)
    };
    let mut chosen: Vec<u32> = demands.iter().map(|demand| demand.width.0).collect();
    let mut best = place(&chosen)?;
    for (i, demand) in demands.iter().enumerate() {
        for width in (demand.width.0..=demand.width.1).rev() {
            let wider: Vec<u32> =
                chosen.iter().enumerate().map(|(j, w)| if i == j { width } else { *w }).collect();
            if let Ok(masks) = place(&wider) {
                (chosen, best) = (wider, masks);
                break;
            }
        }
    }
    Ok(best)
}

/// The lowest free run of this many bits.
fn run(taken: u32, width: u32) -> Option<u32> {
    let mask = u32::MAX.checked_shr(32 - width)?;
    (0..=32 - width).map(|shift| mask << shift).find(|mask| mask & taken == 0)
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
    fn every_part_gets_its_bits_or_is_named() {
        let (slot, policy) =
            (Demand { name: "slot", width: (4, 16) }, Demand { name: "policy", width: (2, 8) });
        assert_eq!(allocate(0, &[slot, policy]), Ok(vec![0xffff, 0xff_0000]));
        // Beside Kubernetes, portmap and Calico: thirteen bits for both.
        assert_eq!(allocate(0xffff_e000, &[slot, policy]), Ok(vec![0x7ff, 0x1800]));
        let none = TooFew { name: "policy".into(), wanted: 2, free: 1 };
        assert_eq!(allocate(0xffff_ffe0, &[slot, policy]), Err(none));
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
