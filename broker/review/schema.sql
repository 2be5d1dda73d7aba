-- What is derived from a delegation log, so that questions to millions of records are answered at once. Nothing
-- in it is proof of anything: it is made from the log, and may be deleted. Names stand once, in `name`, and
-- everywhere else by their id; 0 is "none". Times are Unix times in milliseconds; `idx` is a record's index.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE name (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

INSERT INTO name VALUES
    (0, ''), (1, 'unfinished'), (2, 'returned'), (3, 'failed'), (4, 'cancelled'), (5, 'issued'), (6, 'refused'),
    (7, 'replayed');

CREATE TABLE who (
    id INTEGER PRIMARY KEY,
    sub INTEGER NOT NULL,
    sub_iss INTEGER NOT NULL,
    agent INTEGER NOT NULL,
    agent_iss INTEGER NOT NULL,
    tenant INTEGER NOT NULL,
    UNIQUE (sub, sub_iss, agent, agent_iss, tenant)
) STRICT;

CREATE INDEX who_agent ON who (agent);

-- A subject with all its actors. `depth` is the number of actors.
CREATE TABLE chain (
    id INTEGER PRIMARY KEY,
    who INTEGER NOT NULL,
    act TEXT NOT NULL,
    depth INTEGER NOT NULL,
    calls INTEGER NOT NULL DEFAULT 0,
    first INTEGER,
    last INTEGER,
    UNIQUE (who, act)
) STRICT;

CREATE INDEX chain_depth ON chain (depth, calls);

CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    sid TEXT NOT NULL UNIQUE,
    parent INTEGER NOT NULL DEFAULT 0,
    who INTEGER NOT NULL DEFAULT 0,
    delegated_idx INTEGER,
    opened_idx INTEGER,
    opened_ms INTEGER,
    revoked_idx INTEGER,
    revoked_ms INTEGER,
    exp INTEGER
) STRICT;

CREATE INDEX session_parent ON session (parent) WHERE parent <> 0;

-- A call that was allowed or refused, or a token that was shown again. `idx` is the record that began it.
CREATE TABLE call (
    idx INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    sub INTEGER NOT NULL,
    agent INTEGER NOT NULL,
    who INTEGER NOT NULL,
    chain INTEGER NOT NULL,
    tenant INTEGER NOT NULL,
    tool INTEGER NOT NULL,
    backend INTEGER NOT NULL,
    action INTEGER NOT NULL,
    aud INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    code INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    session INTEGER NOT NULL,
    txn TEXT,
    jti TEXT,
    exp INTEGER,
    end_idx INTEGER,
    status INTEGER,
    duration_ms INTEGER,
    spent_idx INTEGER,
    replays INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX call_outcome ON call (outcome);
CREATE INDEX call_sub ON call (sub);
CREATE INDEX call_agent ON call (agent);
CREATE INDEX call_tenant ON call (tenant) WHERE tenant <> 0;
CREATE INDEX call_tool ON call (tool);
CREATE INDEX call_backend ON call (backend);
CREATE INDEX call_code ON call (code) WHERE code <> 0;
CREATE INDEX call_session ON call (session) WHERE session <> 0;
CREATE INDEX call_txn ON call (txn) WHERE txn IS NOT NULL;
CREATE INDEX call_jti ON call (jti) WHERE jti IS NOT NULL;
CREATE INDEX call_unspent ON call (backend) WHERE spent_idx IS NULL AND jti IS NOT NULL AND outcome < 6;

-- Everything that is no call and no part of one: sessions, revocations, catalogs. `about` is the name, session
-- or token that it is about.
CREATE TABLE event (
    idx INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    event INTEGER NOT NULL,
    session INTEGER NOT NULL,
    about TEXT NOT NULL
) STRICT;

CREATE INDEX event_about ON event (about);
CREATE INDEX event_session ON event (session) WHERE session <> 0;

-- Which backends ever told this log that a token was spent.
CREATE TABLE reporter (
    backend INTEGER PRIMARY KEY,
    spends INTEGER NOT NULL
) STRICT;

-- Calls counted. `period` is 20261231 for a day, 202612 for a month, 0 for all time (UTC).
CREATE TABLE tally (
    period INTEGER NOT NULL,
    who INTEGER NOT NULL,
    tool INTEGER NOT NULL,
    backend INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    code INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (period, who, tool, backend, outcome, code)
) STRICT, WITHOUT ROWID;

-- Calls counted for each `hour` (Unix time in hours): all of them, and those of one subject, agent, tool, backend or
-- tenant. `kind` is the column of `call`; '' with the name 0 is all.
CREATE TABLE hourly (
    kind TEXT NOT NULL,
    name INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (kind, name, hour, outcome)
) STRICT, WITHOUT ROWID;

-- From which record to which the calls of an hour stand: a time becomes a stretch of the log.
CREATE TABLE hour (
    hour INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT;

CREATE TABLE session_tally (
    session INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (session, outcome)
) STRICT, WITHOUT ROWID;

-- `asked` is the first call of that agent that names the tool, `allowed` the first that was allowed.
CREATE TABLE first_use (
    agent INTEGER NOT NULL,
    agent_iss INTEGER NOT NULL,
    tool INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    allowed INTEGER,
    calls INTEGER NOT NULL,
    PRIMARY KEY (agent, agent_iss, tool)
) STRICT, WITHOUT ROWID;

CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = "unicode61 remove_diacritics 2");

-- What can be erased has a table of its own, from which a row can be deleted.
CREATE VIRTUAL TABLE private_words USING fts5 (text, tokenize = "unicode61 remove_diacritics 2");
