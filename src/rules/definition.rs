//! What rule files define, before it is compiled: every name once, with all that was said of it.

use super::meta::Expr;

/// What a pattern looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Target {
    /// Subject and visible text, white space collapsed, a paragraph at a time.
    Body,
    /// The decoded text of the text parts, markup and line breaks included.
    RawBody,
    /// The message as it came.
    Full,
    /// Link targets, one at a time.
    Uri,
    /// Header fields of a name in lower case, or a pseudo header: `ALL`, `MESSAGEID`, `tocc` and others.
    Header { name: String, form: Form },
    /// Header fields of a name in lower case, of all parts.
    MimeHeader { name: String, is_raw: bool },
}

/// Which form of a header field, as its modifiers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Form {
    /// `:raw`, as it stands.
    pub(super) is_raw: bool,
    /// `:first` or `:last` of several fields.
    pub(super) choice: Choice,
    /// The piece of each field.
    pub(super) piece: Piece,
}

/// Which of several fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) enum Choice {
    #[default]
    All,
    First,
    Last,
}

/// Which piece of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) enum Piece {
    #[default]
    Whole,
    /// `:addr`, addresses.
    Address,
    /// `:name`, display names.
    Name,
    /// `:host`, host names in it.
    Host,
    /// `:domain`, their organisational domains.
    Domain,
    /// `:ip`, addresses of the internet protocol in it.
    Ip,
    /// `:revip`, the same with its octets reversed.
    ReverseIp,
}

/// A pattern and how it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// In Perl's spelling, with delimiters and flags; replacement tags are already put in, `%{NAME}` is not.
    pub(super) source: String,
    /// `!~`
    pub(super) is_negated: bool,
    /// What is looked at instead when there is no such field.
    pub(super) if_unset: Option<String>,
}

/// One condition on a link (`uri_detail`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkCondition {
    /// `raw`, `type`, `cleaned`, `text`, `domain` or `host`.
    pub(super) key: String,
    /// The pattern.
    pub(super) pattern: Pattern,
}

/// How a rule is tested.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    /// A pattern over a part of the message.
    Pattern { target: Target, pattern: Pattern },
    /// `exists:Name`, the name in lower case.
    Exists(String),
    /// `eval:name(arguments)`.
    Eval { function: String, arguments: Vec<String> },
    /// All conditions on one link.
    Link(Vec<LinkCondition>),
    /// A meta expression.
    Meta(Expr<String>),
    /// A look-up in the network that a statement of its own describes (`urirhssub`, `askdns`, ...).
    Network,
}

/// The flags of a rule (`tflags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the language")]
pub(super) struct Flags {
    pub(super) multiple: bool,
    pub(super) max_hits: Option<u32>,
    pub(super) no_subject: bool,
    pub(super) net: bool,
    pub(super) nice: bool,
    pub(super) learn: bool,
    pub(super) user_conf: bool,
    pub(super) no_auto_learn: bool,
    pub(super) auto_learn_force: bool,
    pub(super) publish: bool,
    /// Its points are not fitted.
    pub(super) fixed: bool,
}

impl Flags {
    /// Returns the names of the flags that are set.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let all = [
            (self.multiple, "multiple"),
            (self.no_subject, "nosubject"),
            (self.net, "net"),
            (self.nice, "nice"),
            (self.learn, "learn"),
            (self.user_conf, "userconf"),
            (self.no_auto_learn, "noautolearn"),
            (self.auto_learn_force, "autolearn_force"),
            (self.publish, "publish"),
            (self.fixed, "fixed"),
        ];
        all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
    }
}

/// A rule with all that was said of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) test: Test,
    /// Without Bayes and network, with network, with Bayes, with both.
    pub(super) scores: [f64; 4],
    pub(super) flags: Flags,
    /// Lower runs first.
    pub(super) priority: i32,
    pub(super) description: String,
    /// The name of the source and the line of the test.
    pub(super) place: (String, usize),
}

/// An example of a rule (`test NAME ok|fail TEXT`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    pub(super) rule: String,
    pub(super) is_hit: bool,
    pub(super) text: String,
}

/// Everything that rule files say.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// In the order of first definition.
    pub(super) rules: Vec<Definition>,
    pub(super) examples: Vec<Example>,
    /// The other statements.
    pub(super) settings: Settings,
    /// How many statements of each keyword mean nothing here.
    pub(super) ignored: std::collections::BTreeMap<String, usize>,
}

/// Statements that define no rule, such as `freemail_domains`: the values of each keyword in order, aliases
/// under their current name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    values: std::collections::HashMap<String, Vec<String>>,
}

impl Settings {
    /// Adds the rest of a line.
    pub(super) fn push(&mut self, keyword: &str, value: impl Into<String>) {
        self.values.entry(keyword.to_owned()).or_default().push(value.into());
    }

    /// Forgets a keyword's values (`clear_...`).
    pub(super) fn clear(&mut self, keyword: &str) {
        self.values.remove(keyword);
    }

    /// Takes words out of a keyword's lines. A list in parentheses, which stands first in a line and among
    /// the words, names the lines that are meant.
    pub(super) fn remove_words(&mut self, keyword: &str, words: &str) {
        let list = words.split_whitespace().next().filter(|word| word.starts_with('('));
        let taken: std::collections::HashSet<&str> = words.split_whitespace().collect();
        let Some(lines) = self.values.get_mut(keyword) else { return };
        for line in lines.iter_mut() {
            if list.is_some_and(|list| line.split_whitespace().next() != Some(list)) {
                continue;
            }
            let kept = line.split_whitespace().filter(|word| word.starts_with('(') || !taken.contains(word));
            *line = kept.collect::<Vec<_>>().join(" ");
        }
        lines.retain(|line| line.split_whitespace().any(|word| !word.starts_with('(')));
    }

    /// Takes lines out that begin with a word.
    pub(super) fn remove_lines(&mut self, keyword: &str, first: &str) {
        if let Some(lines) = self.values.get_mut(keyword) {
            lines.retain(|line| line.split_whitespace().next() != Some(first));
        }
    }

    /// Returns the rest of each line with a keyword, in order.
    pub(super) fn lines(&self, keyword: &str) -> impl Iterator<Item = &str> {
        self.values.get(keyword).into_iter().flatten().map(String::as_str)
    }

    /// Returns the words of all lines with a keyword, in order.
    pub(super) fn words(&self, keyword: &str) -> impl Iterator<Item = &str> {
        self.lines(keyword).flat_map(str::split_whitespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_back_word_by_word() {
        let mut settings = Settings::default();
        settings.push("welcomelist_from", "a@a.example *@b.example");
        settings.push("welcomelist_from", "c@c.example");
        settings.remove_words("welcomelist_from", "*@b.example c@c.example");
        assert_eq!(settings.lines("welcomelist_from").collect::<Vec<_>>(), ["a@a.example"]);
        settings.push("enlist_uri_host", "(X) a.example b.example");
        settings.push("enlist_uri_host", "(Y) a.example");
        settings.remove_words("enlist_uri_host", "(Y) a.example b.example");
        assert_eq!(settings.lines("enlist_uri_host").collect::<Vec<_>>(), ["(X) a.example b.example"]);
        settings.remove_words("enlist_uri_host", "a.example");
        assert_eq!(settings.lines("enlist_uri_host").collect::<Vec<_>>(), ["(X) b.example"]);
        settings.push("welcomelist_from_rcvd", "a@a.example a.example");
        settings.push("welcomelist_from_rcvd", "b@a.example a.example");
        settings.remove_lines("welcomelist_from_rcvd", "a@a.example");
        assert_eq!(settings.lines("welcomelist_from_rcvd").collect::<Vec<_>>(), ["b@a.example a.example"]);
    }
}
