CREATE TABLE automate_outbox (
  id CHAR(32) NOT NULL,
  kind VARCHAR(200) NOT NULL,
  payload JSON NOT NULL,
  headers JSON NOT NULL,
  status VARCHAR(16) NOT NULL,
  waiting_for VARCHAR(8),
  priority INTEGER NOT NULL,
  attempt_count INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  next_attempt_at DATETIME NOT NULL,
  sort_at DATETIME NOT NULL,
  lease_owner VARCHAR(200),
  lease_token CHAR(32),
  lease_expires_at DATETIME,
  idempotency_key VARCHAR(255),
  tenant_id VARCHAR(200),
  ordering_key VARCHAR(200),
  last_error_code VARCHAR(64),
  last_error TEXT,
  created_at DATETIME NOT NULL,
  updated_at DATETIME NOT NULL,
  completed_at DATETIME,
  concurrency_key VARCHAR(200),
  concurrency_limit INTEGER,
  PRIMARY KEY (id)
);
CREATE INDEX automate_outbox_failed ON automate_outbox (id) WHERE status = 'FAILED';
CREATE INDEX automate_outbox_shared ON automate_outbox (kind, tenant_id, sort_at, id) WHERE tenant_id IS NOT NULL AND waiting_for = 'worker';
CREATE INDEX automate_outbox_ready ON automate_outbox (kind, sort_at, id) WHERE tenant_id IS NULL AND waiting_for = 'worker';
CREATE INDEX automate_outbox_later ON automate_outbox (next_attempt_at) WHERE waiting_for = 'time';
CREATE INDEX automate_outbox_ordering ON automate_outbox (ordering_key, id) WHERE ordering_key IS NOT NULL AND waiting_for IS NOT NULL;
CREATE INDEX automate_outbox_lease ON automate_outbox (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX automate_outbox_cancel ON automate_outbox (id) WHERE waiting_for = 'cancel';
CREATE UNIQUE INDEX automate_outbox_idempotency ON automate_outbox (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX automate_outbox_concurrency ON automate_outbox (concurrency_key, kind, id) WHERE concurrency_key IS NOT NULL AND waiting_for = 'key';
CREATE TABLE automate_outbox_lane (
  ordering_key VARCHAR(200) NOT NULL,
  item_id CHAR(32) NOT NULL,
  lease_token CHAR(32) NOT NULL,
  PRIMARY KEY (ordering_key)
);
CREATE INDEX automate_outbox_lane_item ON automate_outbox_lane (item_id);
CREATE TABLE automate_outbox_slot (
  id VARCHAR(255) NOT NULL,
  concurrency_key VARCHAR(200) NOT NULL,
  item_id CHAR(32) NOT NULL,
  lease_token CHAR(32) NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX automate_outbox_slot_item ON automate_outbox_slot (item_id);
CREATE INDEX automate_outbox_slot_key ON automate_outbox_slot (concurrency_key);
CREATE TABLE automate_outbox_pause (
  kind VARCHAR(200) NOT NULL,
  reason TEXT,
  created_at DATETIME NOT NULL,
  PRIMARY KEY (kind)
);
CREATE TABLE automate_outbox_limit (
  kind VARCHAR(200) NOT NULL,
  concurrency INTEGER,
  rate INTEGER,
  per_milliseconds INTEGER NOT NULL,
  burst INTEGER,
  declared INTEGER NOT NULL,
  full_at DATETIME NOT NULL,
  updated_at DATETIME NOT NULL,
  PRIMARY KEY (kind)
);
CREATE TABLE automate_definition (
  id VARCHAR(64) NOT NULL,
  name VARCHAR(200) NOT NULL,
  body JSON NOT NULL,
  created_at DATETIME NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE automate_execution (
  id CHAR(32) NOT NULL,
  workflow VARCHAR(200) NOT NULL,
  definition_id VARCHAR(64) NOT NULL,
  status VARCHAR(16) NOT NULL,
  event JSON NOT NULL,
  output JSON,
  tenant_id VARCHAR(200),
  item_id CHAR(32) NOT NULL,
  error_code VARCHAR(64),
  error TEXT,
  created_at DATETIME NOT NULL,
  updated_at DATETIME NOT NULL,
  completed_at DATETIME,
  PRIMARY KEY (id)
);
CREATE INDEX automate_execution_recent ON automate_execution (created_at);
CREATE INDEX automate_execution_status ON automate_execution (status, created_at);
CREATE INDEX automate_execution_tenant ON automate_execution (tenant_id, created_at) WHERE tenant_id IS NOT NULL;
CREATE INDEX automate_execution_workflow ON automate_execution (workflow, created_at);
CREATE TABLE automate_step (
  id CHAR(32) NOT NULL,
  execution_id CHAR(32) NOT NULL,
  step_id VARCHAR(200) NOT NULL,
  position INTEGER NOT NULL,
  status VARCHAR(16) NOT NULL,
  attempts INTEGER NOT NULL,
  output JSON,
  error_code VARCHAR(64),
  error TEXT,
  trace TEXT,
  started_at DATETIME,
  next_attempt_at DATETIME,
  completed_at DATETIME,
  PRIMARY KEY (id)
);
CREATE UNIQUE INDEX automate_step_once ON automate_step (execution_id, step_id, position);
CREATE TABLE automate_webhook_delivery (
  id VARCHAR(64) NOT NULL,
  connector VARCHAR(200) NOT NULL,
  trigger_name VARCHAR(200) NOT NULL,
  item_id CHAR(32) NOT NULL,
  received_at DATETIME NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX automate_delivery_received ON automate_webhook_delivery (received_at);
CREATE TABLE automate_schedule (
  id VARCHAR(255) NOT NULL,
  last_fired_at DATETIME NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE automate_worker (
  id VARCHAR(200) NOT NULL,
  host VARCHAR(200) NOT NULL,
  pid INTEGER NOT NULL,
  started_at DATETIME NOT NULL,
  seen_at DATETIME NOT NULL,
  kinds JSON NOT NULL,
  slots INTEGER NOT NULL,
  in_flight INTEGER NOT NULL,
  stopping INTEGER NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE automate_activity (
  id CHAR(32) NOT NULL,
  at DATETIME NOT NULL,
  worker_id VARCHAR(200) NOT NULL,
  kind VARCHAR(200) NOT NULL,
  completed INTEGER NOT NULL,
  retried INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  lost INTEGER NOT NULL,
  run_times JSON NOT NULL,
  wait_times JSON NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX automate_activity_at ON automate_activity (at);
