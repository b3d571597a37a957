-- Text messages, which wait in the outbox beside the mails.

-- E.164. Whether its owner wants messages there is said apart from it.
ALTER TABLE users ADD COLUMN phone text;
ALTER TABLE users ADD COLUMN sms boolean NOT NULL DEFAULT false;
ALTER TABLE users ADD CONSTRAINT users_sms_needs_phone CHECK (NOT sms OR phone IS NOT NULL);

-- A message's row has its text and no number: that is looked up when it is sent.
ALTER TABLE mail_outbox ADD COLUMN channel text NOT NULL DEFAULT 'mail' CHECK (channel IN ('mail', 'sms'));
ALTER TABLE mail_outbox ADD COLUMN text text;
DROP INDEX mail_outbox_due;
CREATE INDEX mail_outbox_due ON mail_outbox (channel, due_at) WHERE done_at IS NULL;
