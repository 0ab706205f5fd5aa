//! What can be wrong with a message, as values with permanent names.

/// Something malformed, ambiguous or over a limit. The name is the symbol suffix of the finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Problem {
    /// The parser could read nothing; only the raw bytes were looked at.
    Unreadable,
    /// There is no header field before the text.
    NoHeader,
    /// A header line is neither a field nor the continuation of one.
    MalformedField,
    /// The first line is the `From ` line of a mailbox file.
    MailboxLine,
    /// A field that may occur once occurs again (RFC 5322, section 3.6).
    DuplicateField,
    /// There is no From field.
    MissingFrom,
    /// There is no Date field.
    MissingDate,
    /// There is no Message-ID field.
    MissingMessageId,
    /// A header field holds bytes that are neither ASCII nor UTF-8.
    EightBitHeader,
    /// There are more header fields, or longer ones, than are looked at.
    HeaderTooLong,
    /// A line is longer than 998 bytes (RFC 5322, section 2.1.1).
    LongLine,
    /// There is a NUL byte.
    NulByte,
    /// A carriage return stands without a line feed.
    BareCarriageReturn,
    /// A multipart has no boundary parameter, or its boundary never occurs.
    BoundaryMissing,
    /// A multipart ends without its closing boundary.
    BoundaryUnclosed,
    /// A boundary line goes on after the boundary.
    BoundaryInexact,
    /// There are parts after the closing boundary.
    PartsAfterEnd,
    /// A part declares its type, encoding or disposition twice.
    AmbiguousPart,
    /// A part has a transfer encoding nobody knows.
    UnknownEncoding,
    /// A text has a character set nobody knows.
    UnknownCharset,
    /// A base64 part holds what is not base64.
    BadBase64,
    /// There are more parts than are looked at.
    TooManyParts,
    /// Parts are nested deeper than is looked at.
    TooDeep,
    /// There is more text than is looked at.
    TooMuchText,
    /// There are more links, or longer ones, than are looked at.
    TooManyLinks,
    /// The message is one piece of a larger one (RFC 2046, section 5.2.2).
    Partial,
    /// A part is to be fetched from elsewhere (RFC 2046, section 5.2.3).
    ExternalBody,
    /// From names more than one mailbox (RFC 5322, section 3.6.2).
    SeveralAuthors,
    /// There are several From fields, and they name different mailboxes.
    ConflictingAuthors,
}

impl Problem {
    /// Every problem, in the order of declaration.
    pub const ALL: [Problem; 29] = [
        Problem::Unreadable,
        Problem::NoHeader,
        Problem::MalformedField,
        Problem::MailboxLine,
        Problem::DuplicateField,
        Problem::MissingFrom,
        Problem::MissingDate,
        Problem::MissingMessageId,
        Problem::EightBitHeader,
        Problem::HeaderTooLong,
        Problem::LongLine,
        Problem::NulByte,
        Problem::BareCarriageReturn,
        Problem::BoundaryMissing,
        Problem::BoundaryUnclosed,
        Problem::BoundaryInexact,
        Problem::PartsAfterEnd,
        Problem::AmbiguousPart,
        Problem::UnknownEncoding,
        Problem::UnknownCharset,
        Problem::BadBase64,
        Problem::TooManyParts,
        Problem::TooDeep,
        Problem::TooMuchText,
        Problem::TooManyLinks,
        Problem::Partial,
        Problem::ExternalBody,
        Problem::SeveralAuthors,
        Problem::ConflictingAuthors,
    ];

    /// Returns the permanent name, in UPPER_SNAKE, without a family prefix.
    pub fn symbol(self) -> &'static str {
        self.words().0
    }

    /// Returns one sentence for the person who reviews the message.
    pub fn explanation(self) -> &'static str {
        self.words().1
    }

    /// Returns the problem of a name that [`Problem::symbol`] gave.
    pub fn from_symbol(symbol: &str) -> Option<Self> {
        Problem::ALL.into_iter().find(|problem| problem.symbol() == symbol)
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Problem::Unreadable => {
                ("UNREADABLE", "The message cannot be read; its raw bytes were looked at.")
            }
            Problem::NoHeader => ("NO_HEADER", "The message has no header."),
            Problem::MalformedField => ("MALFORMED_FIELD", "The header holds a line that is no field."),
            Problem::MailboxLine => ("MAILBOX_LINE", "The message begins with a line of a mailbox file."),
            Problem::DuplicateField => {
                ("DUPLICATE_FIELD", "A header field that may occur once occurs more than once.")
            }
            Problem::MissingFrom => ("MISSING_FROM", "The message names no author: there is no From field."),
            Problem::MissingDate => ("MISSING_DATE", "The message has no Date field."),
            Problem::MissingMessageId => ("MISSING_MESSAGE_ID", "The message has no Message-ID field."),
            Problem::EightBitHeader => {
                ("EIGHT_BIT_HEADER", "The header holds bytes in an undeclared character set.")
            }
            Problem::HeaderTooLong => {
                ("HEADER_TOO_LONG", "The header is so long that only its beginning was read.")
            }
            Problem::LongLine => ("LONG_LINE", "A line is longer than mail allows."),
            Problem::NulByte => ("NUL_BYTE", "The message holds NUL bytes."),
            Problem::BareCarriageReturn => {
                ("BARE_CARRIAGE_RETURN", "The message holds carriage returns that end no line.")
            }
            Problem::BoundaryMissing => {
                ("BOUNDARY_MISSING", "The message claims to have parts, but they cannot be told apart.")
            }
            Problem::BoundaryUnclosed => {
                ("BOUNDARY_UNCLOSED", "The last part is not closed: the message may be cut off.")
            }
            Problem::BoundaryInexact => {
                ("BOUNDARY_INEXACT", "Mail programs may disagree about where a part of the message begins.")
            }
            Problem::PartsAfterEnd => {
                ("PARTS_AFTER_END", "Some parts stand after the declared end of the message.")
            }
            Problem::AmbiguousPart => {
                ("AMBIGUOUS_PART", "A part says twice what it is, so mail programs may show it differently.")
            }
            Problem::UnknownEncoding => ("UNKNOWN_ENCODING", "A part has an unknown transfer encoding."),
            Problem::UnknownCharset => ("UNKNOWN_CHARSET", "A text is in an unknown character set."),
            Problem::BadBase64 => ("BAD_BASE64", "A part that should be base64 holds something else."),
            Problem::TooManyParts => {
                ("TOO_MANY_PARTS", "The message has so many parts that only the first were read.")
            }
            Problem::TooDeep => ("TOO_DEEP", "Parts are nested so deeply that the innermost were not read."),
            Problem::TooMuchText => {
                ("TOO_MUCH_TEXT", "The message has so much text that only its beginning was read.")
            }
            Problem::TooManyLinks => {
                ("TOO_MANY_LINKS", "The message has so many or so long links that only some were read.")
            }
            Problem::Partial => (
                "PARTIAL",
                "The message is one piece of a larger one, which nobody can look into as a whole.",
            ),
            Problem::ExternalBody => {
                ("EXTERNAL_BODY", "A part of the message is not in it, but is to be fetched from elsewhere.")
            }
            Problem::SeveralAuthors => {
                ("SEVERAL_AUTHORS", "The message names several authors, of whom mail programs show one.")
            }
            Problem::ConflictingAuthors => {
                ("CONFLICTING_AUTHORS", "The message names different authors in several From fields.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_name_of_its_own() {
        for problem in Problem::ALL {
            assert_eq!(Problem::from_symbol(problem.symbol()), Some(problem));
            assert!(problem.explanation().ends_with('.'));
        }
    }
}
