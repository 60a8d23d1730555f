//! Address translation (`snat`, `dnat`).

use std::net::IpAddr;

use super::encode::{expression, number, register, value};
use super::field::look_up;
use super::{Field, Set, Type, Value};
use crate::Family;

/// To what an address is translated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Translation {
    /// To this address, and this port if there is one.
    Constant(IpAddr, Option<u16>),
    /// To what a map says, see [`Translation::by`].
    Map {
        /// The key.
        fields: Vec<Field>,
        /// The map's name.
        map: String,
        /// The family of its addresses.
        family: Family,
        /// Does it say ports too?
        port: bool,
    },
}

impl Translation {
    /// To what a map says of these fields: an address, or an address and a port, by the types of its data. Packets that it
    /// does not know pass by this rule.
    pub fn by(map: &Set, fields: &[Field]) -> Translation {
        Translation::Map {
            fields: fields.to_vec(),
            map: map.name().to_owned(),
            family: map.data_family(),
            port: map.data_types().get(1) == Some(&Type::Port),
        }
    }

    /// Adds what loads the registers, and the `nat` expression: 0 for the source, 1 for the destination.
    pub(super) fn encode(&self, kind: u32, into: &mut Vec<u8>) {
        let (family, port) = match self {
            Translation::Constant(address, port) => {
                let family = Family::of(*address);
                load(into, register(0), &Value::from(*address));
                if let Some(port) = port {
                    load(into, port_register(family), &Value::Port(*port));
                }
                (family, port.is_some())
            }
            Translation::Map { fields, map, family, port } => {
                look_up(fields, map, register(0), into);
                (*family, *port)
            }
        };
        expression(into, "nat", |nat| {
            number(nat, 1, kind);
            number(nat, 2, u32::from(family.af()));
            number(nat, 3, register(0));
            if port {
                number(nat, 5, port_register(family));
            }
        });
    }
}

/// Behind the address.
fn port_register(family: Family) -> u32 {
    register(if family == Family::V4 { 1 } else { 4 })
}

fn load(into: &mut Vec<u8>, register: u32, constant: &Value) {
    expression(into, "immediate", |immediate| {
        number(immediate, 1, register);
        value(immediate, 2, &constant.bytes());
    });
}
