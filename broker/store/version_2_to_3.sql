-- From version 2 to 3, in one transaction. No record is touched. A broker of version 2 that still has the file
-- open looks at the version in each of its transactions, and writes no more.

-- What of a record may be erased later, and the salt without which its digest in the record cannot be
-- guessed. Erasing takes nothing from the proof. An erased row is overwritten where it stands, with a salt of
-- zeros and `{}`: a row that is deleted lets SQLite move its neighbours, and copies of them stay behind in the file.
CREATE TABLE private (
    idx INTEGER PRIMARY KEY,
    salt BLOB NOT NULL CHECK (length(salt) = 16),
    body TEXT NOT NULL
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

CREATE INDEX record_erased ON record (time) WHERE event = 'erased';
CREATE INDEX session_expires ON session (expires_s);

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
