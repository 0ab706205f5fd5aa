//! A text read by the definitions of its keys: the file, and the environment over it.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::Config;
use super::keys::{self, Key, Tables};
use super::problem::{Faults, Problem, Problems};
use super::record::unknown;

/// In which line each key stands.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<String, usize>);

impl Places {
    /// Returns the line of a key; where it has none of its own, that of the list or table that it is in.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let line = self.0.get(key).copied();
        line.or_else(|| self.line(key.rfind(['.', '[']).and_then(|end| key.get(..end))?))
    }
}

/// Reads a file's text into a configuration.
pub(super) fn file(text: &str, config: &mut Config, problems: &mut Problems) -> Places {
    let mut reader = Reader { text, config, problems, places: Places::default() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map(|span| line_of(text, span.start));
        reader.problems.0.push(Problem { line, key: String::new(), message: error.message().to_owned() });
    }
    // What follows a mistake of syntax is guesswork; its keys would be reported as problems they are not.
    if reader.problems.0.is_empty() {
        reader.table("", table.get_ref());
    }
    reader.places
}

/// Reads the variables of the environment into a configuration.
pub(super) fn environment(
    variable: impl Fn(&str) -> Option<String>,
    config: &mut Config,
    problems: &mut Problems,
) {
    for key in keys::all() {
        let name = format!("LAZARET_{}", key.name.replace('.', "_").to_uppercase());
        let Some(value) = variable(&name) else { continue };
        if let Err(faults) = set_from_variable(key, &value, config) {
            for fault in faults.0 {
                let key = format!("{name}{}", fault.below);
                problems.0.push(Problem { line: None, key, message: fault.message });
            }
        }
    }
}

fn set_from_variable(key: &Key, text: &str, config: &mut Config) -> Result<(), Faults> {
    // A variable may hold a TOML value or a bare text: 25, ["a", "b"], 127.0.0.1:25.
    let document = format!("value = {text}");
    let parsed = DeTable::parse(&document).ok();
    match parsed.as_ref().and_then(|table| table.get_ref().get("value")) {
        Some(value) if !value.get_ref().is_str() => match (key.set)(config, value.get_ref()) {
            Err(faults) if value.get_ref().is_array() => Err(faults),
            Err(_) => (key.set)(config, &DeValue::String(text.into())),
            Ok(()) => Ok(()),
        },
        Some(value) => (key.set)(config, value.get_ref()),
        None => (key.set)(config, &DeValue::String(text.into())),
    }
}

struct Reader<'a> {
    text: &'a str,
    config: &'a mut Config,
    problems: &'a mut Problems,
    places: Places,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let dotted = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let offset = name.span().start;
            let below = format!("{dotted}.");
            let is_section = keys::all().any(|key| key.name.starts_with(&below));
            if let Some(tables) = keys::tables().find(|tables| tables.name == dotted) {
                self.tables(tables, offset, value.get_ref());
            } else if let Some(key) = keys::all().find(|key| key.name == dotted) {
                self.places.0.insert(dotted, line_of(self.text, offset));
                if let Err(faults) = (key.set)(self.config, value.get_ref()) {
                    self.report(faults.inside(key.name, value.span().start));
                }
            } else if let (true, DeValue::Table(inner)) = (is_section, value.get_ref()) {
                self.table(&dotted, inner);
            } else if is_section {
                self.report(Faults::from("this is a table of keys").inside(&dotted, offset));
            } else {
                let known = keys::all().map(|key| key.name).chain(keys::tables().map(|tables| tables.name));
                self.report(Faults::from(unknown(&dotted, known)).inside(&dotted, offset));
            }
        }
    }

    /// Reads a list of tables.
    fn tables(&mut self, tables: &Tables, offset: usize, value: &DeValue<'_>) {
        let DeValue::Array(items) = value else {
            let message = format!("this is a list of tables: write [[{}]]", tables.name);
            self.report(Faults::from(message).inside(tables.name, offset));
            return;
        };
        for (index, item) in items.iter().enumerate() {
            let name = format!("{}[{}]", tables.name, index + 1);
            let start = item.span().start;
            self.places.0.insert(name.clone(), line_of(self.text, start));
            let DeValue::Table(table) = item.get_ref() else {
                let message = format!("expected a table: write [[{}]]", tables.name);
                self.report(Faults::from(message).inside(&name, start));
                continue;
            };
            for (key, _) in table {
                let line = line_of(self.text, key.span().start);
                self.places.0.insert(format!("{name}.{}", key.get_ref()), line);
            }
            if let Err(faults) = (tables.add)(self.config, table) {
                self.report(faults.inside(&name, start));
            }
        }
    }

    fn report(&mut self, faults: Faults) {
        for fault in faults.0 {
            let line = fault.offset.map(|offset| line_of(self.text, offset));
            self.problems.0.push(Problem { line, key: fault.below, message: fault.message });
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
