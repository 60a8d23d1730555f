//! Does an uplink answer? Pure: what probes brought goes in, and the mind is changed slowly.

/// How often in a row it must be otherwise until the mind is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Without an answer, for one that answered.
    pub fall: u32,
    /// With an answer, for one that did not.
    pub rise: u32,
}

/// What is believed of an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    answers: bool,
    /// Probes in a row that say otherwise.
    against: u32,
}

impl Verdict {
    /// What was believed before the first probe.
    pub fn new(answers: bool) -> Verdict {
        Verdict { answers, against: 0 }
    }

    /// Takes in one probe; says whether that changed the mind.
    pub fn hear(&mut self, answered: bool, patience: Patience) -> bool {
        if answered == self.answers {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let enough = if self.answers { patience.fall } else { patience.rise };
        if self.against < enough {
            return false;
        }
        *self = Verdict::new(answered);
        true
    }

    /// Is it believed to answer?
    pub fn answers(self) -> bool {
        self.answers
    }

    /// Starts counting anew, without another mind: what came before was another wire.
    pub fn begin_again(&mut self) {
        self.against = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { fall: 3, rise: 2 };

    /// Where the mind is changed, by the number of the probe; `+` is one with an answer.
    fn changes(answers: bool, probes: &str) -> Vec<usize> {
        let mut verdict = Verdict::new(answers);
        let heard = probes.chars().enumerate().filter(|(_, c)| verdict.hear(*c == '+', PATIENCE));
        heard.map(|(at, _)| at).collect()
    }

    #[test]
    fn the_mind_is_changed_by_enough_in_a_row() {
        assert_eq!(changes(true, "++--"), [] as [usize; 0]);
        assert_eq!(changes(true, "++---"), [4]);
        assert_eq!(changes(true, "---++"), [2, 4]);
        assert_eq!(changes(false, "-+-++"), [4]);
        assert_eq!(changes(false, "-----"), [] as [usize; 0]);
    }

    #[test]
    fn one_that_flaps_faster_changes_no_mind() {
        assert_eq!(changes(true, &"--+".repeat(50)), [] as [usize; 0]);
        assert_eq!(changes(false, &"+-".repeat(50)), [] as [usize; 0]);
        // And never faster than so many probes.
        assert_eq!(changes(true, &"---++".repeat(3)), [2, 4, 7, 9, 12, 14]);
    }

    #[test]
    fn what_came_before_a_pause_does_not_count() {
        let mut verdict = Verdict::new(true);
        assert!(!verdict.hear(false, PATIENCE) && !verdict.hear(false, PATIENCE));
        verdict.begin_again();
        assert!(!verdict.hear(false, PATIENCE) && !verdict.hear(false, PATIENCE));
        assert!(verdict.hear(false, PATIENCE) && !verdict.answers());
    }
}
