-- Kept mail. What tells who wrote what to whom is in `sealed`; the other columns are what the review
-- page sorts and searches by: keyed hashes, domains, symbols, numbers.
CREATE TABLE quarantine_bodies (
    id TEXT PRIMARY KEY NOT NULL,
    size_bytes INTEGER NOT NULL,
    -- 1: no entry is left, the stored object is to be removed.
    doomed INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE quarantine_entries (
    id TEXT PRIMARY KEY NOT NULL,
    body_id TEXT NOT NULL REFERENCES quarantine_bodies (id),
    received_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    direction TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    score REAL NOT NULL,
    -- Separated and surrounded by spaces.
    symbols TEXT NOT NULL,
    state TEXT NOT NULL,
    recipient_hash TEXT NOT NULL,
    recipient_domain TEXT NOT NULL,
    sender_hash TEXT,
    sender_domain TEXT,
    from_hash TEXT,
    from_domain TEXT,
    client_ip TEXT NOT NULL,
    lesson INTEGER,
    -- Why the last release failed for good.
    failure TEXT,
    sealed BLOB NOT NULL
) STRICT;

CREATE INDEX quarantine_entries_by_time ON quarantine_entries (received_at, id);
CREATE INDEX quarantine_entries_by_recipient ON quarantine_entries (recipient_hash, received_at, id);
CREATE INDEX quarantine_entries_by_body ON quarantine_entries (body_id);
CREATE INDEX quarantine_entries_by_expiry ON quarantine_entries (expires_at);
CREATE INDEX quarantine_entries_by_state ON quarantine_entries (state, received_at);

-- Releases on their way to the next hop: one row for each entry, so that however often somebody clicks
-- there is one delivery.
CREATE TABLE outbox (
    entry_id TEXT PRIMARY KEY NOT NULL REFERENCES quarantine_entries (id),
    created_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    claim TEXT,
    leased_until INTEGER,
    last_failure TEXT
) STRICT;

CREATE INDEX outbox_by_due ON outbox (due_at);

-- A text that only the right key opens.
CREATE TABLE quarantine_key (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sealed BLOB NOT NULL
) STRICT;
