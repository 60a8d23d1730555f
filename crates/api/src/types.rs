//! The wire types. Every one of them is JSON in camelCase; the OpenAPI document is made from them.

mod flow;
mod policy;

use std::net::IpAddr;

use fief_model::{Diagnostic, Endpoint, Network, Tenant};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use flow::FlowView;
pub use policy::{
    EndView, IdentityView, NamedPortView, PolicyStatus, PolicyTestRequest, PolicyTestResponse, PolicyView,
    RuleView, SideView,
};

/// A document's text as the caller read it, with the name to show in complaints.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SourceText {
    /// File name, or `-` for standard input.
    pub name: String,
    /// YAML, one or more documents.
    pub text: String,
}

/// `POST /v1/apply`: make these documents true.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyRequest {
    /// The documents.
    pub sources: Vec<SourceText>,
    /// The set they belong to; `default` if left out.
    #[serde(default)]
    pub set: Option<String>,
    /// The tenant that all of them belong to: policies that name none get it, and what is another's is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Delete what earlier applies of the same set made and this one does not name.
    #[serde(default)]
    pub prune: bool,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /v1/delete`: delete the objects these documents name (their specs are not looked at).
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteRequest {
    /// The documents.
    pub sources: Vec<SourceText>,
    /// The tenant that all of them belong to, as in an apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// What happens to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Create,
    /// It is there and becomes different.
    Change,
    /// It goes.
    Delete,
    /// It is there as asked.
    Unchanged,
}

/// One object of an apply, delete or diff.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Its kind: `Tenant`, `Network`, `Endpoint` or `NetworkPolicy`.
    pub kind: String,
    /// Its name; of what belongs to a tenant `TENANT/NAME`, of a policy `TENANT/NAMESPACE/NAME`.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// For a change: a unified diff of the two YAML documents, old to new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Where a tenant stands after the call (absent in a dry run and for deletions).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TenantStatus>,
    /// Where a network, an endpoint or a policy stands after the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
}

impl Outcome {
    /// What it still lacks, if it is not Ready.
    pub fn waits_for(&self) -> Option<&[Condition]> {
        let status = self.status.as_ref().map(|status| (status.phase, &status.conditions));
        let standing = self.standing.as_ref().map(|standing| (standing.phase, &standing.conditions));
        status
            .or(standing)
            .filter(|(phase, _)| *phase == Phase::Pending)
            .map(|(_, conditions)| &conditions[..])
    }
}

/// Where a network, an endpoint or a policy stands, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// `Ready` or `Pending`.
    pub phase: Phase,
    /// Why it stands there.
    pub conditions: Vec<Condition>,
}

/// The answer to apply, delete and diff.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplyResponse {
    /// One entry an object, in the order of the documents, deletions last.
    pub outcomes: Vec<Outcome>,
    /// In a dry run: the steps on the host, in order, in words (routes, rules, sysctls, programs).
    #[serde(default)]
    pub steps: Vec<String>,
}

/// A document with where it stands.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantView {
    /// The document.
    #[schema(value_type = Object)]
    pub tenant: Tenant,
    /// The set that made it.
    pub set: String,
    /// Where it stands.
    pub status: TenantStatus,
}

/// A network with where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkView {
    /// The document.
    #[schema(value_type = Object)]
    pub network: Network,
    /// The set that made it.
    pub set: String,
    /// Where it stands.
    pub status: NetworkStatus,
}

/// Where a network stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// `Ready` or `Pending`.
    pub phase: Phase,
    /// Why it stands there; one condition for each thing it lacks.
    pub conditions: Vec<Condition>,
    /// The conntrack zone of its packets: its tenant's slot.
    pub zone: u16,
    /// Where its tenant's namespace has its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its tenant's VRF, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Its bridge there.
    pub bridge: String,
    /// The uplink in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// All of its uplinks, in the order of preference.
    #[serde(default)]
    pub uplinks: Vec<UplinkStatus>,
    /// Addresses that are leased.
    pub leases: usize,
    /// Of a switch: its bridge on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// Of a switch: its ports there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortStatus>,
}

/// A device of the host as the port of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// The uplink as the document names it.
    pub uplink: String,
    /// The VLAN that it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The device that is the port: the uplink, or one of its VLAN.
    pub device: String,
    /// `forwarding`, `blocking`, `listening`, `learning` or `disabled` (IEEE 802.1D), or `absent`: it is no port yet.
    pub state: String,
}

/// Does an uplink work?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UplinkStatus {
    /// The device.
    pub device: String,
    /// Why it does not, as the end of a sentence that begins with its name; left out if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
}

/// An endpoint with where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// The document.
    #[schema(value_type = Object)]
    pub endpoint: Endpoint,
    /// The set that made it.
    pub set: String,
    /// Where it stands.
    pub status: EndpointStatus,
}

/// Where an endpoint stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// `Ready` or `Pending`.
    pub phase: Phase,
    /// Why it stands there; one condition for each thing it lacks.
    pub conditions: Vec<Condition>,
    /// Its interfaces, in the order of the document.
    pub interfaces: Vec<InterfaceStatus>,
}

/// One interface of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStatus {
    /// Its network, `TENANT/NAME`.
    pub network: String,
    /// Its name in the workload.
    pub interface: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Its address: the document's, or the one that is leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

/// Where a tenant stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// Its number on this host.
    pub slot: u16,
    /// Its routing table.
    pub table: u32,
    /// Its packet mark, value and mask, as `0x7/0xffff`.
    pub mark: String,
    /// The isolation in force: `fib`, `vrf` or `netns`.
    pub isolation: String,
    /// `Ready`, `Pending` or `Deleting`.
    pub phase: Phase,
    /// Why it stands there; one condition for each thing the host lacks.
    pub conditions: Vec<Condition>,
    /// What its packets did since the datapath was loaded.
    pub counters: Counters,
}

/// The short of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Phase {
    /// Everything the document asks for is there.
    Ready,
    /// The host lacks something just now; that part of its traffic goes nowhere.
    Pending,
}

/// Something the host lacks or somebody keeps changing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// CamelCase word for programs: `DeviceMissing`, `LinkDown`, `AddressMissing`, `Contended`, ...
    pub reason: String,
    /// Sentence for people, with the name of the thing and the remedy.
    pub message: String,
}

/// Packets of one tenant. Bytes are those of the frame without its Ethernet header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Packets taken from the wire for this tenant.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets of this tenant given to the wire.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Dropped: the address was called on a device that is not this tenant's.
    pub drop_device_in: u64,
    /// Dropped: the source MAC is not among the tenant's `neighbours`.
    pub drop_neighbour: u64,
    /// Dropped: a packet of this tenant for another's (or the host's) address, or the other way round.
    pub drop_crossing: u64,
    /// Dropped: a packet of this tenant about to leave by a device that is not its own.
    pub drop_device_out: u64,
    /// Dropped: the source address is another tenant's.
    pub drop_spoof: u64,
    /// Dropped: the socket it would have reached is another tenant's.
    pub drop_listener: u64,
    /// Dropped: an ICMP redirect; a tenant's routes come from its document alone.
    pub drop_redirect: u64,
    /// Dropped: an answer with this tenant's address as its source and no tenant's mark.
    #[serde(default)]
    pub drop_unmarked: u64,
    /// Dropped: a datagram for a UDP server that does not ask which address was called, where that is refused, or no
    /// alias was left for its sender.
    #[serde(default)]
    pub drop_alias: u64,
    /// Not packets: attempts to act as this tenant, or to change a socket's tenant, that were refused.
    #[serde(default)]
    pub refused: u64,
}

impl Counters {
    /// Packets dropped, whatever the reason.
    pub fn drops(&self) -> u64 {
        // Every field by name: a new reason to drop must be counted here to compile.
        let Counters {
            rx_packets: _,
            rx_bytes: _,
            tx_packets: _,
            tx_bytes: _,
            drop_device_in,
            drop_neighbour,
            drop_crossing,
            drop_device_out,
            drop_spoof,
            drop_listener,
            drop_redirect,
            drop_unmarked,
            drop_alias,
            refused: _,
        } = *self;
        drop_device_in
            + drop_neighbour
            + drop_crossing
            + drop_device_out
            + drop_spoof
            + drop_listener
            + drop_redirect
            + drop_unmarked
            + drop_alias
    }
}

/// A process or thread with its tenant, `GET /v1/processes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    /// The tenant's name, empty for the host.
    pub tenant: String,
    /// The process.
    pub pid: u32,
    /// The thread; the process itself is the thread with its number.
    pub tid: u32,
    /// The effective user.
    pub user: u32,
    /// The program's name, at most 15 bytes.
    pub command: String,
}

/// Whom an alias of a UDP sender stands for, `GET /v1/aliases/{address}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AliasView {
    /// The alias, as servers and their logs show it.
    #[schema(value_type = String)]
    pub alias: IpAddr,
    /// The tenant's name.
    pub tenant: String,
    /// The sender's own address.
    #[schema(value_type = String)]
    pub sender: IpAddr,
    /// The tenant's address that it called.
    #[schema(value_type = String)]
    pub called: IpAddr,
    /// The port that it called.
    pub port: u16,
    /// Seconds since the last datagram in either direction.
    pub idle_seconds: u64,
}

/// A socket with its tenant, `GET /v1/sockets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SocketView {
    /// The tenant's name, or `-` for the host.
    pub tenant: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `ESTABLISHED`, `LISTEN`, ...
    pub state: String,
    /// `address:port`.
    pub local: String,
    /// `address:port`.
    pub remote: String,
}

/// Where the tenant's number stands in marks, `GET /v1/marks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldView {
    /// The field that counts, as `0xffff`; `none` where fief writes no marks.
    pub mask: String,
    /// Another one that is written as well, while the field moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<String>,
    /// How many tenants it holds.
    pub tenants: usize,
    /// Why it stands there.
    pub reason: String,
    /// Where the configuration wants it: another place than `mask` is one that the next start moves it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<String>,
    /// A move that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<MovingView>,
    /// Who else uses its bits: where, what breaks, what to do.
    pub intruders: Vec<String>,
}

/// A field on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovingView {
    /// Where it was.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// `both`: written twice, the old place counts; `read`: the new one counts; `clean`: old bits are taken off.
    pub phase: String,
    /// Sockets that have no new place yet.
    pub sockets_left: usize,
    /// Since when they are waited for, in seconds.
    pub seconds: u64,
}

/// `POST /v1/marks/move`: move the field.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MoveRequest {
    /// Where to; the best place on this host if left out.
    #[serde(default)]
    pub to: Option<String>,
    /// Although somebody uses those bits.
    #[serde(default)]
    pub force: bool,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer to a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoveResponse {
    /// Where the field goes, or would go.
    pub to: String,
    /// Why there.
    pub reason: String,
    /// How many tenants it holds there.
    pub tenants: usize,
    /// Where the field is.
    pub field: FieldView,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonStatus {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its `--root`, `/` if none.
    pub root: String,
    /// The cgroup its socket programs are attached to.
    pub cgroup: String,
    /// The field in the packet mark, as `0xffff`; `none` where fief writes no marks.
    pub mark_mask: String,
    /// `keep` or `move`.
    pub local_rule: String,
    /// Tenants that are Ready.
    pub ready: usize,
    /// Tenants that are Pending.
    pub pending: usize,
    /// Objects put back after somebody changed them, since the daemon started.
    pub repairs: u64,
    /// How long the last reconciliation took, in milliseconds.
    pub last_reconcile_ms: f64,
    /// The global switches that fief has set: name, value before, value now.
    pub sysctls: Vec<SysctlView>,
    /// Trouble of the host as a whole, if any.
    pub conditions: Vec<Condition>,
}

/// A global switch that fief has set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SysctlView {
    /// Name with dots, as sysctl(8) has it.
    pub name: String,
    /// What it was.
    pub before: String,
    /// What it is.
    pub now: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with a remark.
    Warn,
    /// Does not work.
    Fail,
}

/// One line of `fief doctor`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen, in a line.
    pub seen: String,
    /// What to do about it, where something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Any answer that is not a success.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// One sentence.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Complaints about the documents.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub diagnostics: Vec<Diagnostic>,
}
