//! How many Ethernet addresses are known behind whom. The table is read entry by entry, and anybody may ask for his own
//! interfaces as often as he likes.

use std::collections::HashMap;
use std::time::Instant;

use fief_datapath::overlay::maps::Maps;

/// For so many times as long as it took to count, an answer is good enough.
const TIMES: u32 = 10;

/// What was counted last.
#[derive(Default)]
pub(super) struct Counted {
    by_port: HashMap<u32, u32>,
    good_until: Option<Instant>,
}

impl Counted {
    /// Addresses by the number of a port; 0 is all other hosts.
    pub fn of(&mut self, tables: &Maps) -> &HashMap<u32, u32> {
        let began = Instant::now();
        if self.good_until.is_none_or(|until| until < began) {
            self.by_port = tables.addresses();
            let ended = Instant::now();
            self.good_until = Some(ended + ended.saturating_duration_since(began) * TIMES);
        }
        &self.by_port
    }
}
