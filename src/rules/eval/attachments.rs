//! What is attached, and whether it is what it says.

use crate::message::Attachment;

use super::{Context, Function, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("attachment_over_limit", |context, _| {
        plainly(context.message.attachments.iter().any(|file| file.is_over_limit))
    }),
    ("attachment_fetches", |context, _| plainly(context.message.attachments.iter().any(|file| file.fetches))),
    ("attachment_program", attachment_program),
    ("attachment_macros", attachment_macros),
    ("attachment_macros_start", |context, _| {
        any(context, |attachment| attachment.starts_macros, "holds macros that run by themselves")
    }),
    ("attachment_objects", |context, _| {
        any(context, |attachment| attachment.has_objects, "holds files that run when they are clicked")
    }),
    ("attachment_page", attachment_page),
    ("attachment_two_endings", attachment_two_endings),
    ("attachment_disguised", attachment_disguised),
    ("attachment_archived_program", attachment_archived_program),
    ("attachment_locked", attachment_locked),
    ("attachment_reversed_name", attachment_reversed_name),
    ("attachment_disk_image", attachment_disk_image),
    ("attachment_active_document", attachment_active_document),
    ("has_attachment", has_attachment),
];

/// Endings of files that run when they are opened.
const PROGRAMS: [&str; 30] = [
    "exe",
    "scr",
    "com",
    "pif",
    "bat",
    "cmd",
    "msi",
    "msp",
    "js",
    "jse",
    "vbs",
    "vbe",
    "wsf",
    "wsh",
    "hta",
    "lnk",
    "cpl",
    "jar",
    "ps1",
    "psm1",
    "reg",
    "dll",
    "ace",
    "gadget",
    "application",
    "chm",
    "scf",
    "url",
    "xll",
    "apk",
];
/// Endings of documents, behind which another ending hides.
const DOCUMENTS: [&str; 14] =
    ["pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "txt", "jpg", "jpeg", "png", "gif", "csv", "rtf"];
/// Types of files that run when they are opened.
const PROGRAM_TYPES: [&str; 6] = [
    "application/vnd.microsoft.portable-executable",
    "application/x-msdownload",
    "application/x-executable",
    "application/x-mach-binary",
    "application/x-ms-shortcut",
    "application/java",
];

fn ending(name: &str) -> String {
    let name = name.trim_end_matches(['.', ' ']);
    name.rsplit_once('.').map(|(_, ending)| ending.trim().to_lowercase()).unwrap_or_default()
}

fn name(attachment: &Attachment) -> &str {
    attachment.name.as_deref().unwrap_or("without a name")
}

fn any(context: &Context<'_>, is_hit: impl Fn(&Attachment) -> bool, says: &str) -> Option<String> {
    let found = context.message.attachments.iter().find(|attachment| is_hit(attachment))?;
    Some(format!("The attachment “{}” {says}.", name(found)))
}

/// An attachment is a program.
fn attachment_program(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_program = |attachment: &Attachment| {
        attachment.name.as_deref().is_some_and(|name| PROGRAMS.contains(&ending(name).as_str()))
            || attachment.detected_type.is_some_and(|detected| PROGRAM_TYPES.contains(&detected))
    };
    any(context, is_program, "is a program")
}

/// A document holds macros.
fn attachment_macros(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_macro = |attachment: &Attachment| {
        let ending = attachment.name.as_deref().map(ending).unwrap_or_default();
        attachment.has_macros || matches!(ending.as_str(), "docm" | "xlsm" | "pptm" | "dotm" | "xlam")
    };
    any(context, is_macro, "holds macros")
}

/// An attached web page has a form or a script: a sign-in page that no filter of web addresses sees.
fn attachment_page(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_active = |attachment: &Attachment| {
        let ending = attachment.name.as_deref().map(ending).unwrap_or_default();
        let is_page = matches!(ending.as_str(), "htm" | "html" | "shtml" | "xhtml" | "svg" | "mht")
            || matches!(attachment.detected_type, Some("text/html" | "image/svg+xml"));
        is_page && (attachment.has_form || attachment.has_script)
    };
    any(context, is_active, "is a web page with a form or a script")
}

/// A document's ending stands before a program's or a page's: `invoice.pdf.exe`.
fn attachment_two_endings(context: &Context<'_>, _: &[String]) -> Option<String> {
    let has_two = |attachment: &Attachment| {
        let Some(name) = attachment.name.as_deref() else { return false };
        let last = ending(name);
        let before = name.trim_end().get(..name.trim_end().len().saturating_sub(last.len() + 1)).map(ending);
        let is_risky = PROGRAMS.contains(&last.as_str())
            || matches!(last.as_str(), "htm" | "html" | "zip" | "iso" | "img");
        is_risky && before.is_some_and(|before| DOCUMENTS.contains(&before.as_str()))
    };
    any(context, has_two, "hides its kind behind two endings")
}

/// The name or the declared type says document or picture, the content says program, archive or page.
fn attachment_disguised(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_disguised = |attachment: &Attachment| {
        let ending = attachment.name.as_deref().map(ending).unwrap_or_default();
        let is_innocent = matches!(
            ending.as_str(),
            "pdf" | "txt" | "jpg" | "jpeg" | "png" | "gif" | "csv" | "ics" | "wav" | "mp3"
        ) || attachment.declared_type.starts_with("image/")
            && !attachment.declared_type.contains("svg");
        let Some(detected) = attachment.detected_type else { return false };
        is_innocent
            && (PROGRAM_TYPES.contains(&detected)
                || matches!(
                    detected,
                    "text/html"
                        | "application/zip"
                        | "application/x-ole-storage"
                        | "application/vnd.rar"
                        | "application/x-7z-compressed"
                        | "application/x-iso9660-image"
                ))
    };
    any(context, is_disguised, "is not the kind of file that it says")
}

/// An archive holds a program.
fn attachment_archived_program(context: &Context<'_>, _: &[String]) -> Option<String> {
    let holds = |attachment: &Attachment| {
        attachment.entries.iter().any(|entry| PROGRAMS.contains(&ending(entry).as_str()))
    };
    any(context, holds, "is an archive with a program in it")
}

/// An archive or a document needs a password.
fn attachment_locked(context: &Context<'_>, _: &[String]) -> Option<String> {
    any(context, |attachment| attachment.is_encrypted, "is locked with a password")
}

/// A name is written from right to left, so that its ending is seen in the middle.
fn attachment_reversed_name(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_reversed = |attachment: &Attachment| {
        name(attachment).contains(['\u{202A}', '\u{202B}', '\u{202D}', '\u{202E}', '\u{2066}', '\u{2067}'])
    };
    any(context, is_reversed, "hides its ending by writing backwards")
}

/// An attachment is a disk image.
fn attachment_disk_image(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_image = |attachment: &Attachment| {
        let ending = attachment.name.as_deref().map(ending).unwrap_or_default();
        matches!(ending.as_str(), "iso" | "img" | "vhd" | "vhdx" | "one")
            || attachment.detected_type == Some("application/x-iso9660-image")
    };
    any(context, is_image, "is a disk image, which hides what is in it")
}

/// A PDF runs a script or starts a program.
fn attachment_active_document(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_active = |attachment: &Attachment| {
        attachment.has_script && attachment.detected_type == Some("application/pdf")
    };
    any(context, is_active, "runs a script when it is opened")
}

/// `has_attachment(TYPE)`: a declared or detected type begins so.
fn has_attachment(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let prefix = arguments.first().map(String::as_str).unwrap_or_default();
    super::plainly(context.message.attachments.iter().any(|attachment| {
        attachment.declared_type.starts_with(prefix)
            || attachment.detected_type.is_some_and(|detected| detected.starts_with(prefix))
    }))
}
