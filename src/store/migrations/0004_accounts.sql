-- Who may look at kept mail. Tokens stand here as keyed hashes only, addresses sealed.
CREATE TABLE administrator (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    password_hash TEXT NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sign_in_links (
    token_hash TEXT PRIMARY KEY NOT NULL,
    -- NULL for the administrator.
    sealed_address BLOB,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    token_hash TEXT PRIMARY KEY NOT NULL,
    -- NULL for the administrator.
    sealed_address BLOB,
    -- Whether it began with a one-time link, not with a password.
    by_link INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;

-- What is counted to be limited: who (a keyed hash) tried what, and when.
CREATE TABLE attempts (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE INDEX attempts_by_subject ON attempts (kind, subject, at);
CREATE INDEX attempts_by_time ON attempts (at);
