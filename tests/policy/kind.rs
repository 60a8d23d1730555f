//! A policy is a document like the others.

use fief_testkit::DaemonOptions;

use crate::shop::{Shop, WEB, blue, policy, tenant};

#[test]
fn a_file_of_all_kinds_is_applied_and_comes_back_as_it_was() {
    let Some(shop) = Shop::open("policy-kind", DaemonOptions::default()) else { return };
    let all = blue() + WEB;
    let said = shop.apply(&["--dry-run"], &all).ok().stdout;
    assert!(said.contains("networkpolicy/blue/shop/web would be created"), "{said}");
    assert!(said.contains("3 identities get other rules"), "{said}");
    assert_eq!(shop.dump(), "", "a dry run keeps nothing");
    let said = shop.apply(&[], &all).ok().stdout;
    assert!(said.contains("networkpolicy/blue/shop/web created"), "{said}");
    let dump = shop.dump();
    assert!(dump.contains("kind: NetworkPolicy") && dump.contains("fief/tenant: blue"), "{dump}");
    let said = shop.apply(&[], &dump).ok().stdout;
    assert!(!said.contains("changed\n") || said.matches("unchanged").count() == 5, "{said}");
    assert_eq!(shop.dump(), dump);

    let view = shop.daemon.cli(&["get", "policies", "blue/shop/web", "-o", "json"]).ok().json();
    assert_eq!(
        (&view["status"]["phase"], &view["status"]["endpoints"]),
        (&"Ready".into(), &1.into()),
        "{view}"
    );
    for names in [&["web", "--tenant", "blue"][..], &["shop/web"], &["blue/shop/web/more"]] {
        shop.daemon.cli(&[&["get", "policies"], names].concat()).fails();
    }
    let table = shop.daemon.cli(&["get", "policies", "shop/web", "--tenant", "blue"]).ok().stdout;
    assert!(table.contains("blue/shop/web  ingress"), "{table}");
    assert_eq!(shop.daemon.cli(&["get", "policies", "--tenant", "red"]).ok().stdout.lines().count(), 1);
    assert!(shop.daemon.cli(&["get", "all"]).ok().stdout.contains("blue/shop/web"));

    // Elsewhere in a file, it is the same policy, and its lines are the new ones.
    let moved = format!("# a\n# b\n{WEB}");
    let said = shop.apply(&[], &moved).ok().stdout;
    assert_eq!(said, "networkpolicy/blue/shop/web unchanged\n");
    let line = |shop: &Shop| {
        let view = shop.daemon.cli(&["get", "policies", "blue/shop/web", "-o", "json"]).ok().json();
        (view["status"]["rules"][0]["line"].as_u64(), view["status"]["rules"][0]["file"].clone())
    };
    assert_eq!(line(&shop), (Some(9), "-".into()));
    let changed = WEB.replace("port: http", "port: 80");
    let diff = shop.daemon.cli_command(&["diff", "-f", "-"]).input(&changed).run();
    assert_eq!(diff.code(), 1);
    assert!(diff.stdout.contains("+    - port: 80") || diff.stdout.contains("port: 80"), "{diff}");
    assert_eq!(shop.apply(&[], &changed).ok().stdout, "networkpolicy/blue/shop/web changed\n");
    assert_eq!(line(&shop).0, Some(7));
    let status = shop.daemon.cli(&["status", "-o", "json"]).ok().json();
    assert_eq!(status["conditions"], serde_json::json!([]));
}

#[test]
fn policies_go_by_name_by_file_by_prune_and_with_their_tenant() {
    let Some(shop) = Shop::furnished("policy-go") else { return };
    let more = policy("blue", "more", "{ podSelector: {} }");
    shop.apply(&["--set", "two"], &(more.clone() + &policy("blue", "third", "{ podSelector: {} }"))).ok();
    assert_eq!(shop.policies(), ["blue/more", "blue/third", "blue/web"]);
    let said = shop.apply(&["--set", "two", "--prune", "--dry-run"], &more).ok().stdout;
    assert!(said.contains("networkpolicy/blue/shop/third would be deleted"), "{said}");
    shop.apply(&["--set", "two", "--prune"], &more).ok();
    assert_eq!(shop.policies(), ["blue/more", "blue/web"], "the other set's stays");
    shop.daemon.cli_command(&["delete", "-f", "-"]).input(&more).run().ok();
    shop.daemon.cli_command(&["delete", "-f", "-"]).input(&more).run().fails();
    assert_eq!(shop.policies(), ["blue/web"]);
    let said = shop.daemon.cli(&["delete", "policy", "blue/shop/web"]).ok().stdout;
    assert_eq!(said, "networkpolicy/blue/shop/web deleted\n");
    assert!(
        shop.daemon.cli(&["delete", "policy", "blue/shop/web"]).fails().stderr.contains("there is no policy")
    );
    assert_eq!(shop.test("other", "back", "80").code(), 0);

    shop.apply(&[], WEB).ok();
    assert_eq!(shop.test("other", "back", "80").code(), 1);
    // As networks and endpoints do, they go with their tenant.
    let said = shop.daemon.cli(&["delete", "tenant", "blue"]).ok().stdout;
    assert!(said.contains("networkpolicy/blue/shop/web deleted"), "{said}");
    assert_eq!((shop.dump(), shop.identities()), (String::new(), Vec::new()));
    // One without endpoints has policies nonetheless, and they are asked when endpoints come.
    shop.apply(&[], &(tenant("blue") + WEB)).ok();
    let view = shop.daemon.cli(&["get", "policies", "blue/shop/web", "-o", "json"]).ok().json();
    assert_eq!(view["status"]["endpoints"], 0);
    shop.apply(&[], &blue()).ok();
    assert_eq!((shop.test("other", "back", "80").code(), shop.test("front", "back", "http").code()), (1, 0));
}

#[test]
fn what_kubectl_writes_is_taken_with_a_tenant() {
    let Some(shop) = Shop::open("policy-list", DaemonOptions::default()) else { return };
    shop.apply(&[], &(blue() + &tenant("red"))).ok();
    let plain = WEB.replace(", labels: { fief/tenant: blue }", "");
    let item = plain.replace('\n', "\n  ");
    let list =
        format!("apiVersion: v1\nkind: List\nmetadata: {{ resourceVersion: \"\" }}\nitems:\n- {item}\n");
    let said = shop.apply(&[], &list).fails().stderr;
    assert!(said.contains("no tenant's") && said.contains("--tenant blue"), "{said}");
    let validate = |args: &[&str]| {
        shop.daemon.cli_command(&[&["validate", "-f", "-"], args].concat()).input(&list).run()
    };
    validate(&[]).fails();
    validate(&["--tenant", "blue"]).ok();
    shop.apply(&["--tenant", "blue"], &list).ok();
    assert_eq!(shop.policies(), ["blue/web"]);
    shop.apply(&["--tenant", "red"], &plain).ok();
    assert_eq!(shop.policies(), ["blue/web", "red/web"], "the same name in two tenants");
    let said = shop.apply(&["--tenant", "nobody"], &plain).fails().stderr;
    assert!(said.contains("there is no tenant `nobody`"), "{said}");
    // Whatever else is in the file must be that tenant's, too.
    let said = shop.apply(&["--tenant", "red"], &blue()).fails().stderr;
    assert!(said.contains("tenant `blue`'s") && said.contains("-:3:"), "{said}");
    let said = shop.apply(&["--tenant", "red"], WEB).fails().stderr;
    assert!(said.contains("tenant `blue`'s"), "{said}");
    shop.daemon.cli_command(&["delete", "--tenant", "red", "-f", "-"]).input(&plain).run().ok();
    assert_eq!(shop.policies(), ["blue/web"]);
}

#[test]
fn the_files_of_the_configuration_hold_policies_too() {
    let files = vec![("blue.yaml".to_owned(), blue()), ("policies.yaml".to_owned(), WEB.to_owned())];
    let options = DaemonOptions { files, ..DaemonOptions::default() };
    let Some(mut shop) = Shop::open("policy-files", options) else { return };
    assert_eq!(shop.test("other", "back", "80").code(), 1);
    let said = shop.test("front", "back", "http").ok().stdout;
    assert!(said.contains("policies.yaml:7"), "the file's name is the daemon's: {said}");
    std::fs::remove_file(shop.daemon.root().join("etc/fief/policies.yaml")).unwrap();
    shop.daemon.stop();
    shop.daemon.restart();
    assert_eq!(shop.policies(), [""; 0], "what is no longer in the files goes");
    assert_eq!(shop.test("other", "back", "80").code(), 0);
}

#[test]
fn members_see_the_policies_of_their_tenant_and_no_others() {
    let Some(shop) = Shop::furnished("policy-members") else { return };
    let red = tenant("red").replace(
        "metadata: { name: red }\n",
        "metadata: { name: red }\nspec: { members: { users: [\"4711\"] } }\n",
    );
    shop.apply(&[], &(red + &policy("red", "mine", "{ podSelector: {} }"))).ok();
    let run = |words: &[&str]| shop.daemon.cli_command(words).user(4711, 4711).run();
    let listed = run(&["get", "policies", "-o", "json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["policy"]["metadata"]["name"], "mine");
    assert!(run(&["get", "policies", "blue/shop/web"]).fails().stderr.contains("there is no policy"));
    assert_eq!(run(&["get", "identities", "-o", "json"]).ok().json(), serde_json::json!([]));
    let said = run(&["policy", "test", "--from", "blue/front", "--to", "blue/back", "--port", "80"]).fails();
    assert!(said.code() == 2 && said.stderr.contains("there is no endpoint"), "{said}");
    run(&["delete", "policy", "red/shop/mine"]).fails();
}
