//! Tenants as rows and as documents.

use fief_api::{Phase, TenantView};
use fief_model::Document;

use crate::table::Table;
use crate::text::bytes;

/// A row shows so many addresses and counts the rest.
const ADDRESSES: usize = 3;

/// The table of tenants, without rows.
pub fn table() -> Table {
    let headers =
        ["NAME", ">SLOT", "ISOLATION", ">TABLE", "MARK", "PHASE", "ADDRESSES", ">RX", ">TX", ">DROPS"];
    Table::new(&headers)
}

/// A tenant's row in it.
pub fn row(view: &TenantView) -> [String; 10] {
    row_in_phase(view, phase(view.status.phase))
}

/// The row of a tenant that is gone.
pub fn row_of_deleted(view: &TenantView) -> [String; 10] {
    row_in_phase(view, "Deleted")
}

/// The documents that make these tenants again.
pub fn documents(views: &[TenantView]) -> String {
    let document = |view: &TenantView| Document::Tenant(view.tenant.clone()).to_yaml();
    views.iter().map(document).collect::<Vec<_>>().join("---\n")
}

fn row_in_phase(view: &TenantView, phase: &str) -> [String; 10] {
    let status = &view.status;
    [
        view.tenant.metadata.name.clone(),
        status.slot.to_string(),
        status.isolation.clone(),
        status.table.to_string(),
        status.mark.clone(),
        phase.to_owned(),
        addresses(view),
        bytes(status.counters.rx_bytes),
        bytes(status.counters.tx_bytes),
        status.counters.drops().to_string(),
    ]
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Ready => "Ready",
        Phase::Pending => "Pending",
    }
}

/// `192.0.2.11/24,2001:db8::11/64,+2`
fn addresses(view: &TenantView) -> String {
    let all = Vec::from_iter(view.tenant.addresses().map(|(_, address)| address.to_string()));
    match all.len().checked_sub(ADDRESSES) {
        None | Some(0) => all.join(","),
        Some(rest) => format!("{},+{rest}", all[..ADDRESSES].join(",")),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use fief_api::{Counters, TenantStatus};
    use fief_model::{Interface, Isolation, Metadata, Tenant, TenantSpec};

    /// A tenant with these addresses on eth0.
    pub fn view(name: &str, addresses: &[&str]) -> TenantView {
        let interface = Interface {
            name: "eth0".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            manage: true,
            default: false,
            neighbours: None,
        };
        let tenant = Tenant {
            metadata: Metadata { name: name.into(), labels: Default::default() },
            spec: TenantSpec {
                isolation: Isolation::Fib,
                interfaces: vec![interface],
                ..TenantSpec::default()
            },
        };
        let counters = Counters { rx_bytes: 2048, drop_spoof: 2, drop_listener: 3, ..Counters::default() };
        let status = TenantStatus {
            slot: 1,
            table: 1001,
            mark: "0x1/0xffff".into(),
            isolation: "fib".into(),
            phase: Phase::Ready,
            conditions: Vec::new(),
            counters,
        };
        TenantView { tenant, set: "default".into(), status }
    }

    #[test]
    fn tenants_are_rows() {
        let mut table = table();
        table.row(row(&view("blue", &["192.0.2.11/24"])));
        table.row(row_of_deleted(&view("red", &[])));
        assert_eq!(
            table.render(),
            "NAME  SLOT  ISOLATION  TABLE  MARK        PHASE    ADDRESSES        RX  TX  DROPS\n\
             blue     1  fib         1001  0x1/0xffff  Ready    192.0.2.11/24  2.0K   0      5\n\
             red      1  fib         1001  0x1/0xffff  Deleted  -              2.0K   0      5\n"
        );
    }

    #[test]
    fn many_addresses_are_counted() {
        let four = ["192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24", "2001:db8::4/64"];
        assert_eq!(addresses(&view("blue", &four)), "192.0.2.1/24,192.0.2.2/24,192.0.2.3/24,+1");
        assert_eq!(addresses(&view("blue", &four[..3])), "192.0.2.1/24,192.0.2.2/24,192.0.2.3/24");
    }
}
