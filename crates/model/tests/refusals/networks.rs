//! Networks and endpoints.

use crate::refuse;

/// A tenant, and a network of it whose spec is the fragment.
const NET: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n---\n\
                   apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: web, tenant: blue }\nspec: @\n";
/// A tenant with a network and an endpoint, then another endpoint whose spec is the fragment.
const END: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n---\n\
                   apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: web, tenant: blue }\n\
                   spec: { subnets: [10.10.1.0/24], dhcp: {} }\n---\n\
                   apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: fix, tenant: blue }\n\
                   spec: { subnets: [10.10.2.0/24] }\n---\n\
                   apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: { name: a, tenant: blue }\n\
                   spec: { networks: [{ network: web, address: 10.10.1.20 }], attach: { netns: a } }\n---\n\
                   apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: { name: b, tenant: blue }\nspec: @\n";
/// A document behind a tenant with two networks.
const MORE: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n---\n\
                    apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: web, tenant: blue }\n\
                    spec: { subnets: [10.10.0.0/16], uplinks: [eth0], \
                    portMaps: [{ uplink: eth0, port: 80, to: \"a:80\" }] }\n---\n\
                    apiVersion: fief/v1alpha1\n@\n";

#[test]
fn one_network() {
    refuse(&[
        (NET, "{ subnets: ▸[] }", "{ subnets: [10.10.1.0/24] }", "needs an IPv4 subnet", "10.10.1.0/24"),
        (
            NET,
            "{ subnets: [▸10.10.1.7/24] }",
            "{ subnets: [10.10.1.0/24] }",
            "10.10.1.7/24 is an address in a subnet",
            "write 10.10.1.0/24",
        ),
        (
            NET,
            "{ subnets: [▸10.10.1.0/31] }",
            "{ subnets: [10.10.1.0/30] }",
            "no size for a network",
            "between 8 and 30",
        ),
        (NET, "{ subnets: [▸169.254.1.0/24] }", "{ subnets: [10.0.0.0/8] }", "for metadata", "private"),
        (NET, "{ subnets: [▸248.0.1.0/24] }", "{ subnets: [10.0.0.0/8] }", "fief's own links", "private"),
        (NET, "{ subnets: [▸127.0.1.0/24] }", "{ subnets: [10.0.0.0/8] }", "loopback", "private"),
        (
            NET,
            "{ subnets: [10.1.0.0/24, ▸10.2.0.0/24] }",
            "{ subnets: [10.1.0.0/24, \"fd00:10:1::/64\"] }",
            "a second subnet of its family",
            "a second network",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], gateways: [▸10.2.0.1] }",
            "{ subnets: [10.1.0.0/24], gateways: [10.1.0.254] }",
            "in no subnet of this network",
            "leave `gateways` out",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], gateways: [▸10.1.0.255] }",
            "{ subnets: [10.1.0.0/24], gateways: [10.1.0.254] }",
            "broadcast",
            "a host can have",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], uplinks: [eth0, ▸eth0] }",
            "{ subnets: [10.1.0.0/24], uplinks: [eth0, eth1] }",
            "listed twice",
            "delete",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], mtu: ▸100 }",
            "{ subnets: [10.1.0.0/24], mtu: 9000 }",
            "100 is no MTU",
            "576 and 65535",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], mtu: 1400, mss: ▸1361 }",
            "{ subnets: [10.1.0.0/24], mtu: 1400, mss: 1360 }",
            "1361 is no size",
            "536 to 1360",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], mss: ▸500 }",
            "{ subnets: [10.1.0.0/24], mss: 536 }",
            "500 is no size",
            "or `auto`",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], mss: ▸clamp }",
            "{ subnets: [10.1.0.0/24], mss: auto }",
            "`clamp` is not a segment's size",
            "write `auto`",
        ),
    ]);
}

#[test]
fn dhcp_and_names() {
    refuse(&[
        (
            NET,
            "{ subnets: [10.1.0.0/24], dhcp: { range: ▸10.1.0.9 } }",
            "{ subnets: [10.1.0.0/24], dhcp: { range: 10.1.0.9-10.1.0.20 } }",
            "`10.1.0.9` is not a range",
            "two addresses",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], dhcp: { range: ▸10.1.0.9-10.1.0.2 } }",
            "{ subnets: [10.1.0.0/24], dhcp: { range: 10.1.0.2-10.1.0.9 } }",
            "behind its end",
            "two addresses",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], dhcp: { range: ▸10.1.0.9-10.1.1.2 } }",
            "{ subnets: [10.1.0.0/24], dhcp: {} }",
            "is not in 10.1.0.0/24",
            "addresses of the subnet",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], dhcp: { lease: ▸soon } }",
            "{ subnets: [10.1.0.0/24], dhcp: { lease: 12h } }",
            "`soon` is no time",
            "lease: 60m",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], dhcp: { reservations: [{ mac: \"02:00:00:00:00:07\", address: ▸10.1.0.1 }] } }",
            "{ subnets: [10.1.0.0/24], dhcp: { reservations: [{ mac: \"02:00:00:00:00:07\", address: 10.1.0.7 }] } }",
            "10.1.0.1 is no address for a client",
            "another address",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], dns: { names: { Gw_1: ▸10.1.0.1 } } }",
            "{ subnets: [10.1.0.0/24], dns: { names: { gw: 10.1.0.1 } } }",
            "`Gw_1` is not a name",
            "`gw`",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], dns: { servers: [▸127.0.0.53] } }",
            "{ subnets: [10.1.0.0/24], dns: { servers: [192.0.2.53] } }",
            "loopback",
            "that the tenant can reach",
        ),
    ]);
}

#[test]
fn port_maps() {
    const HEAD: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n---\n\
                        apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: web, tenant: blue }\n\
                        spec: { subnets: [10.1.0.0/24], uplinks: [eth0], portMaps: [@] }\n";
    refuse(&[
        (
            HEAD,
            "{ uplink: ▸eth1, port: 8080, to: \"app2:80\" }",
            "{ uplink: eth0, port: 8080, to: \"app2:80\" }",
            "`eth1` is no uplink of this network",
            "`uplinks`",
        ),
        (
            HEAD,
            "{ uplink: eth0, port: 8080, to: ▸app2 }",
            "{ uplink: eth0, port: 8080, to: \"10.1.0.5:80\" }",
            "`app2` is not a target with a port",
            "app2:80",
        ),
        (
            HEAD,
            "{ uplink: eth0, port: 8080, to: ▸\"10.2.0.5:80\" }",
            "{ uplink: eth0, port: 8080, to: \"10.1.0.5:80\", protocol: udp }",
            "10.2.0.5 is no IPv4 address of this network",
            "app2:80",
        ),
        (
            HEAD,
            "{ uplink: eth0, port: ▸0, to: \"a:80\" }",
            "{ uplink: eth0, port: 1, to: \"a:80\" }",
            "0 is no port",
            "65535",
        ),
        (
            HEAD,
            "{ uplink: eth0, port: 80, to: \"a:80\" }, { uplink: eth0, port: ▸80, to: \"b:80\" }",
            "{ uplink: eth0, port: 80, to: \"a:80\" }, { uplink: eth0, port: 80, to: \"b:80\", protocol: udp }",
            "port 80 of eth0 leads to network `blue/web` already",
            "another port",
        ),
    ]);
}

#[test]
fn one_endpoint() {
    refuse(&[
        (
            END,
            "{ networks: [{ network: web }], attach: ▸{} }",
            "{ networks: [{ network: web }], attach: { pid: 7 } }",
            "does not say what is attached",
            "netns: NAME",
        ),
        (
            END,
            "{ networks: [{ network: web }], attach: ▸{ pid: 7, tap: t } }",
            "{ networks: [{ network: web }], attach: { tap: t } }",
            "more than once",
            "one of",
        ),
        (
            END,
            "{ networks: [{ network: web }], attach: { netns: ▸a/b } }",
            "{ networks: [{ network: web }], attach: { netns: /run/netns/b } }",
            "`a/b` is no network namespace",
            "path from the root",
        ),
        (
            END,
            "{ networks: [{ network: web }, { network: ▸web, interface: eth1 }], attach: { netns: b } }",
            "{ networks: [{ network: web }, { network: fix, interface: eth1, address: 10.10.2.2 }], attach: { netns: b } }",
            "on `web` already",
            "delete",
        ),
        (
            END,
            "{ networks: [{ network: ▸fix }], attach: { netns: b } }",
            "{ networks: [{ network: fix, address: 10.10.2.9 }], attach: { netns: b } }",
            "gives no addresses",
            "dhcp: {}",
        ),
        (
            END,
            "{ networks: [{ network: fix, address: ▸10.10.3.9 }], attach: { netns: b } }",
            "{ networks: [{ network: fix, address: 10.10.2.9 }], attach: { netns: b } }",
            "10.10.3.9 is no address for an endpoint of `fix`",
            "10.10.2.0/24",
        ),
        (
            END,
            "{ networks: [{ network: fix, address: ▸10.10.2.1 }], attach: { netns: b } }",
            "{ networks: [{ network: fix, address: 10.10.2.2 }], attach: { netns: b } }",
            "10.10.2.1 is no address",
            "not its gateway",
        ),
        (
            END,
            "{ networks: [{ network: web, address: ▸10.10.1.20 }], attach: { netns: b } }",
            "{ networks: [{ network: web, address: 10.10.1.21 }], attach: { netns: b } }",
            "endpoint `blue/a` has the same address",
            "another one",
        ),
        (
            END,
            "{ networks: [{ network: web, mac: ▸\"03:00:00:00:00:01\" }], attach: { netns: b } }",
            "{ networks: [{ network: red/web, mac: \"02:00:00:00:00:01\" }], attach: { netns: b } }",
            "no address of one interface",
            "even",
        ),
    ]);
}

#[test]
fn what_belongs_to_what() {
    const FIB: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\nspec: @\n---\n\
                       apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: web, tenant: blue }\n\
                       spec: { subnets: [10.10.0.0/16] }\n";
    refuse(&[
        (
            MORE,
            "kind: Network\nmetadata: { name: x, tenant: ▸grey }\nspec: { subnets: [10.9.0.0/24] }",
            "kind: Network\nmetadata: { name: x, tenant: blue }\nspec: { subnets: [10.9.0.0/24] }",
            "there is no tenant `grey`",
            "kind: Tenant",
        ),
        (
            MORE,
            "kind: Network\nmetadata: { name: ▸web, tenant: blue }\nspec: { subnets: [10.9.0.0/24] }",
            "kind: Network\nmetadata: { name: api, tenant: blue }\nspec: { subnets: [10.9.0.0/24] }",
            "network `blue/web` is described twice",
            "t.yaml:7:19",
        ),
        (
            MORE,
            "kind: Network\nmetadata: { name: x, tenant: blue }\nspec: { subnets: [▸10.10.9.0/24] }",
            "kind: Network\nmetadata: { name: x, tenant: blue }\nspec: { subnets: [10.11.9.0/24] }",
            "overlaps with 10.10.0.0/16 of network `web`",
            "tenants may overlap",
        ),
        (
            MORE,
            "kind: Network\nmetadata: { name: x, tenant: blue }\nspec: { subnets: [▸10.0.0.0/8] }",
            "kind: Network\nmetadata: { name: x, tenant: blue }\nspec: { subnets: [11.0.0.0/8] }",
            "overlaps with 10.10.0.0/16 of network `web`",
            "tenants may overlap",
        ),
        (
            FIB,
            "{ isolation: ▸fib }",
            "{ isolation: netns }",
            "cannot be `fib`: it has networks (`web`)",
            "auto",
        ),
        (
            FIB,
            "{ interfaces: ▸[{ name: eth0, default: true }] }",
            "{ isolation: auto }",
            "cannot have interfaces of the host",
            "`uplinks`",
        ),
    ]);
}
