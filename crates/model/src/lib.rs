//! fief's nouns: what a person writes down (documents), the numbers that follow from it (slots),
//! and the checks that need nothing but the documents themselves.
//!
//! Architecture invariant: this room is pure. It opens no file, asks no kernel, and knows neither the
//! daemon nor the datapath; whatever it says about a document it says from the text alone.
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod document;
pub mod endpoint;
pub mod mac;
pub mod mss;
pub mod network;
pub mod overlap;
pub mod policy;
pub mod schema;
pub mod slot;
pub mod tenant;
pub mod validate;

pub use diagnostic::Diagnostic;
pub use document::{Document, Located, Source, claim, parse};
pub use endpoint::{Attach, Attachment, Endpoint, EndpointMetadata, EndpointPort, EndpointSpec};
pub use mac::Mac;
pub use mss::Mss;
pub use network::{
    Dhcp, Dns, Network, NetworkKind, NetworkSpec, OwnedMetadata, PortMap, Protocol, Reservation,
};
pub use overlap::overlapping;
pub use policy::{NetworkPolicy, Places};
pub use slot::Slot;
pub use tenant::{
    Interface, Isolation, Members, Metadata, Namespace, PolicyMode, Route, RouteKind, Select, Tenant,
    TenantSpec, Udp,
};
pub use validate::{Kept, validate};
