//! What one session may use.

/// What one session may use. Each limit has a reply of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest command line in bytes, with CR LF (RFC 5321, section 4.5.3.1.4).
    pub command_bytes: usize,
    /// Longest MAIL or RCPT line in bytes, with CR LF: extensions lengthen them. A longer line of any kind
    /// closes the session.
    pub path_command_bytes: usize,
    /// Accepted recipients of one message.
    pub recipients: usize,
    /// Commands that were malformed, unknown or out of order, in the whole session.
    pub errors: usize,
    /// Commands between two messages. Recipients that are accepted have a limit of their own, and large chunks
    /// that of their bytes.
    pub commands: usize,
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Messages of one session.
    pub messages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            command_bytes: 512,
            path_command_bytes: 2048,
            recipients: 500,
            errors: 20,
            commands: 3000,
            message_bytes: 50 * 1024 * 1024,
            messages: 1000,
        }
    }
}
