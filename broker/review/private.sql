-- What of the records `:low` to `:high` - 1 can be erased, and the erasures among them.

INSERT OR REPLACE INTO private_words (rowid, text)
SELECT p.idx, (
    SELECT group_concat(t.atom, ' ')
    FROM (SELECT atom FROM json_tree(p.body) UNION ALL SELECT atom FROM json_tree(r.body)) t
    WHERE t.atom IS NOT NULL
)
FROM log.private p JOIN log.record r ON r.idx = p.idx
WHERE p.idx >= :low AND p.idx < :high AND json_valid(p.body) AND json_valid(r.body);

DELETE FROM private_words WHERE rowid IN (
    SELECT i.value FROM batch b JOIN log.record r ON r.idx = b.idx, json_each(r.body, '$.indexes') i
    WHERE b.event = 'erased'
);

-- A word that was deleted stays in the file until its segments are merged.
INSERT INTO private_words (private_words) SELECT 'optimize' FROM batch WHERE event = 'erased' LIMIT 1;
