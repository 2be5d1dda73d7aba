-- The delegation log, the sessions and the spent tokens: one file, so that one transaction can decide
-- over all of them. Every column that a reviewer filters by is generated from `body`: what is shown is
-- what was hashed.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE record (
    idx INTEGER PRIMARY KEY,
    leaf BLOB NOT NULL CHECK (length(leaf) = 32),
    body TEXT NOT NULL,
    event TEXT GENERATED ALWAYS AS (json_extract(body, '$.event')) VIRTUAL,
    time TEXT GENERATED ALWAYS AS (json_extract(body, '$.time')) VIRTUAL,
    txn TEXT GENERATED ALWAYS AS (json_extract(body, '$.txn')) VIRTUAL,
    sub TEXT GENERATED ALWAYS AS (json_extract(body, '$.sub')) VIRTUAL,
    agent TEXT GENERATED ALWAYS AS (json_extract(body, '$.agent')) VIRTUAL,
    tool TEXT GENERATED ALWAYS AS (json_extract(body, '$.tool')) VIRTUAL,
    backend TEXT GENERATED ALWAYS AS (json_extract(body, '$.backend')) VIRTUAL,
    outcome TEXT GENERATED ALWAYS AS (json_extract(body, '$.outcome')) VIRTUAL,
    rate_key TEXT GENERATED ALWAYS AS (json_extract(body, '$.rate_key')) VIRTUAL,
    sid TEXT GENERATED ALWAYS AS (json_extract(body, '$.sid')) VIRTUAL,
    tenant TEXT GENERATED ALWAYS AS (json_extract(body, '$.tenant')) VIRTUAL
) STRICT;

-- One wide index in the order of arrival answers every combination of filters without reading a body. All
-- indexes but that of the rates grow at their end, for a txn begins with its time: a commit writes few
-- pages, and each page is a part of what a call waits for.
CREATE INDEX record_wide ON record (time, event, sub, agent, tool, backend, outcome, txn, tenant);
CREATE INDEX record_txn ON record (txn, event) WHERE txn IS NOT NULL;
CREATE INDEX record_rate ON record (rate_key, time) WHERE rate_key IS NOT NULL;
CREATE INDEX record_erased ON record (time) WHERE event = 'erased';

-- A guard against accidents: somebody who can write to the file can drop a trigger. What proves that
-- nobody did is the tree, and a checkpoint that lies elsewhere.
CREATE TRIGGER record_no_update BEFORE UPDATE ON record
BEGIN
    SELECT RAISE(ABORT, 'the delegation log is append-only');
END;

CREATE TRIGGER record_no_delete BEFORE DELETE ON record
BEGIN
    SELECT RAISE(ABORT, 'the delegation log is append-only');
END;

-- What of a record may be erased later, and the salt without which its digest in the record cannot be
-- guessed. Erasing takes nothing from the proof. An erased row is overwritten where it stands, with a salt of
-- zeros and `{}`: a row that is deleted lets SQLite move its neighbours, and copies of them stay behind in the file.
CREATE TABLE private (
    idx INTEGER PRIMARY KEY,
    salt BLOB NOT NULL CHECK (length(salt) = 16),
    body TEXT NOT NULL
) STRICT;

CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    size INTEGER NOT NULL,
    frontier BLOB NOT NULL
) STRICT;

INSERT INTO head VALUES (1, 0, x'');

CREATE TABLE checkpoint (
    size INTEGER PRIMARY KEY,
    note TEXT NOT NULL
) STRICT;

-- Roots of the perfect subtrees of 256, 65,536, … records (`level` 1, 2, …), for short proofs of a long log:
-- the hashes of the tiles of C2SP tlog-tiles. Never believed without another look.
CREATE TABLE subtree (
    level INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

-- Which records were moved to which file: from `first` to the one before `size`, and the signed checkpoint of
-- the first `size` records.
CREATE TABLE archived (
    size INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    file TEXT NOT NULL,
    note TEXT NOT NULL
) STRICT;

-- The newest checkpoint of each other log that this broker cosigned.
CREATE TABLE witnessed (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The next record that each exporter has to send.
CREATE TABLE exported (
    name TEXT PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Calls that were allowed and had not ended when the records below `meta.settled` were looked through, so
-- that a reviewer need not look through all of them. Never believed without another look.
CREATE TABLE open_call (
    txn TEXT PRIMARY KEY,
    idx INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whoever revokes marks each session that is reached, so that a call asks one row. `parent` and `tenant` are
-- what `body` says, for the questions that are asked of many.
CREATE TABLE session (
    sid TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    opened_ms INTEGER NOT NULL,
    expires_s INTEGER NOT NULL,
    revoked_ms INTEGER,
    parent TEXT,
    tenant TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX session_parent ON session (parent) WHERE parent IS NOT NULL;
CREATE INDEX session_expires ON session (expires_s);

-- Tokens, and one-time identifiers of other people's assertions under a prefix. `revoked` is 1 where nobody
-- spent it and nobody may.
CREATE TABLE spent (
    jti TEXT PRIMARY KEY,
    keep_until_s INTEGER NOT NULL,
    by TEXT NOT NULL DEFAULT '',
    consume_id TEXT NOT NULL DEFAULT '',
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX spent_keep ON spent (keep_until_s);

-- Whose new sessions are refused. What ended because of it is marked there, and stays so when this is lifted.
CREATE TABLE revocation (
    kind TEXT NOT NULL,
    iss TEXT NOT NULL,
    name TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, iss, name)
) STRICT, WITHOUT ROWID;

-- Parts of a session's rights that wait for their agent, under the digest of a code.
CREATE TABLE offer (
    code_sha256 TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    expires_s INTEGER NOT NULL,
    redeemed_ms INTEGER,
    root TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX offer_expires ON offer (expires_s);
CREATE INDEX offer_root ON offer (root) WHERE redeemed_ms IS NULL;

-- One row for each call, for whoever opens the file with a tool of their own.
CREATE VIEW call AS
SELECT
    b.idx,
    b.time,
    b.sub,
    json_extract(b.body, '$.sub_iss') AS sub_iss,
    b.agent,
    b.tool,
    b.backend,
    coalesce(e.outcome, CASE b.event WHEN 'allowed' THEN 'unfinished' ELSE b.event END) AS outcome,
    json_extract(b.body, '$.rule') AS rule,
    coalesce(json_extract(b.body, '$.code'), json_extract(e.body, '$.code')) AS code,
    json_extract(b.body, '$.reason') AS reason,
    json_extract(e.body, '$.status') AS status,
    json_extract(e.body, '$.duration_ms') AS duration_ms,
    json_extract(b.body, '$.jti') AS jti,
    b.txn,
    b.sid,
    b.tenant,
    b.body
FROM record b
LEFT JOIN record e ON b.event = 'allowed' AND e.txn = b.txn AND e.event = 'ended'
WHERE b.event IN ('allowed', 'refused', 'replayed');
