-- Contacts are sealed in the journal, and so in the read models (`reservations.contact` is text as before, of the
-- sealed bytes). What was folded from older entries is emptied of addresses that can be read, and folded anew.
TRUNCATE projected, shows, reservations, payments, refunds, tickets;

-- The keys of the months, as `global` last told them, sealed under the region's master key; null: never heard.
ALTER TABLE feed_state ADD COLUMN month_keys bytea;
