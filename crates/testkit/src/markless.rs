//! Daemons that write no packet marks: everything that runs with them, or the scenarios of one test.

use std::cell::Cell;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// Are daemons to write no marks (`markMask: none`), unless a test says where? So says `FIEF_TEST_MARK_MASK=none`, or a
/// test that runs [`without_marks`].
pub fn is_markless() -> bool {
    HERE.get() || std::env::var_os("FIEF_TEST_MARK_MASK").is_some_and(|mask| mask == "none")
}

/// Runs a scenario whose daemons write no marks.
pub fn without_marks(scenario: impl FnOnce()) {
    HERE.set(true);
    scenario();
    HERE.set(false);
}
