-- Notices for people without an account, and of a show's other time.
ALTER TABLE notice_outbox ALTER COLUMN customer DROP NOT NULL;
-- Sealed, where there is no customer; opened when it is told.
ALTER TABLE notice_outbox ADD COLUMN contact text;
ALTER TABLE notice_outbox ADD COLUMN reservation text NOT NULL DEFAULT '';
ALTER TABLE notice_outbox ADD COLUMN was_starts_at text;
