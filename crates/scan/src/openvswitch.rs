//! Flows of the Open vSwitch kernel datapath (net/openvswitch/flow_netlink.c): what has been asked for lately, not what
//! ovs-vswitchd would install for packets still to come.

use std::collections::BTreeMap;

use fief_host::HostError;
use fief_host::netlink::attribute::{all, find, number};
use fief_marks::registry::Mark;

use crate::generic::Family;
use crate::sink::Sink;
use crate::uses::{Effects, Subsystem, Use};

const GET: u8 = 3;
/// `struct ovs_header`: the datapath's device.
const HEADER: usize = 4;
const FLOW_KEY: u16 = 1;
const FLOW_ACTIONS: u16 = 2;
const FLOW_MASK: u16 = 7;
const KEY_MARK: u16 = 15;
const KEY_CT_MARK: u16 = 24;
const ACTION_SET: u16 = 3;
const ACTION_SAMPLE: u16 = 6;
const ACTION_SET_MASKED: u16 = 11;
const ACTION_CT: u16 = 12;
const ACTION_CLONE: u16 = 20;
const ACTION_CHECK_LENGTH: u16 = 21;
const ACTION_DECREMENT_TTL: u16 = 23;
const CT_MARK: u16 = 3;
/// Actions within actions are followed this deep.
const DEPTH: u32 = 8;

/// Looks at the flows of all datapaths; `names` are the devices', for a datapath goes by one.
pub(crate) fn scan(sink: &mut Sink<'_>, names: &BTreeMap<u32, String>) -> Result<(), HostError> {
    let Some(datapaths) = Family::find("ovs_datapath")? else { return Ok(()) };
    let Some(flows) = Family::find("ovs_flow")? else { return Ok(()) };
    let (mut datapaths, mut flows) = (datapaths, flows.with_header(HEADER));
    let mut devices = Vec::new();
    // Not skipped here: the header is what is asked for.
    datapaths
        .dump_with(GET, &[0; HEADER], &[], |body| devices.extend(body.first_chunk::<HEADER>().copied()))?;
    for device in devices {
        let index = u32::from_ne_bytes(device);
        let name = names.get(&index).cloned().unwrap_or_else(|| index.to_string());
        flows.dump_with(GET, &device, &[], |body| {
            sink.seen();
            flow(&name, body, sink);
        })?;
    }
    Ok(())
}

fn flow(datapath: &str, attributes: &[u8], sink: &mut Sink<'_>) {
    let mut effects = Effects::default();
    let key = find(attributes, FLOW_KEY).unwrap_or_default();
    let mask = find(attributes, FLOW_MASK);
    for (kind, mark) in [(KEY_MARK, Mark::Packet), (KEY_CT_MARK, Mark::Connection)] {
        let value = find(key, kind).and_then(number);
        // Without a mask at all every field that is named counts whole.
        let bits = match mask {
            Some(mask) => find(mask, kind).and_then(number),
            None => value.map(|_| u32::MAX),
        };
        if let (Some(value), Some(bits)) = (value, bits.filter(|bits| *bits != 0)) {
            effects.matched(mark, value & bits, bits);
        }
    }
    actions(find(attributes, FLOW_ACTIONS).unwrap_or_default(), DEPTH, &mut effects);
    let template = Use::at(Subsystem::OpenVswitch, format!("datapath {datapath}"), Vec::new());
    effects.uses(&template).for_each(|found| sink.add(found, String::new));
}

fn actions(list: &[u8], depth: u32, effects: &mut Effects) {
    if depth == 0 {
        return;
    }
    for (kind, value) in all(list) {
        let two = |value: &[u8]| Some((number(value)?, number(value.get(4..)?)?));
        match kind {
            ACTION_SET => {
                if let Some(value) = find(value, KEY_MARK).and_then(number) {
                    effects.set(Mark::Packet, value, u32::MAX);
                }
            }
            ACTION_SET_MASKED => {
                if let Some((value, mask)) = find(value, KEY_MARK).and_then(two) {
                    effects.set(Mark::Packet, value, mask);
                }
            }
            ACTION_CT => {
                if let Some((value, mask)) = find(value, CT_MARK).and_then(two) {
                    effects.set(Mark::Connection, value, mask);
                }
            }
            // OVS_SAMPLE_ATTR_ACTIONS.
            ACTION_SAMPLE => actions(find(value, 2).unwrap_or_default(), depth - 1, effects),
            ACTION_CLONE => actions(value, depth - 1, effects),
            // OVS_CHECK_PKT_LEN_ATTR_ACTIONS_IF_GREATER and _IF_LESS_EQUAL.
            ACTION_CHECK_LENGTH => [2, 3]
                .into_iter()
                .filter_map(|case| find(value, case))
                .for_each(|list| actions(list, depth - 1, effects)),
            // OVS_DEC_TTL_ATTR_ACTION: what becomes of a packet that has lived too long.
            ACTION_DECREMENT_TTL => actions(find(value, 1).unwrap_or_default(), depth - 1, effects),
            _ => {}
        }
    }
}

/// For the fuzzer: reads these bytes as a flow.
pub fn fuzz(bytes: &[u8]) {
    let mut quiet = |_| ();
    flow("", bytes, &mut Sink::new(String::new(), &mut quiet));
}
