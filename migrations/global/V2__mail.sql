-- Mail: what is to be sent, and the single-use tokens that mails carry.

-- A row is written in the transaction of the change that it tells of. Its text, and the token in it, are made
-- when it is sent, so that neither lies here; the Message-ID is made of the row's id.
CREATE TABLE mail_outbox (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL,
    -- None: whose address it is, if anybody's, is looked up when the mail is sent.
    user_id    uuid REFERENCES users,
    -- Gone once the row is done.
    address    text,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The next attempt, and meanwhile the end of the claim of the process that makes one.
    due_at     timestamptz NOT NULL DEFAULT now(),
    attempts   integer NOT NULL DEFAULT 0,
    done_at    timestamptz,
    outcome    text CHECK (outcome IN ('sent', 'dropped', 'refused', 'given_up')),
    CHECK ((done_at IS NULL) = (outcome IS NULL)),
    CHECK ((done_at IS NULL) = (address IS NOT NULL))
);
CREATE INDEX mail_outbox_due ON mail_outbox (due_at) WHERE done_at IS NULL;
CREATE INDEX mail_outbox_done ON mail_outbox (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX mail_outbox_by_user ON mail_outbox (user_id) WHERE user_id IS NOT NULL;

CREATE TABLE mail_tokens (
    -- SHA-256 of the token.
    hash       bytea PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users,
    purpose    text NOT NULL CHECK (purpose IN ('verify', 'reset')),
    -- Where it was sent; worth nothing once the account has another address.
    address    text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX mail_tokens_by_user ON mail_tokens (user_id, purpose);
CREATE INDEX mail_tokens_by_expiry ON mail_tokens (expires_at);
