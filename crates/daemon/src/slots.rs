//! Handing out slots.

use std::collections::BTreeSet;

use fief_marks::MarkLayout;
use fief_model::Slot;

/// There is no slot left.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} holds {capacity} tenants and {used} are there; {remedy}")]
pub struct NoSlotLeft {
    place: String,
    capacity: usize,
    used: usize,
    remedy: &'static str,
}

/// The lowest `count` slots that no tenant has and no live socket carries, ascending. Without a field in the marks there is
/// room for all that there can be.
pub fn allocate(
    layout: Option<MarkLayout>,
    taken: &BTreeSet<Slot>,
    carried: &BTreeSet<u16>,
    count: usize,
) -> Result<Vec<Slot>, NoSlotLeft> {
    let highest = layout.map_or(u16::MAX, MarkLayout::highest);
    let is_free = |slot: &Slot| !taken.contains(slot) && !carried.contains(&slot.number());
    let free: Vec<Slot> = Slot::up_to(highest).filter(is_free).take(count).collect();
    if free.len() == count {
        return Ok(free);
    }
    let capacity = Slot::up_to(highest).count();
    let (place, remedy) = match layout {
        Some(layout) => (
            format!("the mark field {layout}"),
            "delete some, or give fief a wider field: markMask in fiefd.yaml",
        ),
        None => ("a host".to_owned(), "delete some, or spread them over several hosts"),
    };
    Err(NoSlotLeft { place, capacity, used: taken.len(), remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_ones_come_first_and_carried_ones_rest() {
        let taken = [1, 3].into_iter().filter_map(Slot::new).collect();
        let slots = allocate(Some(MarkLayout::default()), &taken, &BTreeSet::from([2, 5]), 3).unwrap();
        assert_eq!(slots.iter().map(|s| s.number()).collect::<Vec<_>>(), [4, 6, 7]);
    }

    #[test]
    fn a_full_field_says_how_many_it_holds() {
        let layout = MarkLayout::new(0xf0).unwrap();
        let error = allocate(Some(layout), &BTreeSet::new(), &BTreeSet::new(), 16).unwrap_err();
        assert!(error.to_string().contains("0xf0 holds 15 tenants"), "{error}");
        assert_eq!(allocate(Some(layout), &BTreeSet::new(), &BTreeSet::new(), 15).unwrap().len(), 15);
    }
}
