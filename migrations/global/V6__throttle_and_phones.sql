-- How often somebody has tried of late, for all processes of this service; phone numbers that were proved; mails about
-- orders.

-- By what was tried and from where, as a keyed digest: it names nobody. Losing it in a crash costs nothing but the
-- count, so it needs no write-ahead log.
CREATE UNLOGGED TABLE attempts (
    pair    bytea PRIMARY KEY,
    count   integer NOT NULL,
    last_at timestamptz NOT NULL
);

-- A code that was sent to the number came back. Messages go to no other.
ALTER TABLE users ADD COLUMN phone_verified boolean NOT NULL DEFAULT false;

-- The last code that was sent to an account's number.
CREATE TABLE phone_codes (
    user_id    uuid PRIMARY KEY REFERENCES users,
    -- Where it was sent; worth nothing once the account has another number.
    phone      text NOT NULL,
    -- Under the master key: a million codes are soon tried.
    digest     bytea NOT NULL,
    tries      integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);

-- Mails about orders have a lane of their own: a rush of them must not hold up a forgotten password.
ALTER TABLE mail_outbox DROP CONSTRAINT mail_outbox_channel_check;
ALTER TABLE mail_outbox ADD CONSTRAINT mail_outbox_channel_check CHECK (channel IN ('mail', 'order', 'sms'));
