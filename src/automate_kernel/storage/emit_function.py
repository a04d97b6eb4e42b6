"""
The SQL function ``automate_emit`` of PostgreSQL: events from any language, and from triggers.

It writes the item that `Kernel.emit` would, in the transaction that calls it, and refuses what that
would refuse. What follows from an event, executions and relays, follows in a worker.
"""

from __future__ import annotations

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.statuses import ItemStatus, ItemWait

_ARGUMENTS = """\
name text,
  payload jsonb DEFAULT 'null',
  ordering_key text DEFAULT NULL,
  idempotency_key text DEFAULT NULL,
  tenant_id text DEFAULT NULL,
  labels jsonb DEFAULT '{}',
  source text DEFAULT '',
  delay interval DEFAULT '0',
  priority integer DEFAULT 0,
  wake boolean DEFAULT false"""

_BODY = r"""
DECLARE
  scope text := coalesce(length(automate_emit.tenant_id) || ':' || automate_emit.tenant_id, '')
    || CASE WHEN automate_emit.tenant_id IS NULL THEN '' ELSE ':' END;
  seconds numeric := extract(epoch FROM coalesce(automate_emit.delay, '0'));
  micros bigint := floor(extract(epoch FROM clock_timestamp()) * 1000000);
  digits text := lpad(to_hex(micros / 1000), 12, '0');
  chance text := gen_random_uuid()::text;
  -- Version 7, as the kernel makes them: in the order of their time.
  new_id uuid := (substr(digits, 1, 8) || '-' || substr(digits, 9, 4)
    || '-7' || lpad(to_hex(mod(micros, 1000) * 4096 / 1000), 3, '0') || substr(chance, 19))::uuid;
  body jsonb := coalesce(automate_emit.payload, 'null');
  found_labels jsonb := '{}';
  headers jsonb := '{}';
  -- With a blank at its beginning or end, as Unicode has blanks.
  blank text := '[\s\x1c-\x1f\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]';
  around text := '^' || blank || '|' || blank || '$';
  label record;
  wrong record;
  taken uuid;
BEGIN
  FOR wrong IN
    SELECT what, given, room FROM (VALUES
      ('the event''s name', automate_emit.name, 200),
      ('the event''s source', nullif(automate_emit.source, ''), 200),
      ('tenant_id', automate_emit.tenant_id, 200),
      ('ordering_key', automate_emit.ordering_key, 200 - length(scope)),
      ('idempotency_key', automate_emit.idempotency_key, 255 - length(scope))
    ) AS texts (what, given, room)
    WHERE length(given) NOT BETWEEN 1 AND room OR given ~ around
      OR (what = 'the event''s name'
        AND given ~ '[[:cntrl:]\u0085\u00a0\u2000-\u200f\u2028-\u202f]')
  LOOP
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
      MESSAGE = wrong.what || ' can''t be stored: it has ' || length(wrong.given) || ' characters',
      HINT = 'give it 1 to ' || wrong.room || ' characters, none around it blank';
  END LOOP;
  IF automate_emit.name IS NULL THEN
    RAISE EXCEPTION 'the event has no name' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF octet_length(body::text) > 1000000 THEN
    RAISE EXCEPTION 'the payload is too long: over 1,000,000 bytes of JSON'
      USING ERRCODE = 'invalid_parameter_value',
        HINT = 'store the data elsewhere and pass a reference';
  END IF;
  IF jsonb_path_exists(
    body, 'strict $.**{100 to last} ? (@.type() == "array" || @.type() == "object")'
  ) THEN
    RAISE EXCEPTION 'the payload is nested deeper than 100 levels'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- What other readers of JSON make infinite.
  IF body::text ~ '[0-9]{250}' AND jsonb_path_exists(
    body, '$.** ? (@.type() == "number" && (@ >= 8.98e307 || @ <= -8.98e307))'
  ) THEN
    RAISE EXCEPTION 'the payload has a number that is too large'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT seconds BETWEEN 0 AND 3155760000 OR abs(coalesce(automate_emit.priority, 0)) > 32767 THEN
    RAISE EXCEPTION 'delay is from 0 to 100 years, and priority from -32,767 to 32,767'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR label IN SELECT * FROM jsonb_each(coalesce(automate_emit.labels, '{}')) LOOP
    IF label.key !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'
      OR jsonb_typeof(label.value) NOT IN ('string', 'number')
      OR length(label.value #>> '{}') NOT BETWEEN 1 AND 200 OR label.value #>> '{}' ~ around
      OR (jsonb_typeof(label.value) = 'number' AND label.value #>> '{}' ~ '[^0-9-]')
    THEN
      RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
        MESSAGE = 'the label ' || left(label.key, 64) || ' can''t be stored',
        HINT = 'its name has letters, digits, _ . and -, its value is text or a whole number';
    END IF;
    found_labels := found_labels || jsonb_build_object(label.key, label.value #>> '{}');
  END LOOP;
  IF (SELECT count(*) FROM jsonb_object_keys(found_labels)) > 10 THEN
    RAISE EXCEPTION 'there are more than 10 labels' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF found_labels <> '{}' THEN
    headers := headers || jsonb_build_object('automate-labels', found_labels);
  END IF;
  IF seconds > 0 THEN
    headers := headers || jsonb_build_object('automate.delay', seconds);
  END IF;
  INSERT INTO automate_outbox (
    id, kind, payload, headers, status, waiting_for, priority, attempt_count, max_attempts,
    next_attempt_at, sort_at, idempotency_key, tenant_id, ordering_key, created_at, updated_at, lane
  ) VALUES (
    new_id, 'automate.event', jsonb_build_object(
      'name', automate_emit.name, 'type', 'event', 'source', coalesce(automate_emit.source, ''),
      'payload', body, 'occurred_at', to_char(
        clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
      )
    ), headers, @PENDING@, CASE WHEN seconds > 0 THEN @TIME@ ELSE @WORKER@ END,
    coalesce(automate_emit.priority, 0), 0, 50,
    statement_timestamp() + seconds * interval '1 second',
    statement_timestamp()
      + (seconds - coalesce(automate_emit.priority, 0) * 3600) * interval '1 second',
    scope || automate_emit.idempotency_key, automate_emit.tenant_id,
    scope || automate_emit.ordering_key, statement_timestamp(), statement_timestamp(),
    automate_emit.name
  ) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    SELECT o.id INTO taken FROM automate_outbox o
      WHERE o.idempotency_key = scope || automate_emit.idempotency_key FOR KEY SHARE;
    IF taken IS NULL THEN
      RAISE EXCEPTION 'the event could not be stored: try again'
        USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN taken;
  END IF;
  INSERT INTO automate_label (id, name, value, subject_id, about, tenant_id, created_at)
    SELECT md5(new_id || E'\n' || each.key)::uuid, each.key, each.value, new_id, 'item',
      automate_emit.tenant_id, statement_timestamp()
    FROM jsonb_each_text(found_labels) each;
  IF automate_emit.wake THEN
    PERFORM pg_notify('automate_outbox', '');
  END IF;
  RETURN new_id;
END
"""
for _word in (ItemStatus.PENDING, ItemWait.TIME, ItemWait.WORKER):
    _BODY = _BODY.replace(f"@{_word.name}@", f"'{_word}'")

_FIND = """\
SELECT prosrc FROM pg_proc WHERE proname = 'automate_emit' AND pg_function_is_visible(oid)"""


def emit_function_sql() -> str:
    """Return the statement that makes the function, or exchanges it: for PostgreSQL 13 or later."""
    return (
        f"CREATE OR REPLACE FUNCTION automate_emit(\n  {_ARGUMENTS}\n) RETURNS uuid"
        f" LANGUAGE plpgsql SET search_path FROM CURRENT AS $function${_BODY}$function$"
    )


def change_of_emit_function(rows: Rows, *, wanted: bool) -> list[str]:
    """
    Return the statement that the function needs: one that is there is kept up with this release.

    It is made only if it is *wanted*. Raises ``UNIMPLEMENTED`` on another database then.
    """
    if rows.dialect.name != "postgresql":
        if wanted:
            raise AutomateError(
                ErrorCodes.UNIMPLEMENTED, "automate_emit is a function of PostgreSQL",
                hint="on another database insert events by kernel.emit, or POST /events",
            )  # fmt: skip
        return []
    there = [str(row[0]) for row in rows.run(_FIND, (), fetch=True)]
    if not there and not wanted:
        return []
    return [] if there == [_BODY] else [emit_function_sql()]
