-- Keys under which personal data is held outside of this database, so that it is forgotten there by destroying them.

-- An account's key is derived from this and the master key; gone with the account's other data.
ALTER TABLE users ADD COLUMN person_salt uuid DEFAULT gen_random_uuid();
UPDATE users SET person_salt = NULL WHERE deleted_at IS NOT NULL;

-- For people without an account: one key a month, made ahead, sealed under the master key; a row is deleted some
-- months after its month. 12 × year + month, January being 0.
CREATE TABLE month_keys (
    month      integer PRIMARY KEY,
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE feed_wholes DROP CONSTRAINT feed_wholes_name_check;
ALTER TABLE feed_wholes ADD CONSTRAINT feed_wholes_name_check CHECK (name IN ('policy', 'keys', 'month_keys'));
