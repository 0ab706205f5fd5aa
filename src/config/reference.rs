//! The reference: every key with its default and meaning, as a TOML file that reads back as the default.

use super::keys;

/// Returns the reference. Tables that may be repeated stand in it as comments, with an example.
pub fn reference() -> String {
    let mut text = String::from(
        "# Every key of Lazaret's configuration, with its default.\n\
         # A key is also read from the environment, as LAZARET_ and its name in capitals with _ for the dot:\n\
         # LAZARET_INBOUND_LISTEN=0.0.0.0:25\n",
    );
    let mut section = "";
    for key in keys::all() {
        let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if table != section {
            text.push_str(&format!("\n[{table}]\n"));
            section = table;
        }
        text.push('\n');
        push_comment(&mut text, "# ", key.meaning);
        text.push_str(&format!("{name} = {}\n", key.default));
    }
    text.push_str("\n# What may stand in the file any number of times, below the rest.\n");
    for tables in keys::tables() {
        text.push('\n');
        push_comment(&mut text, "# ", tables.meaning);
        text.push_str(&format!("# [[{}]]\n", tables.name));
        push_fields(&mut text, &(tables.fields)());
    }
    for inline in keys::inline() {
        text.push_str(&format!("\n# A table in {}, such as {{ ", inline.place));
        let fields = (inline.fields)();
        let example: Vec<String> =
            fields.iter().take(2).map(|field| format!("{} = {}", field.name, field.default)).collect();
        text.push_str(&format!("{} }}:\n", example.join(", ")));
        push_fields(&mut text, &fields);
    }
    text
}

fn push_fields(text: &mut String, fields: &[super::record::Field]) {
    for field in fields {
        push_comment(text, "#   # ", field.meaning);
        text.push_str(&format!("#   {} = {}\n", field.name, field.default));
    }
}

fn push_comment(text: &mut String, mark: &str, meaning: &str) {
    for line in meaning.lines() {
        text.push_str(&format!("{mark}{}\n", line.trim()));
    }
}
