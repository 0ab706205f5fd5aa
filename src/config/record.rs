//! Definitions of keys, and tables read by them: those of the file and those in its lists.

use toml::de::{DeTable, DeValue};

use super::problem::{Fault, Faults};

/// The definition of one key of a `T`.
pub(super) struct Key<T: 'static> {
    /// The name; dotted for the keys of the file.
    pub(super) name: &'static str,
    /// The default as it would stand in a file, or an example where the key must be given.
    pub(super) default: &'static str,
    /// What it means, for the reference.
    pub(super) meaning: &'static str,
    /// Reads a value into the `T`.
    pub(super) set: fn(&mut T, &DeValue<'_>) -> Result<(), Faults>,
}

impl<T> Key<T> {
    /// Sets the default.
    pub(super) fn set_default(&self, target: &mut T) {
        let document = format!("value = {}", self.default);
        let set = DeTable::parse(&document).ok().and_then(|table| {
            table.get_ref().get("value").map(|value| (self.set)(&mut *target, value.get_ref()))
        });
        if !matches!(set, Some(Ok(()))) {
            unreachable!("the default of {} is valid", self.name);
        }
    }
}

/// A table that stands in a list: `[[name]]`, or in line.
pub(super) struct Record<T: 'static> {
    /// Its keys.
    pub(super) keys: &'static [Key<T>],
    /// Those that must be given.
    pub(super) required: &'static [&'static str],
    /// Makes one that the keys are about to overwrite.
    pub(super) blank: fn() -> T,
}

/// A key as the reference shows it.
pub(super) struct Field {
    /// The name.
    pub(super) name: &'static str,
    /// The default or an example.
    pub(super) default: &'static str,
    /// What it means.
    pub(super) meaning: &'static str,
}

impl<T> Record<T> {
    /// Reads one table.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(super) fn read(&self, table: &DeTable<'_>) -> Result<T, Faults> {
        let mut record = (self.blank)();
        let mut faults = Faults::default();
        for key in self.keys.iter().filter(|key| !self.required.contains(&key.name)) {
            key.set_default(&mut record);
        }
        for (name, value) in table {
            let (name, offset) = (name.get_ref().as_ref(), name.span().start);
            match self.keys.iter().find(|key| key.name == name) {
                Some(key) => {
                    if let Err(found) = (key.set)(&mut record, value.get_ref()) {
                        faults.0.extend(found.inside(name, value.span().start).0);
                    }
                }
                None => {
                    let message = unknown(name, self.keys.iter().map(|key| key.name));
                    faults.0.extend(Faults::from(message).inside(name, offset).0);
                }
            }
        }
        for key in self.keys.iter().filter(|key| self.required.contains(&key.name)) {
            if !table.iter().any(|(name, _)| name.get_ref() == key.name) {
                let message = format!("missing; an example: {} = {}", key.name, key.default);
                faults.0.push(Fault { offset: None, below: key.name.to_owned(), message });
            }
        }
        if faults.0.is_empty() { Ok(record) } else { Err(faults) }
    }

    /// Returns its keys for the reference.
    pub(super) fn fields(&self) -> Vec<Field> {
        let field = |key: &Key<T>| Field { name: key.name, default: key.default, meaning: key.meaning };
        self.keys.iter().map(field).collect()
    }
}

/// Says that a key does not exist, and which was probably meant.
pub(super) fn unknown(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let nearest = known.map(|key| (strsim::jaro_winkler(name, key), key)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, nearest)) if likeness > 0.8 => format!("no such key; did you mean {nearest}?"),
        _ => "no such key; `lazaret config reference` lists them all".to_owned(),
    }
}
