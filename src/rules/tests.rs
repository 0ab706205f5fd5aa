//! The engine on small rule sets, and every built-in rule on its examples.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::mail::{Address, Client, Direction, Envelope, Mail, Recipient, TransactionId};
use crate::message::{Mailbox, parse};

pub(super) fn envelope(direction: Direction, from: &str, recipients: &[String]) -> Envelope {
    Envelope {
        id: TransactionId::from_random([7; 16]),
        direction,
        client: Client { helo: "mx.example.org".into(), ..Client::new(([192, 0, 2, 1], 25).into()) },
        mail: Mail { reverse_path: Address::parse(from).ok(), ..Mail::default() },
        recipients: recipients.iter().filter_map(|to| Address::parse(to).ok()).map(Recipient::from).collect(),
    }
}

fn compile_text(text: &str) -> (RuleSet, Vec<Problem>) {
    RuleSet::compile(&[Source::new("test.cf", text.as_bytes())])
}

/// Runs rules over a message from `jane@example.org` and checks the symbols that hit.
pub(super) fn check(rules: &str, mail: &str, expected: &[&str]) {
    let (set, problems) = compile_text(rules);
    assert_eq!(problems, [], "{rules}");
    let raw = mail.replace('\n', "\r\n");
    let message = parse(raw.as_bytes());
    let envelope = envelope(Direction::Inbound, "bounce@example.org", &[]);
    let findings = set.evaluate(&Subject::new(&message, raw.as_bytes(), &envelope)).findings;
    let symbols: Vec<_> = findings.iter().map(|finding| finding.symbol.as_str()).collect();
    assert_eq!(symbols, expected, "{rules}\n{mail}");
}

const MAIL: &str = "From: \"Doe, Jane\" <jane@example.org>\nTo: a@example.com\nCc: b@example.com\n\
    Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= from\n here\nMessage-ID: <1@example.org>\n\nOne two\nthree\n\nfour http://a.example/x\n";

#[test]
fn patterns_see_their_part_of_the_message() {
    check("header A Subject =~ /^Grüße from here$/", MAIL, &["A"]);
    check("header A subject:raw =~ /utf-8.*\\n here/s", MAIL, &["A"]);
    check("header A From:addr =~ /^jane@example\\.org$/", MAIL, &["A"]);
    check("header A From:name =~ /^Doe, Jane$/", MAIL, &["A"]);
    check("header A ToCc =~ /^b@/m", MAIL, &["A"]);
    check("header A Bcc =~ /^$/", MAIL, &["A"]);
    check("header A ALL =~ /^Cc: b/m", MAIL, &["A"]);
    check("header A MESSAGEID =~ /example/", MAIL, &["A"]);
    check("header A EnvelopeFrom =~ /^bounce@/", MAIL, &["A"]);
    check("header A exists:cc\nheader B exists:Bcc", MAIL, &["A"]);
    check("header A Bcc !~ /x/\nheader B Subject !~ /Grüße/", MAIL, &["A"]);
    check("header A Bcc =~ /none/ [if-unset: none]", MAIL, &["A"]);
    check("body A /One two three/\nbody B /three four/", MAIL, &["A"]);
    check("body A /^Grüße/\nrawbody B /two\\nthree/", MAIL, &["A", "B"]);
    check("uri A /^http:\\/\\/a\\.example\\/x$/", MAIL, &["A"]);
}

#[test]
fn metas_build_on_other_rules_in_any_order() {
    check("meta A __B && !C\nmeta __B __D\nbody __D /four/\nbody C /five/", MAIL, &["A"]);
    check("meta A (__X + __Y) > 1\nbody __X /One/\nbody __Y /two/", MAIL, &["A"]);
    check("body __A /One/\nmeta B __A", MAIL, &["B"]);
    check("body A /One/\nscore A 0\nmeta B A\nmeta C !A", MAIL, &["C"]);
}

#[test]
fn scores_and_descriptions_are_those_given() {
    let (set, _) = compile_text("body A /One/\nbody T_B /x/\nbody C /y/\nscore C 1 2 3 4\ndescribe C Words");
    let rules: Vec<_> = set.rules().map(|rule| (rule.name, rule.scores, rule.description)).collect();
    assert_eq!(rules, [("A", [1.0; 4], ""), ("T_B", [0.01; 4], ""), ("C", [1.0, 2.0, 3.0, 4.0], "Words")]);
}

#[test]
fn explanations_say_what_was_found() {
    let (set, _) = compile_text("body A /two three/\ndescribe A Counts\nbody B eval:link_says_otherwise()");
    let mail = format!(
        "{}<a href=http://evil.example/>https://www.paypal.com/</a>",
        MAIL.replace("\n\nOne", "\nContent-Type: text/html\n\nOne")
    );
    let envelope = envelope(Direction::Inbound, "a@example.org", &[]);
    let findings = set.evaluate(&Subject::new(&parse(mail.as_bytes()), mail.as_bytes(), &envelope)).findings;
    let words: Vec<_> = findings.iter().map(|finding| finding.explanation.expose().as_str()).collect();
    assert_eq!(words, ["Counts: “two three”.", "The link says www.paypal.com but goes to evil.example."]);
}

#[test]
fn every_line_that_is_not_used_is_reported() {
    let text = "body A /\\Kx/\nfoo bar\nscore B 1\nmeta C D\nmeta E F\nmeta F E\nbody G eval:nothing()\n\
        ifplugin X\nbody H /x/\nendif\nbody I /x/\ntest J ok x\nif 1\n";
    let (set, problems) = compile_text(text);
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "test.cf:1: the escape `\\K` is not supported",
            "test.cf:2: `foo` is not known",
            "test.cf:3: there is no rule `B`",
            "test.cf:4: there is no rule `D`",
            "test.cf:5: `E` depends on itself, or on more than 50 levels of rules",
            "test.cf:6: `F` depends on itself, or on more than 50 levels of rules",
            "test.cf:8: there is no plugin `X` here: the block is left out",
            "test.cf:12: there is no rule `J`",
            "test.cf:13: the block has no `endif`",
        ]
    );
    assert_eq!(set.rules().map(|rule| rule.name).collect::<Vec<_>>(), ["G", "I", "C"]);
    let unsupported: Vec<_> =
        set.unsupported().iter().map(|rule| (rule.rule.as_str(), rule.function.as_str())).collect();
    assert_eq!(unsupported, [("G", "nothing")]);
}

#[test]
fn bytes_that_are_no_text_stand_for_themselves() {
    let check = |bytes: &[u8], expected: &str| assert_eq!(Source::new("a", bytes).text, expected);
    check(b"body A /caf\xe9/\n", "body A /caf\\xE9/\n");
    check(b"body A /caf\\\xe9\\\\\xe9/", "body A /caf\\xE9\\\\\\xE9/");
    check(b"body A /\xc3\xa9/\nbody B /\xe9/\n", "body A /\u{e9}/\nbody B /\\xE9/\n");
    check(b"describe A caf\xe9", "describe A caf\u{e9}");
    check("body A /\u{e9}/".as_bytes(), "body A /\u{e9}/");
}

#[test]
fn what_cannot_hit_here_is_told_apart_from_what_is_wrong() {
    let text = "ifplugin Mail::SpamAssassin::Plugin::Razor2\nbody A eval:check_razor2()\nendif\n\
        if !plugin(Mail::SpamAssassin::Plugin::Razor2)\nheader B eval:check_rbl('x', 'example.org.')\nendif\n\
        if can(Mail::SpamAssassin::Conf::compat_x)\nbody C /x/\nendif\nenable_compat x\n\
        If can(Mail::SpamAssassin::Conf::compat_x)\nbody D /x/\nendif";
    let (set, problems) = compile_text(text);
    let rules: Vec<_> = set.rules().map(|rule| (rule.name, rule.kind)).collect();
    assert_eq!(rules, [("B", Kind::Nothing), ("D", Kind::Body)]);
    assert_eq!(set.unsupported(), []);
    let problems: Vec<_> = problems.iter().map(|found| (found.severity, found.to_string())).collect();
    let reason =
        "test.cf:1: there is no plugin `Mail::SpamAssassin::Plugin::Razor2` here: the block is left out";
    assert_eq!(problems, [(Severity::Warning, reason.to_owned())]);
}

#[test]
fn blocks_includes_and_languages_choose_what_is_read() {
    let main = "if (version >= 4.0) && !plugin(Mail::SpamAssassin::Plugin::Razor2)\nbody A /x/\nelse\nbody B /x/\n\
        endif\nifplugin Mail::SpamAssassin::Plugin::Razor2\nif 1\nbody C /x/\nelse\nbody D /x/\nendif\nelse\n\
        body E /x/\nendif\ninclude more.cf\nlang de describe A Deutsch\nlang en describe A English\n";
    let more = "body F /x/\ninclude more.cf\n";
    let sources = [
        Source::new("rules/main.cf", main.as_bytes()),
        Source { role: Role::Included, ..Source::new("rules/more.cf", more.as_bytes()) },
        Source { role: Role::Included, ..Source::new("rules/other.cf", b"body G /x/") },
    ];
    let (set, problems) = RuleSet::compile(&sources);
    let rules: Vec<_> = set.rules().map(|rule| (rule.name, rule.description)).collect();
    assert_eq!(rules, [("A", "English"), ("E", ""), ("F", "")]);
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems[1..], ["rules/more.cf:2: `more.cf` includes itself"]);
}

#[test]
fn files_are_included_so_many_times_and_by_any_spelling() {
    let twice = |name: &str| format!("include {name}\ninclude ./{name}\n");
    let mut sources = vec![Source::new("rules/0.cf", twice("sub/../1.cf").as_bytes())];
    for number in 1..15 {
        let text = twice(&format!("{}.cf", number + 1));
        let source = Source::new(format!("rules/{number}.cf"), text.as_bytes());
        sources.push(Source { role: Role::Included, ..source });
    }
    sources.push(Source { role: Role::Included, ..Source::new("rules/15.cf", b"body A /x/") });
    assert_eq!(sources[0].includes(), ["rules/1.cf", "rules/1.cf"]);
    let (set, problems) = RuleSet::compile(&sources);
    assert_eq!(set.rules().count(), 1);
    assert!(problems.iter().all(|problem| problem.reason == "files are included more than 1000 times"));
    assert!(!problems.is_empty());
    assert_eq!(source::resolve("a.cf", "../b.cf"), "../b.cf");
    assert_eq!(source::resolve("/x/a.cf", "../../../b.cf"), "/../../b.cf");
}

#[test]
fn rules_are_adjusted_after_they_are_defined() {
    let (set, problems) = compile_text(
        "body A /<inter W><V><I>agra/\nreplace_tag V [v\\/]\nreplace_tag I [i1]\nreplace_inter W \\s?\n\
         replace_rules A\nscore A 1\nscore A (0.5)\nbody N /qqq/\ntflags N nice\nmeta M rules_matching(__X*) > 1\n\
         body __X1 /One/\nbody __X2 /two/\nwhitelist_from a@example.org\nreport_safe 1",
    );
    assert_eq!(problems, []);
    let scores: Vec<_> = set.rules().map(|rule| (rule.name, rule.scores[0])).collect();
    assert_eq!(scores, [("A", 1.5), ("N", -1.0), ("__X1", 1.0), ("__X2", 1.0), ("M", 1.0)]);
    assert_eq!(set.ignored().get("report_safe"), Some(&1));
    let mail = MAIL.replace("four", "v 1agra");
    let message = parse(mail.as_bytes());
    let envelope = envelope(Direction::Inbound, "a@example.org", &[]);
    let hits: Vec<_> = set
        .hits(&Subject::new(&message, mail.as_bytes(), &envelope))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(hits, ["A", "__X1", "__X2", "M"]);
}

#[test]
fn the_rest_of_the_language_runs() {
    let part = "Content-Type: image/gif; name=a.gif\n\nGIF89a";
    let mail = format!(
        "From: a@example.org\nTo: \"B, C\" <b@example.net>, c@example.com\nReceived: from x.example.org ([192.0.2.1])\n\
         Subject: Hello Anna\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n\
         Dear <b>Anna</b> <a href=http://www.evil.example/p>pay here</a>\n\n--b\n{part}\n--b--\n"
    );
    check("mimeheader A Content-Type =~ /name=a\\.gif$/\nmimeheader B Content-Type =~ /pdf/", &mail, &["A"]);
    check("full A /^From: a.*boundary=b/s\nrawbody B /<b>Anna<\\/b>/\nbody C /<b>/", &mail, &["A", "B"]);
    check(
        "uri_detail A text =~ /pay/ host =~ /^www\\.evil/\nuri_detail B text =~ /pay/ domain !~ /evil/",
        &mail,
        &["A"],
    );
    check(
        "body __A /Dear (?<WHO>\\w+)/\nheader A Subject =~ /\\b%{WHO}$/\nheader B Subject =~ /%{NOBODY}/",
        &mail,
        &["A"],
    );
    check(
        "header A To:addr =~ /^b@example\\.net\\nc@example\\.com$/\nheader B To:addr:last =~ /^b/m",
        &mail,
        &["A", "B"],
    );
    check(
        "header A From:addr:domain =~ /^example\\.org$/\nheader B Received:host =~ /^x\\.example\\.org$/",
        &mail,
        &["A", "B"],
    );
    check(
        "header A Received:ip =~ /^192\\.0\\.2\\.1$/\nheader B Received:revip =~ /^1\\.2\\.0\\.192$/",
        &mail,
        &["A", "B"],
    );
    check(
        "body __A /a/i\ntflags __A multiple maxhits=3\nmeta A __A == 3\nbody B /Hello/\ntflags B nosubject",
        &mail,
        &["A"],
    );
    check(
        "body A /x/\nscore A 0 0 1 1\nbody B /pay/\nscore B 0 1 1 1\nbody C /pay/\ntflags C net",
        &mail,
        &[],
    );
}

/// The examples of functions and metas: messages after lines `=== +HIT -MISS recipients=N`.
const EXAMPLES: [(Direction, &str); 2] = [
    (Direction::Inbound, include_str!("../../rules/examples/inbound.txt")),
    (Direction::Outbound, include_str!("../../rules/examples/outbound.txt")),
];

#[test]
fn every_built_in_rule_compiles_hits_and_misses_as_its_examples_say() {
    let mut seen: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut scoring = BTreeSet::new();
    // Whom the examples are addressed to.
    let organisation = Organisation {
        domains: vec!["paypa1s.com".to_owned(), "lazaret-test.org".to_owned()],
        people: vec![Mailbox {
            name: "Robin Example".to_owned(),
            address: "robin@lazaret-test.org".to_owned(),
        }],
        authserv_ids: vec!["mx.lazaret-test.org".to_owned()],
    };
    for (direction, examples) in EXAMPLES {
        let (set, problems) = RuleSet::compile(&RuleSet::built_in_sources(direction));
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
        wrong.extend(set.failed_examples().into_iter().map(|(name, text)| format!("{name}: {text}")));
        let described = set.rules().filter(|rule| !rule.name.starts_with("__"));
        for rule in described {
            assert!(!rule.description.is_empty(), "{} has no description", rule.name);
            scoring.insert(rule.name.to_owned());
        }
        for (name, (hit, miss)) in set.examples() {
            let entry = seen.entry(name.to_owned()).or_default();
            *entry = (entry.0 || hit, entry.1 || miss);
        }
        for example in examples.split("\n=== ").skip(1) {
            let (head, mail) = example.split_once('\n').unwrap();
            let raw = mail.replace('\n', "\r\n");
            let message = parse(raw.as_bytes());
            let count = head.split_whitespace().find_map(|word| word.strip_prefix("recipients="));
            let count: usize = count.map_or(1, |count| count.parse().unwrap());
            let recipients: Vec<_> = (0..count).map(|index| format!("r{index}@example.net")).collect();
            let sender =
                message.header("Return-Path").map(|path| path.value.trim_matches(['<', '>']).to_owned());
            let envelope = envelope(direction, &sender.unwrap_or_default(), &recipients);
            let mut subject = Subject::new(&message, raw.as_bytes(), &envelope);
            let authentication = Authentication::read(&message, &organisation.authserv_ids);
            let evidence = Evidence { bayes: None, authentication };
            (subject.organisation, subject.evidence) = (&organisation, &evidence);
            let hits = set.hits(&subject);
            for word in head.split_whitespace().filter(|word| word.starts_with(['+', '-'])) {
                let (expected, name) = (word.starts_with('+'), word.trim_start_matches(['+', '-']));
                if hits.iter().any(|(hit, _)| *hit == name) != expected {
                    wrong.push(format!("{word}: {}", mail.lines().take(4).collect::<Vec<_>>().join(" | ")));
                }
                let entry = seen.entry(name.to_owned()).or_default();
                *(if expected { &mut entry.0 } else { &mut entry.1 }) = true;
            }
        }
    }
    let missing: Vec<_> =
        scoring.iter().filter(|name| seen.get(*name) != Some(&(true, true))).cloned().collect();
    assert_eq!((wrong, missing), (Vec::<String>::new(), Vec::<String>::new()), "wrong, without examples");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_as_rules(
        lines in proptest::collection::vec(
            "(header|body|meta|uri_detail|mimeheader|if|else|endif|score|replace_tag|replace_rules|tflags|include|lang|test|full|askdns)? ?[ -~\u{e9}]{0,60}",
            0..20,
        ),
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
    ) {
        compile_text(&lines.join("\n"));
        RuleSet::compile(&[Source::new("a.cf", &bytes)]);
    }

    #[test]
    fn any_mail_is_evaluated(
        body in "[ -~\u{e9}\u{430}\u{212a}\n]{0,400}",
        from in "[ -~]{0,40}",
        link in "[!-~]{0,40}",
    ) {
        let raw = format!("From: {from}\nReply-To: {from}\nList-Id: {link}\nContent-Type: text/html\n\n{body}<a href='http://{link}'>{link}</a>");
        for direction in Direction::ALL {
            let envelope = envelope(direction, "a@example.org", &[]);
            set(direction).evaluate(&Subject::new(&parse(raw.as_bytes()), raw.as_bytes(), &envelope));
        }
    }
}

fn set(direction: Direction) -> &'static RuleSet {
    static SETS: std::sync::OnceLock<Vec<RuleSet>> = std::sync::OnceLock::new();
    let sets = SETS.get_or_init(|| Direction::ALL.map(RuleSet::built_in).into());
    &sets[usize::from(direction == Direction::Outbound)]
}
