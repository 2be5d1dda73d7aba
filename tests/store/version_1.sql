-- A log of version 1, as the broker wrote it that knew no later one: seven records, two sessions, one spend.
BEGIN TRANSACTION;
CREATE TABLE checkpoint (
    size INTEGER PRIMARY KEY,
    note TEXT NOT NULL
) STRICT;
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    size INTEGER NOT NULL,
    frontier BLOB NOT NULL
) STRICT;
INSERT INTO "head" VALUES(1,7,X'7E2B35C839A8F3D425AFAE16BE7FF6A1029F7F6EB86573F3406BCF39F686C8F4A9CCA1972E2E89E526E8B0DC33BB883EC4C4CBC13BB1F1B6D463FAC7D14F521958AA212C9055AFD0C2E25743D6DAE1B5895BECE122463F4481A777C6B69A232D');
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO "meta" VALUES('origin','broker.example/log/0c365ebf');
CREATE TABLE open_call (
    txn TEXT PRIMARY KEY,
    idx INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
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
    rate_key TEXT GENERATED ALWAYS AS (json_extract(body, '$.rate_key')) VIRTUAL
) STRICT;
INSERT INTO "record" VALUES(0,X'97AF36340B8C9FACB51350C13374CC4DD5FA0D849EAD77A2E84D67F8812DD575','{"acr":"aal2","act":{"iss":"http://127.0.0.1:8700","sub":"bot"},"agent":"bot","agent_iss":"http://127.0.0.1:8700","because":[],"catalog":"ccccccccccccccccccccccccccccccccccccccccccc","event":"session.opened","exp":1790003600,"issuer":"corp","roles":["support"],"sid":"alive","sub":"alice","sub_iss":"https://login.example.com","time":"2026-09-21T14:13:20.000Z","v":1}');
INSERT INTO "record" VALUES(1,X'92B6818F86B3DE1271A3D0D739EA7D4B5319B1AC0AE4F159834C5602565E16BB','{"acr":"aal2","act":{"iss":"http://127.0.0.1:8700","sub":"bot"},"agent":"bot","agent_iss":"http://127.0.0.1:8700","because":[],"catalog":"ccccccccccccccccccccccccccccccccccccccccccc","event":"session.opened","exp":1790003600,"issuer":"corp","roles":["support"],"sid":"revoked","sub":"alice","sub_iss":"https://login.example.com","time":"2026-09-21T14:13:20.000Z","v":1}');
INSERT INTO "record" VALUES(2,X'F17557157DD8FCAB6ACEF64E2FEA999FD2A764B40212632E93A6194CEE4392D0','{"act":{"iss":"http://127.0.0.1:8700","sub":"bot"},"agent":"bot","agent_iss":"http://127.0.0.1:8700","backend":"orders","event":"allowed","jti":"spent-before","rule":"roles.support.grants[0]","sid":"alive","sub":"alice","sub_iss":"https://login.example.com","time":"2026-09-21T14:13:20.000Z","tool":"orders_get","txn":"txn-1","v":1}');
INSERT INTO "record" VALUES(3,X'46043ED2A45287FCE593F6B247F379F499DBB5AB2115B4984B45F150AECBF045','{"act":{"iss":"http://127.0.0.1:8700","sub":"bot"},"agent":"bot","agent_iss":"http://127.0.0.1:8700","backend":"orders","event":"spent","jti":"spent-before","rule":"roles.support.grants[0]","sid":"alive","sub":"alice","sub_iss":"https://login.example.com","time":"2026-09-21T14:13:20.000Z","tool":"orders_get","txn":"txn-1","v":1}');
INSERT INTO "record" VALUES(4,X'ECA702AAF20A8C05C12CB94A58E4593184F925A693049DE35896FF9EA8726E4C','{"act":{"iss":"http://127.0.0.1:8700","sub":"bot"},"agent":"bot","agent_iss":"http://127.0.0.1:8700","duration_ms":3,"event":"ended","outcome":"returned","sub":"alice","sub_iss":"https://login.example.com","time":"2026-09-21T14:13:20.000Z","txn":"txn-1","v":1}');
INSERT INTO "record" VALUES(5,X'87223BBD29A028BD356E6CAB56DBDB9C1E4DE9FD1032EA4D26F4BEA2BD2664FC','{"act":{"iss":"http://127.0.0.1:8700","sub":"bot"},"agent":"bot","agent_iss":"http://127.0.0.1:8700","backend":"orders","event":"allowed","jti":"j2","rate_key":"rate","rule":"roles.support.grants[0]","sid":"alive","sub":"alice","sub_iss":"https://login.example.com","time":"2026-09-21T14:13:20.000Z","tool":"orders_get","txn":"txn-2","v":1}');
INSERT INTO "record" VALUES(6,X'58AA212C9055AFD0C2E25743D6DAE1B5895BECE122463F4481A777C6B69A232D','{"act":{"iss":"http://127.0.0.1:8700","sub":"bot"},"agent":"bot","agent_iss":"http://127.0.0.1:8700","event":"session.revoked","issuer":"corp","sid":"revoked","sub":"alice","sub_iss":"https://login.example.com","time":"2026-09-21T14:13:20.000Z","v":1}');
CREATE TABLE session (
    sid TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    opened_ms INTEGER NOT NULL,
    expires_s INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "session" VALUES('alive','{"acr":"aal2","amr":["pwd"],"assertions":[],"auth_time":1,"chain":[["https://login.example.com","alice"],["http://127.0.0.1:8700","bot"]],"issuer":"corp","jkt":null,"kind":"issuer","limits":[],"may_act":null,"parent":null,"roles":["support"],"tenant":null}',1790000000000,1790003600,NULL);
INSERT INTO "session" VALUES('revoked','{"acr":"aal2","amr":["pwd"],"assertions":[],"auth_time":1,"chain":[["https://login.example.com","alice"],["http://127.0.0.1:8700","bot"]],"issuer":"corp","jkt":null,"kind":"issuer","limits":[],"may_act":null,"parent":null,"roles":["support"],"tenant":null}',1790000000000,1790003600,1790000000000);
CREATE TABLE spent (
    jti TEXT PRIMARY KEY,
    keep_until_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "spent" VALUES('spent-before',1790000060);
CREATE INDEX record_wide ON record (time, event, sub, agent, tool, backend, outcome, txn);
CREATE INDEX record_txn ON record (txn, event) WHERE txn IS NOT NULL;
CREATE INDEX record_rate ON record (rate_key, time) WHERE rate_key IS NOT NULL;
CREATE TRIGGER record_no_update BEFORE UPDATE ON record
BEGIN
    SELECT RAISE(ABORT, 'the delegation log is append-only');
END;
CREATE TRIGGER record_no_delete BEFORE DELETE ON record
BEGIN
    SELECT RAISE(ABORT, 'the delegation log is append-only');
END;
CREATE INDEX spent_keep ON spent (keep_until_s);
COMMIT;
