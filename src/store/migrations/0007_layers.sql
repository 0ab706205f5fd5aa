-- Lessons of a person or an organisation are learned apart from those that are shared.
-- '' for the shared layer, or the kind of another and its pseudonym.
ALTER TABLE lessons ADD COLUMN layer TEXT NOT NULL DEFAULT '';
-- What the layers above said of the message.
ALTER TABLE lessons ADD COLUMN base BLOB;
-- Where one act teaches several layers: the line of the first.
ALTER TABLE lessons ADD COLUMN origin INTEGER;

DROP INDEX lessons_message;
CREATE INDEX lessons_message ON lessons (message, layer, sequence);
CREATE INDEX lessons_layer ON lessons (layer, sequence);
CREATE INDEX lessons_origin ON lessons (origin) WHERE origin IS NOT NULL;
CREATE INDEX lessons_ends ON lessons (ends) WHERE ends IS NOT NULL;
CREATE INDEX lessons_revives ON lessons (revives) WHERE revives IS NOT NULL;

-- What has left the log is in this model: the fold of the shared layer up to a line.
CREATE TABLE lesson_base (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL,
    model BLOB NOT NULL
) STRICT;

-- Slots have become two bits shorter.
UPDATE quarantine_entries SET lesson = NULL;
DELETE FROM lessons WHERE kind = 'retract';
UPDATE lessons SET ends = NULL, revives = NULL;
DELETE FROM lessons;
