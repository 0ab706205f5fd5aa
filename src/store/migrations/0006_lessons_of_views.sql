-- Lessons of the Bayes filter alone held one view of a message, of which the models of today cannot be folded.
UPDATE quarantine_entries SET lesson = NULL;
DELETE FROM lessons WHERE kind = 'retract';
DELETE FROM lessons;
