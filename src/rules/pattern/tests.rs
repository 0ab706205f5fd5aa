use super::*;

/// Checks the first match of a pattern in a text.
fn check(pattern: &str, text: &str, expected: Option<&str>) {
    let found = Pattern::compile(pattern).unwrap().find(text.as_bytes(), 0, &mut Budget::default());
    let found = found.map(|range| String::from_utf8_lossy(&text.as_bytes()[range]).into_owned());
    assert_eq!(found.as_deref(), expected, "{pattern} in {text:?}");
}

#[test]
fn patterns_match_as_in_perl() {
    check("/foo/i", "a FOO", Some("FOO"));
    check("m{^a/b$}", "a/b\n", Some("a/b\n"));
    check("m!a\\!b!", "a!b", Some("a!b"));
    check("/a.c/", "a\nc", None);
    check("/a.c/s", "a\nc", Some("a\nc"));
    check("/^b$/", "a\nb", None);
    check("/^b$/m", "a\nb\nc", Some("b"));
    check("/\\bfoo\\b/", "a foo.", Some("foo"));
    check("/(?:foo|bar){2}/", "xfoobar", Some("foobar"));
    check("/a{,2}b/", "aab", Some("aab"));
    check("/a{x}/", "a{x}", Some("a{x}"));
    check("/{a/", "{a", Some("{a"));
    check("/[]a]b/", "]b", Some("]b"));
    check("/[^]a]b/", "cb", Some("cb"));
    check("/[a&&b~~[]+/", "a&[~", Some("a&[~"));
    check("/[!--]/", "#", Some("#"));
    check("/[[:alpha:]_-]+/", "1a-_", Some("a-_"));
    check("/\\x41\\x{42}\\103\\e?\\cA?/", "ABC", Some("ABC"));
    check("/\\Qa.b\\E./", "a.bc", Some("a.bc"));
    check("/a b # c\n  [ ]d/x", "ab d", Some("ab d"));
    check("/(?i)a(?-i:B)c/", "ABC", Some("ABC"));
    check("/(?i)a(?-i:B)c/", "AbC", None);
    check("/(?^:A)b/i", "Ab", Some("Ab"));
    check("/(?#note)a/", "a", Some("a"));
    check("/a\\Z/", "a\n", Some("a\n"));
    check("/\\h\\R/", "x \r\n", Some(" \r\n"));
    check("/\\#\\ \\_\\</", "# _<", Some("# _<"));
}

#[test]
fn look_around_and_back_references_are_exact() {
    check("/foo(?!bar)/", "foobar foobaz", Some("foo"));
    check("/foo(?!bar)/", "foobar", None);
    check("/(?<!a)foo/", "afoo", None);
    check("/(?<=a)foo/", "afoo", Some("foo"));
    check("/(?=.*x)a+/", "aax", Some("aa"));
    check("/(\\w)\\1/", "abccd", Some("cc"));
    check("/(?<C>[a-c])-\\k<C>/", "a-b b-b", Some("b-b"));
    check("/a++b/", "aab", Some("aab"));
    check("/(?>a+)ab/", "aab", None);
    check("/x(?!a(?=b))y?/", "xab xy", Some("xy"));
    check("/(?i:(?!ab)a)c/", "Ac", Some("Ac"));
}

#[test]
fn bytes_and_characters_are_told_apart() {
    check("/^caf\\xc3\\xa9$/", "caf\u{e9}", Some("caf\u{e9}"));
    check("/[\\xc3][\\xa0-\\xbf]/", "\u{e9}", Some("\u{e9}"));
    check("/(?!x)\\xc3\\xa9/", "\u{e9}", Some("\u{e9}"));
    check("/für/i", "FÜR", Some("FÜR"));
    check("/^.r/", "ür", None);
    check("/^\\p{L}r/", "ür", Some("ür"));
    check("/[ü]/", "xü", Some("ü"));
    check("/(?!x)für/i", "FÜR", Some("FÜR"));
    check("/\\x{fc}/", "ü", Some("ü"));
    let latin = Pattern::compile("/a\\xe9/").unwrap();
    assert_eq!(latin.find(b"xa\xe9", 0, &mut Budget::default()), Some(1..3));
}

#[test]
fn what_cannot_be_compiled_is_refused_with_a_reason() {
    for (source, reason) in [
        ("foo", "the pattern is not enclosed in delimiters"),
        ("/foo", "the pattern is not enclosed in delimiters"),
        ("/foo/1", "the pattern is not enclosed in delimiters"),
        ("/a/e", "the pattern flag `e` is not supported"),
        ("/a\\Kb/", "the escape `\\K` is not supported"),
        ("/(?|a)/", "this kind of group is not supported"),
        ("/(?R)/", "this kind of group is not supported"),
        ("/a\\1/", "a back-reference names no group"),
        ("/(a/", "a group is not closed"),
        ("/a)/", "a group is closed that was not opened"),
        ("/[a/", "a class is not closed"),
        ("/[b-a]/", "a range in a class runs backwards"),
        ("/*a/", "the pattern does not compile: error: repetition operator missing expression"),
    ] {
        assert_eq!(Pattern::compile(source).map(|_| ()), Err(reason.to_owned()), "{source}");
    }
    let deep = format!("/{}a{}/", "(".repeat(200), ")".repeat(200));
    assert!(Pattern::compile(&deep).is_err());
    assert!(Pattern::compile("/(?:a{1000}){9000}/").is_err());
    assert!(Pattern::compile(&format!("/{}/", "a".repeat(300_000))).is_err());
}

#[test]
fn named_groups_capture() {
    let pattern = Pattern::compile("/Hello, (?<WHO>\\w+)(?!x)/").unwrap();
    let captured = pattern.captures(b"Hello, Anna!", &mut Budget::default());
    assert_eq!(captured, [("WHO", b"Anna".to_vec())]);
    // What the pattern looks ahead to is behind the match, and counts.
    let pattern = Pattern::compile("/Hello, (?<WHO>\\w+)(?=!)/").unwrap();
    let captured = pattern.captures(b"Hello, Bob. Hello, Anna!", &mut Budget::default());
    assert_eq!(captured, [("WHO", b"Anna".to_vec())]);
}

#[test]
fn a_pattern_that_explodes_is_stopped_and_named() {
    let pattern = Pattern::compile("/^(?:(?:a|a)+)+(?!b)c/").unwrap();
    let mut budget = Budget::default();
    budget.begin(7);
    let text = format!("{}!c", "a".repeat(5_000));
    assert_eq!(pattern.find(text.as_bytes(), 0, &mut budget), None);
    // The linear pattern knows that there is nothing, so that the other never ran.
    assert!(budget.exceeded().is_empty());
    let pattern = Pattern::compile("/(a*)*\\1{2}(?!c)c/").unwrap();
    assert_eq!(pattern.find(format!("{}c", "a".repeat(5_000)).as_bytes(), 0, &mut budget), None);
    assert_eq!(budget.exceeded(), [7]);
}

proptest::proptest! {
    #[test]
    fn any_pattern_compiles_or_is_refused(body in "[a-c(){}\\[\\]?*+|.^$\\\\<>=!:,0-9xwsbQE-]{0,24}", text in "[a-c ]{0,30}") {
        if let Ok(pattern) = Pattern::compile(&format!("m~{body}~")) {
            pattern.find(text.as_bytes(), 0, &mut Budget::default());
        }
    }
}
