-- From version 1 to 2, in one transaction. What a table has after this is what `schema.sql` makes. The columns
-- of `session` and `spent` are not generated: a broker of version 1 that still has the file open cannot
-- write them, and so opens no session that was revoked by name.

ALTER TABLE record ADD COLUMN sid TEXT GENERATED ALWAYS AS (json_extract(body, '$.sid')) VIRTUAL;
ALTER TABLE record ADD COLUMN tenant TEXT GENERATED ALWAYS AS (json_extract(body, '$.tenant')) VIRTUAL;
DROP INDEX record_wide;
CREATE INDEX record_wide ON record (time, event, sub, agent, tool, backend, outcome, txn, tenant);

ALTER TABLE session ADD COLUMN parent TEXT;
ALTER TABLE session ADD COLUMN tenant TEXT;
UPDATE session SET parent = json_extract(body, '$.parent'), tenant = json_extract(body, '$.tenant');
CREATE INDEX session_parent ON session (parent) WHERE parent IS NOT NULL;

ALTER TABLE spent ADD COLUMN by TEXT NOT NULL DEFAULT '';
ALTER TABLE spent ADD COLUMN consume_id TEXT NOT NULL DEFAULT '';
ALTER TABLE spent ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0;

CREATE TABLE revocation (
    kind TEXT NOT NULL,
    iss TEXT NOT NULL,
    name TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, iss, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE offer (
    code_sha256 TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    expires_s INTEGER NOT NULL,
    redeemed_ms INTEGER,
    root TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX offer_expires ON offer (expires_s);
CREATE INDEX offer_root ON offer (root) WHERE redeemed_ms IS NULL;
