//! The tree, and who does not get it.

use super::*;

fn network() -> NetworkConfig {
    let endpoint = EndpointConfig {
        name: "app1".to_owned(),
        tenant: "blue".to_owned(),
        mac: [2, 0, 0, 0, 0, 1],
        address: None,
        address6: None,
        default_route: true,
        labels: [("app".to_owned(), "shop".to_owned())].into(),
        hostname: "front".to_owned(),
    };
    NetworkConfig {
        key: "blue/web".to_owned(),
        namespace: 1,
        gateway: [192, 0, 2, 1].into(),
        subnet: "192.0.2.0/24".parse().unwrap(),
        gateway6: None,
        subnet6: None,
        leads_out6: false,
        dhcp: None,
        domain: "web.blue.example".to_owned(),
        names: Default::default(),
        ntp: Vec::new(),
        mtu: None,
        upstreams: Vec::new(),
        endpoints: vec![endpoint],
        bridge: 0,
        mac: [0; 6],
    }
}

fn ask(known: bool, method: Method, path: &str, header: Option<&'static str>) -> (u16, String) {
    let network = network();
    let address = [192, 0, 2, 50].into();
    let caller = known.then(|| Caller { network: &network, endpoint: &network.endpoints[0], address });
    let mut headers = HeaderMap::new();
    if let Some(name) = header {
        headers.insert(name, header::HeaderValue::from_static("198.51.100.7"));
    }
    let response = answer(caller, &method, path, &headers);
    (response.status().as_u16(), response.into_body())
}

fn get(path: &str) -> (u16, String) {
    ask(true, Method::GET, path, None)
}

#[test]
fn the_tree() {
    for (path, body) in [
        ("/", "fief/\nlatest/\n"),
        ("/latest", "meta-data/\n"),
        ("/fief/v1/", "endpoint\n"),
        ("/latest/meta-data/instance-id", "blue.app1"),
        ("/latest/meta-data/hostname", "front.web.blue.example"),
        ("/latest/meta-data/local-hostname", "front.web.blue.example"),
        ("/latest/meta-data/local-ipv4", "192.0.2.50"),
        ("/latest/meta-data/mac", "02:00:00:00:00:01"),
        ("/latest/meta-data/network-name", "blue/web"),
        ("/latest/meta-data/tenant", "blue"),
    ] {
        assert_eq!(get(path), (200, body.to_owned()), "{path}");
    }
    // What is listed is there.
    let (_, list) = get("/latest/meta-data/");
    assert_eq!(list.lines().count(), 7);
    for leaf in list.lines() {
        assert_eq!(get(&format!("/latest/meta-data/{leaf}")).0, 200, "{leaf}");
    }
    for path in ["/latest/meta-data/nothing", "/latest/user-data", "/etc/passwd", "/latest/meta-data/../mac"]
    {
        assert_eq!(get(path).0, 404, "{path}");
    }
}

#[test]
fn the_endpoint_as_json() {
    let (status, body) = get("/fief/v1/endpoint");
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    let wanted = json!({
        "tenant": "blue", "network": "blue/web", "endpoint": "app1", "hostname": "front",
        "labels": { "app": "shop" }, "address": "192.0.2.50", "address6": null, "mac": "02:00:00:00:00:01",
    });
    assert_eq!(value, wanted);
}

#[test]
fn who_gets_nothing() {
    let path = "/latest/meta-data/mac";
    assert_eq!(ask(true, Method::HEAD, path, Some("user-agent")).0, 200);
    assert_eq!(ask(false, Method::GET, path, None).0, 404);
    assert_eq!(ask(false, Method::GET, "/", None).0, 404);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(ask(true, method.clone(), path, None).0, 405, "{method}");
    }
    for name in FORWARDED {
        assert_eq!(ask(true, Method::GET, path, Some(name)).0, 403, "{name}");
    }
}
