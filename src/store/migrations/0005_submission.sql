-- Who may hand in mail under a name and a password. The name stands here as a keyed hash, to be found by;
-- everything else about the account is sealed: name, allowed senders, what the password is checked against.
CREATE TABLE submission_accounts (
    name_hash TEXT PRIMARY KEY NOT NULL,
    sealed_account BLOB NOT NULL,
    is_disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
