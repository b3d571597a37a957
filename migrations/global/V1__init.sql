-- The schema of the global database: accounts, authority, catalogue, audit, and the positions of the feed
-- by which every region follows them.

-- The feed --------------------------------------------------------------------------------------------------

-- The last position given out. A transaction that writes to the feed holds this row until it commits, so
-- positions become visible in order: whoever has read up to N has missed nothing below N.
CREATE TABLE feed_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position bigint NOT NULL
);
INSERT INTO feed_head (position) VALUES (0);

-- What the feed sends whole, with the position of its last change and a version of its own.
CREATE TABLE feed_wholes (
    name     text PRIMARY KEY CHECK (name IN ('policy', 'keys')),
    version  bigint NOT NULL,
    position bigint NOT NULL
);

-- Access tokens that are void before they expire; a row may go once `expires_at` has passed.
CREATE TABLE revocations (
    position    bigint PRIMARY KEY,
    session_id  uuid,
    user_id     uuid,
    min_version bigint,
    expires_at  timestamptz NOT NULL,
    CHECK ((session_id IS NULL) <> (user_id IS NULL)),
    CHECK ((user_id IS NULL) = (min_version IS NULL))
);
CREATE INDEX revocations_by_expiry ON revocations (expires_at);

-- Accounts --------------------------------------------------------------------------------------------------

-- A deleted account keeps its row, for the books; what is personal is gone from it.
CREATE TABLE users (
    id             uuid PRIMARY KEY,
    email          text,
    username       text,
    name           text NOT NULL,
    password_hash  text,
    email_verified boolean NOT NULL DEFAULT false,
    disabled       boolean NOT NULL DEFAULT false,
    deleted_at     timestamptz,
    -- The `ver` claim: tokens with a smaller one are void.
    token_version  bigint NOT NULL DEFAULT 1,
    -- For ETag and If-Match.
    version        bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT now(),
    CHECK (deleted_at IS NOT NULL OR (email IS NOT NULL AND username IS NOT NULL))
);
CREATE UNIQUE INDEX users_email ON users (lower(email));
CREATE UNIQUE INDEX users_username ON users (lower(username));

-- region '': everywhere.
CREATE TABLE user_roles (
    user_id uuid NOT NULL REFERENCES users,
    role    text NOT NULL,
    region  text NOT NULL DEFAULT '',
    PRIMARY KEY (user_id, role, region)
);
CREATE INDEX user_roles_by_role ON user_roles (role, region);

CREATE TABLE sessions (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users,
    -- SHA-256 of the one refresh token that is good now.
    refresh_hash bytea NOT NULL UNIQUE,
    device       text NOT NULL,
    address      text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz
);
CREATE INDEX sessions_by_user ON sessions (user_id, id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- Refresh tokens that were exchanged. One that comes back was stolen, or its successor was.
CREATE TABLE spent_refresh_tokens (
    hash       bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE
);
CREATE INDEX spent_refresh_tokens_by_session ON spent_refresh_tokens (session_id);

-- Private halves are sealed under the master key.
CREATE TABLE signing_keys (
    kid        text PRIMARY KEY,
    public_key bytea NOT NULL,
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Authority -------------------------------------------------------------------------------------------------

-- casbin's rules: ptype `p` is (role, region, resource, action), ptype `g` is (role, included role).
CREATE TABLE casbin_rules (
    ptype text NOT NULL,
    v0    text NOT NULL DEFAULT '',
    v1    text NOT NULL DEFAULT '',
    v2    text NOT NULL DEFAULT '',
    v3    text NOT NULL DEFAULT '',
    v4    text NOT NULL DEFAULT '',
    v5    text NOT NULL DEFAULT '',
    PRIMARY KEY (ptype, v0, v1, v2, v3, v4, v5)
);

-- Catalogue -------------------------------------------------------------------------------------------------

CREATE TABLE movies (
    id           uuid PRIMARY KEY,
    title        text NOT NULL,
    release_date date,
    runtime_min  integer CHECK (runtime_min > 0),
    rating       text,
    genre        text,
    director     text,
    distributor  text,
    "cast"       text[] NOT NULL DEFAULT '{}',
    synopsis     text,
    deleted      boolean NOT NULL DEFAULT false,
    version      bigint NOT NULL DEFAULT 1,
    -- Normalised title and release date; what tells that two rows of two imports are one film.
    natural_key  text NOT NULL,
    position     bigint NOT NULL UNIQUE
);
CREATE UNIQUE INDEX movies_natural_key ON movies (natural_key) WHERE NOT deleted;

-- Audit -----------------------------------------------------------------------------------------------------

CREATE TABLE audit (
    id      uuid PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   uuid,               -- none: the system itself, or nobody signed in
    action  text NOT NULL,
    target  text NOT NULL,
    before  jsonb,
    after   jsonb,
    address text NOT NULL
);
CREATE INDEX audit_by_actor ON audit (actor, id);
CREATE INDEX audit_by_action ON audit (action, id);
CREATE INDEX audit_by_time ON audit (at);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
