//! What somebody asks for, and whether his namespace may have it.

use fief_host::namespaces::{Namespace, Owner};
use fief_host::teeth::is_off;
use fief_overlay::Segment;

use super::{LARGEST_MTU, Refusal, SMALLEST_MTU, unavailable};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The segment.
    pub segment: Segment,
    /// Who asks.
    pub user: u32,
    /// The interface's name.
    pub device: String,
    /// Its MTU.
    pub mtu: Option<u32>,
}

impl Wish {
    /// May this namespace have that interface?
    pub(super) fn check(&self, namespace: &Namespace) -> Result<(), Refusal> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
        let device = &self.device;
        if device.is_empty()
            || device.len() > 15
            || !device.bytes().all(fits)
            || device == "."
            || device == ".."
        {
            return Err(Refusal::Wrong(format!(
                "`{device}` is no name of an interface: 1 to 15 letters and digits, as eth0"
            )));
        }
        if self.mtu.is_some_and(|mtu| !(SMALLEST_MTU..=LARGEST_MTU).contains(&mtu)) {
            return Err(Refusal::Wrong(format!("an MTU lies between {SMALLEST_MTU} and {LARGEST_MTU}")));
        }
        if self.user == 0 || is_off("overlay-owner") {
            return Ok(());
        }
        if namespace.identity() == Namespace::current().identity() {
            let text = "this is the host's own network namespace; make one of your own: unshare --map-root-user --net";
            return Err(Refusal::Forbidden(text.into()));
        }
        match namespace.owner().map_err(unavailable)? {
            Owner::User(owner) if owner == self.user => Ok(()),
            Owner::User(owner) => {
                let text =
                    format!("this network namespace belongs to user {owner}, and not to user {}", self.user);
                Err(Refusal::Forbidden(text))
            }
            Owner::Root => {
                let text = "this network namespace belongs to root; root can join it, or make one of your own: \
                        unshare --map-root-user --net";
                Err(Refusal::Forbidden(text.into()))
            }
        }
    }
}
