-- The append-only log of lessons. A line never changes; the models are folded from it.
CREATE TABLE lessons (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL CHECK (kind IN ('learn', 'retract')),
    -- The line that a retraction takes back.
    retracts   INTEGER REFERENCES lessons (sequence),
    -- What the line does to a model: which lesson ends, which one is in force again.
    ends       INTEGER REFERENCES lessons (sequence),
    revives    INTEGER REFERENCES lessons (sequence),
    label      TEXT CHECK (label IN ('ham', 'spam')),
    message    BLOB NOT NULL CHECK (length(message) = 16),
    features   BLOB,
    learned_at INTEGER NOT NULL,
    teacher    TEXT NOT NULL,
    CHECK ((kind = 'learn') = (label IS NOT NULL AND features IS NOT NULL AND retracts IS NULL))
) STRICT;

CREATE UNIQUE INDEX lessons_retracts ON lessons (retracts) WHERE retracts IS NOT NULL;
CREATE INDEX lessons_message ON lessons (message, sequence);
