-- Where some thousands of records wait while they are taken into the index. These tables live in memory.

CREATE TEMP TABLE batch (
    idx INTEGER PRIMARY KEY, event TEXT, time_ms INTEGER, outcome TEXT, sub TEXT, sub_iss TEXT, agent TEXT,
    agent_iss TEXT, act TEXT, tenant TEXT, tool TEXT, backend TEXT, action TEXT, aud TEXT, rule TEXT, code TEXT,
    reason TEXT, sid TEXT, txn TEXT, jti TEXT, exp INTEGER, status INTEGER, duration_ms INTEGER, parent TEXT,
    child TEXT, name TEXT
);

CREATE TEMP TABLE fresh (
    idx INTEGER PRIMARY KEY, time_ms INTEGER, outcome INTEGER, sub INTEGER, sub_iss INTEGER, agent INTEGER,
    agent_iss INTEGER, tenant INTEGER, who INTEGER, chain INTEGER, act TEXT, tool INTEGER, backend INTEGER,
    action INTEGER, aud INTEGER, rule INTEGER, code INTEGER, reason INTEGER, session INTEGER, txn TEXT, jti TEXT,
    exp INTEGER, end_idx INTEGER, status INTEGER, duration_ms INTEGER, spent_idx INTEGER, replays INTEGER
);

CREATE TEMP TABLE ending (
    txn TEXT PRIMARY KEY, idx INTEGER, outcome INTEGER, code INTEGER, status INTEGER, duration_ms INTEGER
) WITHOUT ROWID;

CREATE TEMP TABLE spending (jti TEXT PRIMARY KEY, spent_idx INTEGER, replays INTEGER) WITHOUT ROWID;

-- What is counted: one line for a new call, two for one that another outcome is known of now.
CREATE TEMP TABLE delta (
    calls INTEGER, idx INTEGER, time_ms INTEGER, who INTEGER, sub INTEGER, agent INTEGER, tenant INTEGER,
    tool INTEGER, backend INTEGER, outcome INTEGER, code INTEGER, session INTEGER
);
