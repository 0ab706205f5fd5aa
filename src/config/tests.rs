//! What a file may say, and what is told of mistakes.

use super::*;
use crate::ingress::TlsMode;
use crate::relay::tls::TlsPolicy;
use crate::smtp::server::Kind;

fn check(text: &str, expected: &[(Option<usize>, &str)]) {
    let problems = match Config::read(text, |_| None) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.0,
    };
    let found: Vec<(Option<usize>, &str)> =
        problems.iter().map(|problem| (problem.line, problem.key.as_str())).collect();
    assert_eq!(found, expected, "{problems:?}");
}

#[test]
fn the_embedded_default_is_the_documented_one() {
    let config = Config::embedded();
    assert_eq!(config.inbound.listen, Some("127.0.0.1:2525".parse().unwrap()));
    assert_eq!(config.outbound.listen, Some("127.0.0.1:2526".parse().unwrap()));
    assert_eq!(config.web_listen, "127.0.0.1:8025".parse().unwrap());
    assert_eq!(config.data_dir, Path::new("./lazaret-data"));
}

#[test]
fn every_problem_is_reported_with_its_key_and_line() {
    check(
        "hostnam = \"x\"\n[inbound]\nlisten = 25\nnext_hop = \"ftp://x\"\n[outbound]\ntag = 9.0\n[nonsense]\nx = 1\n",
        &[
            (None, "outbound"),
            (Some(1), "hostnam"),
            (Some(3), "inbound.listen"),
            (Some(4), "inbound.next_hop"),
            (Some(7), "nonsense"),
        ],
    );
    check("[inbound\nlisten = \"127.0.0.1:1\"\n", &[(Some(1), "")]);
    check("inbound = 3\n", &[(Some(1), "inbound")]);
}

#[test]
fn what_could_not_work_is_no_value() {
    check("mail_from = \"postmaster\"\n", &[(Some(1), "mail_from")]);
    check("data_dir = \"\"\n", &[(Some(1), "data_dir")]);
}

#[test]
fn contradictions_between_keys_are_found() {
    check("[web]\nlisten = \"127.0.0.1:2525\"\n", &[(Some(2), "web.listen")]);
    check("[inbound]\nnext_hop = \"smtp://127.0.0.1:2526\"\n", &[(Some(2), "inbound.next_hop")]);
    check("[inbound]\nnext_hop = \"smtp://localhost:2526\"\n", &[(Some(2), "inbound.next_hop")]);
    check("[smtp]\nmax_bytes_in_flight = \"1 MiB\"\n", &[(Some(2), "smtp.max_bytes_in_flight")]);
    check("[inbound]\nlisten = \"\"\n", &[(Some(2), "inbound.listen")]);
    check("[inbound]\ntls = \"offered\"\n", &[(Some(2), "inbound.tls")]);
    check("smtp.require_tls_networks = [\"10.0.0.0/8\"]\n", &[(Some(1), "smtp.require_tls_networks")]);
}

#[test]
fn nothing_relays_for_the_world_by_accident() {
    check("[inbound]\nlisten = \"0.0.0.0:25\"\n", &[(None, "inbound.domains")]);
    check("[inbound]\nlisten = \"systemd:mx\"\n", &[(None, "inbound.domains")]);
    check("[[inbound.listener]]\nlisten = \"[::]:25\"\n", &[(None, "inbound.domains")]);
    check("[inbound]\nlisten = \"0.0.0.0:25\"\ndomains = [\"example.org\"]\n", &[]);
    check("[outbound]\nlisten = \"0.0.0.0:25\"\n", &[(None, "outbound.networks")]);
    check("[outbound]\nlisten = \"0.0.0.0:25\"\nnetworks = []\n", &[(Some(3), "outbound.networks")]);
    check("[outbound]\nlisten = \"0.0.0.0:25\"\nnetworks = [\"10.0.0.0/8\"]\n", &[]);
    check("[outbound]\nlisten = \"0.0.0.0:587\"\nauth = \"accounts\"\n", &[(None, "outbound.tls")]);
    check("[outbound]\nlisten = \"systemd:out\"\nauth = \"accounts\"\n", &[(None, "outbound.tls")]);
    check("[outbound]\nauth = \"accounts\"\n", &[]);
    let certificate = "tls.certificates = [{ chain = \"/a\", key = \"/b\" }]\n";
    check(
        &format!(
            "{certificate}[outbound]\nauth = \"accounts\"\n[[outbound.listener]]\nlisten = \"0.0.0.0:587\"\n"
        ),
        &[(Some(4), "outbound.listener[1].tls")],
    );
    check(
        "smtp.proxy_networks = [\"127.0.0.1\"]\n[outbound]\nauth = \"accounts\"\n[[outbound.listener]]\n\
         listen = \"127.0.0.1:587\"\nproxy_protocol = true\n",
        &[(Some(4), "outbound.listener[1].tls")],
    );
    for list in [
        "\"0.0.0.0/0\"",
        "\"::/0\"",
        "\"0.0.0.0/1\", \"128.0.0.0/1\"",
        "\"::ffff:0:0/96\"",
        "\"2000::/3\"",
        "\"x\"",
    ] {
        for key in ["outbound.networks", "smtp.xclient_networks", "smtp.proxy_networks"] {
            let problems = Config::read(&format!("{key} = [{list}]\n"), |_| None).unwrap_err();
            assert!(problems.0[0].key.starts_with(key), "{problems}");
        }
    }
}

#[test]
fn further_listeners_and_routes_stand_in_tables() {
    let config = Config::read(
        r#"
[inbound]
listen = ""
domains = ["example.org", "example.net"]
next_hop = ["smtp://10.0.0.1:25", "smtp://10.0.0.2:25"]

[[inbound.listener]]
listen = "0.0.0.0:25"
tls = "offered"

[[inbound.listener]]
listen = "unix:/run/lazaret/lmtp.sock"
protocol = "lmtp"

[[inbound.route]]
domains = ["example.net"]
next_hops = [
    "smtp://10.0.1.1:25",
    { to = "smtp://10.0.1.2:25", priority = 20, weight = 3, xclient = true, tls = "required", login_file = "/etc/login" },
]

[tls]
certificates = [{ chain = "/etc/mail.pem", key = "/etc/mail.key" }]
"#,
        |_| None,
    )
    .unwrap();
    let listeners = config.inbound.all_listeners();
    assert_eq!(listeners.len(), 2);
    assert_eq!((listeners[0].tls, listeners[1].tls), (TlsMode::Offered, TlsMode::None));
    assert_eq!((listeners[0].protocol, listeners[1].protocol), (Kind::Smtp, Kind::Lmtp));
    let priorities: Vec<u16> = config.inbound.next_hops.iter().map(|target| target.priority).collect();
    assert_eq!(priorities, [10, 20]);
    let [near, far] = &config.inbound.routes[0].next_hops[..] else { panic!() };
    assert_eq!((near.priority, near.weight, near.xclient), (10, 1, false));
    assert_eq!((far.priority, far.weight, far.xclient), (20, 3, true));
    assert_eq!((&near.tls, &far.tls), (&None, &Some(TlsPolicy::Required)));
    assert_eq!(far.login_file.as_deref(), Some(Path::new("/etc/login")));
    assert_eq!(config.tls.certificates.len(), 1);
}

#[test]
fn mistakes_in_tables_and_lists_are_told_with_their_own_line() {
    check(
        "[[inbound.listener]]\nlisten = \"127.0.0.1:1\"\n\n[[inbound.listener]]\nport = 1\ntls = \"no\"\n",
        &[
            (Some(4), "inbound.listener[2].listen"),
            (Some(5), "inbound.listener[2].port"),
            (Some(6), "inbound.listener[2].tls"),
        ],
    );
    check(
        "[outbound]\nnext_hop = [\n  { to = \"smtp://a\", priorty = 1 },\n  \"ftp://b\",\n  3,\n]\n",
        &[
            (Some(3), "outbound.next_hop[1].priorty"),
            (Some(4), "outbound.next_hop[2]"),
            (Some(5), "outbound.next_hop[3]"),
        ],
    );
    check("[inbound]\nlistener = 3\n", &[(Some(2), "inbound.listener")]);
    check("[inbound.listener]\nlisten = \"127.0.0.1:1\"\n", &[(Some(1), "inbound.listener")]);
    check("[[inbound.rout]]\nx = 1\n", &[(Some(1), "inbound.rout")]);
    check("inbound.next_hop = []\n", &[(Some(1), "inbound.next_hop")]);
    check("[[outbound.route]]\nnext_hops = [\"smtp://a\"]\n", &[(Some(1), "outbound.route[1]")]);
    check("[[inbound.listener]]\nlisten = \"127.0.0.1:2526\"\n", &[(None, "outbound.listen")]);
    check(
        "[[inbound.listener]]\nlisten = \"127.0.0.1:1\"\ntls = \"required\"\n",
        &[(Some(3), "inbound.listener[1].tls")],
    );
}

#[test]
fn the_files_that_are_named_must_be_there_and_keys_must_be_private() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let chain = file("chain.pem", "x", 0o644);
    let open = file("open.key", "x", 0o644);
    let text = format!(
        "[tls]\nroots = \"/nowhere/roots.pem\"\ncertificates = [\n{{ chain = \"{chain}\", key = \"{open}\" }},\n\
         {{ chain = \"/nowhere/chain.pem\", key = \"{}\" }}]\n",
        folder.path().display()
    );
    let path = file("lazaret.toml", &text, 0o644);
    let Err(ConfigError::Invalid { problems, .. }) = Config::load(Some(Path::new(&path))) else { panic!() };
    let keys: Vec<&str> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        ["tls.roots", "tls.certificates[1].key", "tls.certificates[2].chain", "tls.certificates[2].key"],
        "{problems}"
    );
    assert!(problems.0.iter().all(|problem| problem.line.is_some()), "{problems}");
}

#[test]
fn resolvers_are_addresses_with_or_without_a_port() {
    let config =
        Config::read("[dns]\nservers = [\"192.0.2.1\", \"[::1]:5353\", \"::1\"]\n", |_| None).unwrap();
    assert_eq!(
        config.dns.servers,
        ["192.0.2.1:53", "[::1]:5353", "[::1]:53"].map(|text| text.parse().unwrap())
    );
    for bad in ["dns.example.org", "0.0.0.0", "192.0.2.1:0", "224.0.0.251"] {
        check(&format!("dns.servers = [\"{bad}\"]\n"), &[(Some(1), "dns.servers[1]")]);
    }
}

#[test]
fn a_misspelt_key_names_the_right_one() {
    let problems = Config::read("[inbound]\nnexthop = \"maildir:\"\n", |_| None).unwrap_err();
    assert!(problems.to_string().contains("did you mean inbound.next_hop?"), "{problems}");
}

#[test]
fn the_environment_stands_over_the_file() {
    let config = Config::read("[inbound]\ntag = 3.0\n", |name| match name {
        "LAZARET_INBOUND_LISTEN" => Some("127.0.0.1:99".to_owned()),
        "LAZARET_INBOUND_TAG" => Some("2.5".to_owned()),
        _ => None,
    })
    .unwrap();
    assert_eq!(config.inbound.listen, Some("127.0.0.1:99".parse().unwrap()));
    assert!((config.inbound.tag - 2.5).abs() < f64::EPSILON);
    let problems =
        Config::read("", |name| (name == "LAZARET_WEB_LISTEN").then(|| "x".to_owned())).unwrap_err();
    assert!(problems.to_string().starts_with("LAZARET_WEB_LISTEN: "), "{problems}");
}

#[test]
fn the_reference_reads_back_as_the_default_and_documents_every_key() {
    let text = reference();
    assert!(Config::read(&text, |_| None).is_ok());
    for key in keys::all() {
        assert!(key.meaning.len() > 10, "{} is not documented", key.name);
        let name = key.name.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("\n{name} = ")), "{}", key.name);
    }
}

#[test]
fn every_example_of_the_manual_is_a_good_configuration() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut examples =
        vec![("lazaret.toml".to_owned(), include_str!("../../systemd/lazaret.toml").to_owned())];
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in pages.chain([root.join("README.md")]).filter(|page| page.is_file()) {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            examples.push((page.display().to_string(), block.to_owned()));
        }
    }
    for (place, example) in examples {
        if let Err(problems) = Config::read(&example, |_| None) {
            panic!("{place}:\n{problems}\n{example}");
        }
    }
}

#[test]
fn passwords_go_over_encrypted_connections_and_mail_not_in_circles() {
    let login = "login_file = \"/etc/login\"";
    let check_next_hop = |next_hop: &str, expected: &[(Option<usize>, &str)]| {
        check(&format!("[outbound]\nnext_hop = [{next_hop}]\n"), expected);
    };
    let in_clear = (Some(2), "outbound.next_hop[1].login_file");
    check_next_hop(&format!("{{ to = \"smtp://a\", {login} }}"), &[in_clear]);
    check_next_hop(&format!("{{ to = \"smtp://a\", tls = \"published\", {login} }}"), &[in_clear]);
    check_next_hop(&format!("{{ to = \"smtp://a\", tls = \"verified\", {login} }}"), &[]);
    check_next_hop(&format!("{{ to = \"smtps://a\", {login} }}"), &[]);
    check_next_hop("{ to = \"smtp://a\", tls = \"verified:\" }", &[(Some(2), "outbound.next_hop[1].tls")]);
    check(
        "[outbound]\nnext_hop = \"smtp://192.0.2.1\"\nauth = \"next_hop\"\n",
        &[(Some(2), "outbound.next_hop[1]")],
    );
    check("[outbound]\nnext_hop = \"smtp://127.0.0.1:26\"\nauth = \"next_hop\"\n", &[]);
    check("[outbound]\nnext_hop = \"maildir:\"\nauth = \"next_hop\"\n", &[(Some(2), "outbound.next_hop[1]")]);
    check_next_hop(&format!("{{ to = \"smtp://127.0.0.1:26\", {login} }}"), &[]);
    check_next_hop(&format!("{{ to = \"smtp://127.0.0.1:26\", tls = \"none\", {login} }}"), &[in_clear]);
    check_next_hop(&format!("{{ to = \"mx://a.example\", {login} }}"), &[in_clear]);
    check_next_hop(&format!("{{ to = \"lmtp:/run/a\", {login} }}"), &[in_clear]);
    // Nobody signs in with the next hop of a route by sender.
    check(
        "[outbound]\nnext_hop = \"smtps://a\"\nauth = \"next_hop\"\n[[outbound.route]]\nnext_hops = [\"smtp://b\"]\n\
         sender_domains = [\"example.org\"]\n[[outbound.route]]\nnext_hops = [\"smtp://b\"]\naccounts = [\"kit\"]\n",
        &[(Some(8), "outbound.route[2].next_hops[1]")],
    );
    check(
        "[inbound]\nnext_hop = \"lmtp:/run/a\"\n[[inbound.listener]]\nlisten = \"unix:/run/a\"\nprotocol = \"lmtp\"\n",
        &[(Some(2), "inbound.next_hop")],
    );
}
