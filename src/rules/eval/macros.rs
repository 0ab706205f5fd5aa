//! Office files with macros and objects: SpamAssassin's `OLEVBMacro`. Files are told by their content, not by
//! the endings that its settings list.

use memchr::memmem;

use crate::message::Attachment;

use super::{Context, Function, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_olemacro", |context, _| any(context, |file| file.has_macros)),
    ("check_olemacro_malice", |context, _| any(context, |file| file.starts_macros)),
    ("check_oleobject", |context, _| any(context, |file| file.has_objects && !is_rich_text(file))),
    ("check_olertfobject", |context, _| any(context, |file| file.has_objects && is_rich_text(file))),
    ("check_olemacro_encrypted", |context, _| any(context, |file| file.is_encrypted && is_ole(file))),
    ("check_olemacro_zip_password", |context, _| {
        any(context, |file| file.is_encrypted && file.detected_type == Some("application/zip"))
    }),
    ("check_olemacro_renamed", |context, _| any(context, |file| file.has_macros && !is_named_office(file))),
    ("check_olemacro_redirect_uri", |context, _| any(context, |file| file.fetches)),
    ("check_olemacro_mhtml_uri", |context, _| {
        let links = context.message.links.iter();
        plainly(
            links
                .map(|link| link.target.get(..6))
                .any(|start| start.is_some_and(|start| start.eq_ignore_ascii_case("mhtml:"))),
        )
    }),
    ("check_olemacro_csv", |context, _| {
        let is_sheet = |name: &str| name.to_ascii_lowercase().ends_with(".csv");
        contents(context, is_sheet, |bytes| {
            memmem::find(bytes, b"MSEXCEL|").is_some_and(|at| {
                let rest = bytes.get(at..bytes.len().min(at + 60)).unwrap_or_default();
                memmem::find(rest, b"Windows\\System32\\cmd.exe").is_some()
            })
        })
    }),
    ("check_olemacro_download_exe", |context, _| {
        contents(context, |_| true, |bytes| memmem::find(bytes, b"/c ms^h^ta ht^tp").is_some())
    }),
];

/// Bytes of a file that are looked at, as the default of `olemacro_max_file`.
const FILE_BYTES: usize = 1_024_000;

fn any(context: &Context<'_>, is_hit: impl FnMut(&Attachment) -> bool) -> Option<String> {
    plainly(context.message.attachments.iter().any(is_hit))
}

/// Whether the bytes of an attached file of a name are such.
fn contents(
    context: &Context<'_>,
    is_named: impl Fn(&str) -> bool,
    is_hit: impl Fn(&[u8]) -> bool,
) -> Option<String> {
    let files = context.message.parts.iter().filter(|part| part.name.as_deref().is_some_and(&is_named));
    plainly(files.map(|part| part.body(context.subject.raw, FILE_BYTES)).any(|bytes| is_hit(&bytes)))
}

fn is_rich_text(file: &Attachment) -> bool {
    file.detected_type == Some("application/rtf")
}

fn is_ole(file: &Attachment) -> bool {
    file.detected_type == Some("application/x-ole-storage")
}

/// Whether the name is that of an Office file, or of an archive that may hold one.
fn is_named_office(file: &Attachment) -> bool {
    let name = file.name.as_deref().unwrap_or_default().to_ascii_lowercase();
    let ending = name.rsplit_once('.').map(|(_, ending)| ending).unwrap_or_default();
    ["doc", "dot", "xl", "pp", "pot", "sld", "rtf", "zip"].iter().any(|start| ending.starts_with(start))
}
