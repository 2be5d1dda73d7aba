-- Takes the records `:low` to `:high` - 1 of the attached `log` into the index, within one transaction. Nothing of
-- it runs in Python, so that whoever shares the process is not held up.

DELETE FROM batch;
DELETE FROM fresh;
DELETE FROM ending;
DELETE FROM spending;
DELETE FROM delta;

-- 1. Read. What is not JSON is left to `broker log verify`.
INSERT INTO batch
SELECT
    idx,
    json_extract(body, '$.event'),
    coalesce(
        CAST(strftime('%s', substr(json_extract(body, '$.time'), 1, 19)) AS INTEGER) * 1000
        + CAST(substr(json_extract(body, '$.time'), 21, 3) AS INTEGER),
        0
    ),
    coalesce(json_extract(body, '$.outcome'), ''),
    coalesce(json_extract(body, '$.sub'), ''),
    coalesce(json_extract(body, '$.sub_iss'), ''),
    coalesce(json_extract(body, '$.agent'), ''),
    coalesce(json_extract(body, '$.agent_iss'), ''),
    coalesce(json_extract(body, '$.act'), ''),
    coalesce(json_extract(body, '$.tenant'), ''),
    coalesce(json_extract(body, '$.tool'), ''),
    coalesce(json_extract(body, '$.backend'), ''),
    coalesce(json_extract(body, '$.action'), ''),
    coalesce(json_extract(body, '$.aud'), ''),
    coalesce(json_extract(body, '$.rule'), ''),
    coalesce(json_extract(body, '$.code'), ''),
    coalesce(json_extract(body, '$.reason'), ''),
    coalesce(json_extract(body, '$.sid'), ''),
    json_extract(body, '$.txn'),
    json_extract(body, '$.jti'),
    CAST(json_extract(body, '$.exp') AS INTEGER),
    CAST(json_extract(body, '$.status') AS INTEGER),
    CAST(json_extract(body, '$.duration_ms') AS INTEGER),
    coalesce(json_extract(body, '$.parent'), ''),
    coalesce(json_extract(body, '$.child'), ''),
    coalesce(json_extract(body, '$.name'), '')
FROM log.record
WHERE idx >= :low AND idx < :high AND json_valid(body);

-- 2. Names, sessions.
INSERT OR IGNORE INTO name (text)
SELECT sub FROM batch UNION SELECT sub_iss FROM batch UNION SELECT agent FROM batch UNION
SELECT agent_iss FROM batch UNION SELECT tenant FROM batch UNION SELECT tool FROM batch UNION
SELECT backend FROM batch UNION SELECT action FROM batch UNION SELECT aud FROM batch UNION
SELECT rule FROM batch UNION SELECT code FROM batch UNION SELECT reason FROM batch UNION
SELECT outcome FROM batch UNION SELECT event FROM batch;

INSERT OR IGNORE INTO session (sid)
SELECT sid FROM batch WHERE sid <> '' UNION SELECT parent FROM batch WHERE parent <> '' UNION
SELECT child FROM batch WHERE child <> '';

INSERT OR IGNORE INTO who (sub, sub_iss, agent, agent_iss, tenant)
SELECT DISTINCT
    (SELECT id FROM name WHERE text = sub),
    (SELECT id FROM name WHERE text = sub_iss),
    (SELECT id FROM name WHERE text = agent),
    (SELECT id FROM name WHERE text = agent_iss),
    (SELECT id FROM name WHERE text = tenant)
FROM (SELECT DISTINCT sub, sub_iss, agent, agent_iss, tenant FROM batch WHERE event NOT IN ('ended', 'spent'));

-- 3. How calls ended, and what became of their tokens. The later record counts, as it does in `broker log list`.
INSERT OR REPLACE INTO ending
SELECT
    txn, idx,
    (SELECT id FROM name WHERE text = b.outcome),
    (SELECT id FROM name WHERE text = b.code),
    status, duration_ms
FROM batch b WHERE event = 'ended' AND txn IS NOT NULL ORDER BY idx;

INSERT INTO spending
SELECT jti, min(idx) FILTER (WHERE event = 'spent'), count(*) FILTER (WHERE event = 'replayed')
FROM batch WHERE event IN ('spent', 'replayed') AND jti IS NOT NULL GROUP BY jti;

INSERT INTO reporter
SELECT (SELECT id FROM name WHERE text = backend), count(*) FROM batch WHERE event = 'spent' GROUP BY backend
ON CONFLICT DO UPDATE SET spends = spends + excluded.spends;

-- 4. Calls of earlier records of which something more is known. Spelled so that these few are found by their txn,
-- or jti: left to itself, SQLite looks through all calls.
INSERT INTO delta
SELECT n.calls, c.idx, c.time_ms, c.who, c.sub, c.agent, c.tenant, c.tool, c.backend,
    iif(n.calls < 0, c.outcome, e.outcome),
    iif(n.calls < 0 OR e.code = 0, c.code, e.code),
    c.session
FROM ending e
CROSS JOIN call c ON c.txn = e.txn AND +c.outcome < 6
CROSS JOIN (SELECT -1 AS calls UNION ALL SELECT 1) n;

UPDATE call SET (outcome, end_idx, status, duration_ms, code) = (
    SELECT e.outcome, e.idx, e.status, e.duration_ms, iif(e.code = 0, call.code, e.code)
    FROM ending e WHERE e.txn = call.txn
)
WHERE idx IN (SELECT idx FROM delta WHERE calls = -1);

UPDATE call SET (spent_idx, replays) = (
    SELECT coalesce(call.spent_idx, s.spent_idx), call.replays + s.replays FROM spending s WHERE s.jti = call.jti
)
WHERE idx IN (SELECT c.idx FROM spending s CROSS JOIN call c ON c.jti = s.jti AND +c.outcome < 6);

-- 5. New calls.
INSERT INTO fresh
SELECT
    b.idx, b.time_ms,
    CASE b.event WHEN 'refused' THEN 6 WHEN 'replayed' THEN 7 ELSE coalesce(e.outcome, 1) END,
    (SELECT id FROM name WHERE text = b.sub),
    (SELECT id FROM name WHERE text = b.sub_iss),
    (SELECT id FROM name WHERE text = b.agent),
    (SELECT id FROM name WHERE text = b.agent_iss),
    (SELECT id FROM name WHERE text = b.tenant),
    0, 0, b.act,
    (SELECT id FROM name WHERE text = b.tool),
    (SELECT id FROM name WHERE text = b.backend),
    (SELECT id FROM name WHERE text = b.action),
    (SELECT id FROM name WHERE text = b.aud),
    (SELECT id FROM name WHERE text = b.rule),
    iif(b.code = '', coalesce(e.code, 0), (SELECT id FROM name WHERE text = b.code)),
    (SELECT id FROM name WHERE text = b.reason),
    iif(b.sid = '', 0, (SELECT id FROM session WHERE sid = b.sid)),
    b.txn, b.jti, b.exp, e.idx, e.status, e.duration_ms, s.spent_idx, coalesce(s.replays, 0)
FROM batch b
LEFT JOIN ending e ON b.event = 'allowed' AND e.txn = b.txn
LEFT JOIN spending s ON b.event = 'allowed' AND s.jti = b.jti
WHERE b.event IN ('allowed', 'refused', 'replayed')
ORDER BY b.idx;

UPDATE fresh SET who = (
    SELECT id FROM who w
    WHERE w.sub = fresh.sub AND w.sub_iss = fresh.sub_iss AND w.agent = fresh.agent
        AND w.agent_iss = fresh.agent_iss AND w.tenant = fresh.tenant
);

INSERT INTO chain (who, act, depth, calls, first, last)
SELECT who, act, (length(act) - length(replace(act, '"sub":', ''))) / 6, count(*), min(idx), max(idx)
FROM fresh WHERE true GROUP BY who, act
ON CONFLICT DO UPDATE SET
    calls = calls + excluded.calls, first = coalesce(first, excluded.first), last = excluded.last;

UPDATE fresh SET chain = (SELECT id FROM chain c WHERE c.who = fresh.who AND c.act = fresh.act);

INSERT INTO call
SELECT
    idx, time_ms, outcome, sub, agent, who, chain, tenant, tool, backend, action, aud, rule, code, reason, session,
    txn, jti, exp, end_idx, status, duration_ms, spent_idx, replays
FROM fresh ORDER BY idx;

INSERT INTO delta
SELECT 1, idx, time_ms, who, sub, agent, tenant, tool, backend, outcome, code, session FROM fresh;

-- 6. Sessions, and everything else that is no call.
INSERT INTO event
SELECT
    idx, time_ms,
    (SELECT id FROM name WHERE text = b.event),
    iif(sid = '', 0, (SELECT id FROM session WHERE sid = b.sid)),
    CASE WHEN b.name <> '' THEN b.name WHEN jti IS NOT NULL THEN jti ELSE b.child END
FROM batch b
WHERE event NOT IN ('allowed', 'refused', 'replayed', 'ended', 'spent') ORDER BY idx;

UPDATE session SET
    opened_idx = b.idx, opened_ms = b.time_ms, exp = b.exp,
    parent = iif(b.parent = '', session.parent, (SELECT id FROM session p WHERE p.sid = b.parent)),
    who = (
        SELECT id FROM who w
        WHERE w.sub = (SELECT id FROM name WHERE text = b.sub)
            AND w.sub_iss = (SELECT id FROM name WHERE text = b.sub_iss)
            AND w.agent = (SELECT id FROM name WHERE text = b.agent)
            AND w.agent_iss = (SELECT id FROM name WHERE text = b.agent_iss)
            AND w.tenant = (SELECT id FROM name WHERE text = b.tenant)
    )
FROM batch b WHERE b.event = 'session.opened' AND session.sid = b.sid;

UPDATE session SET
    delegated_idx = b.idx, parent = (SELECT id FROM session p WHERE p.sid = b.sid),
    exp = coalesce(session.exp, b.exp)
FROM batch b WHERE b.event = 'delegated' AND session.sid = b.child AND b.child <> '';

UPDATE session SET revoked_idx = b.idx, revoked_ms = b.time_ms
FROM batch b WHERE b.event = 'session.revoked' AND session.sid = b.sid AND session.revoked_idx IS NULL;

-- 7. Counts: by the day, by the month, of all time.
INSERT INTO tally
SELECT d.day / n.part, d.who, d.tool, d.backend, d.outcome, d.code, sum(d.calls), min(d.idx), max(d.idx)
FROM (
    SELECT *, CAST(strftime('%Y%m%d', time_ms / 1000, 'unixepoch') AS INTEGER) AS day FROM delta
) d
CROSS JOIN (SELECT 1 AS part UNION ALL SELECT 100 UNION ALL SELECT 100000000) n
GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT DO UPDATE SET
    calls = calls + excluded.calls, first = min(first, excluded.first), last = max(last, excluded.last);

INSERT INTO hourly
SELECT '', 0, time_ms / 3600000, outcome, sum(calls) FROM delta GROUP BY 3, 4 UNION ALL
SELECT 'sub', sub, time_ms / 3600000, outcome, sum(calls) FROM delta GROUP BY 2, 3, 4 UNION ALL
SELECT 'agent', agent, time_ms / 3600000, outcome, sum(calls) FROM delta GROUP BY 2, 3, 4 UNION ALL
SELECT 'tool', tool, time_ms / 3600000, outcome, sum(calls) FROM delta GROUP BY 2, 3, 4 UNION ALL
SELECT 'backend', backend, time_ms / 3600000, outcome, sum(calls) FROM delta GROUP BY 2, 3, 4 UNION ALL
SELECT 'tenant', tenant, time_ms / 3600000, outcome, sum(calls) FROM delta WHERE tenant <> 0 GROUP BY 2, 3, 4
ON CONFLICT DO UPDATE SET calls = calls + excluded.calls;

INSERT INTO hour
SELECT time_ms / 3600000, min(idx), max(idx) FROM fresh WHERE true GROUP BY 1
ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last);

INSERT INTO session_tally
SELECT session, outcome, sum(calls), min(idx), max(idx) FROM delta WHERE session <> 0 GROUP BY 1, 2
ON CONFLICT DO UPDATE SET
    calls = calls + excluded.calls, first = min(first, excluded.first), last = max(last, excluded.last);

INSERT INTO first_use
SELECT agent, agent_iss, tool, min(idx), min(idx) FILTER (WHERE outcome < 6), count(*)
FROM fresh WHERE tool <> 0 AND agent <> 0 AND outcome < 7 GROUP BY 1, 2, 3
ON CONFLICT DO UPDATE SET allowed = coalesce(allowed, excluded.allowed), calls = calls + excluded.calls;

-- 8. Words: what people and agents named. Ids and digests are found in other ways, and would make it large.
INSERT INTO words (rowid, text)
SELECT b.idx, (
    SELECT group_concat(t.atom, ' ') FROM json_tree(r.body) t
    WHERE t.atom IS NOT NULL AND t.key NOT IN (
        'v', 'time', 'exp', 'catalog', 'arguments_sha256', 'body_sha256', 'private_sha256', 'txn', 'jti', 'sid',
        'jkt', 'rate_key', 'child', 'parent', 'redeem_until', 'log'
    )
)
FROM batch b JOIN log.record r ON r.idx = b.idx
WHERE b.event NOT IN ('ended', 'spent') ORDER BY b.idx;
