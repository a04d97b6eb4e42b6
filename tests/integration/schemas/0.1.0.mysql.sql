CREATE TABLE automate_outbox (
  id CHAR(32) NOT NULL,
  kind VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  payload JSON NOT NULL,
  headers JSON NOT NULL,
  status VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  waiting_for VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  priority INTEGER NOT NULL,
  attempt_count INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  next_attempt_at DATETIME(6) NOT NULL,
  sort_at DATETIME(6) NOT NULL,
  lease_owner VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  lease_token CHAR(32),
  lease_expires_at DATETIME(6),
  idempotency_key VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  tenant_id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  ordering_key VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  last_error_code VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  last_error LONGTEXT,
  created_at DATETIME(6) NOT NULL,
  updated_at DATETIME(6) NOT NULL,
  completed_at DATETIME(6),
  concurrency_key VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  concurrency_limit INTEGER,
  PRIMARY KEY (id)
);
CREATE INDEX automate_outbox_failed ON automate_outbox (id);
CREATE INDEX automate_outbox_shared ON automate_outbox (kind, tenant_id, sort_at, id);
CREATE INDEX automate_outbox_ready ON automate_outbox (kind, sort_at, id);
CREATE INDEX automate_outbox_later ON automate_outbox (next_attempt_at);
CREATE INDEX automate_outbox_ordering ON automate_outbox (ordering_key, id);
CREATE INDEX automate_outbox_lease ON automate_outbox (lease_expires_at);
CREATE INDEX automate_outbox_cancel ON automate_outbox (id);
CREATE UNIQUE INDEX automate_outbox_idempotency ON automate_outbox (idempotency_key);
CREATE INDEX automate_outbox_concurrency ON automate_outbox (concurrency_key, kind, id);
CREATE TABLE automate_outbox_lane (
  ordering_key VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  item_id CHAR(32) NOT NULL,
  lease_token CHAR(32) NOT NULL,
  PRIMARY KEY (ordering_key)
);
CREATE INDEX automate_outbox_lane_item ON automate_outbox_lane (item_id);
CREATE TABLE automate_outbox_slot (
  id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  concurrency_key VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  item_id CHAR(32) NOT NULL,
  lease_token CHAR(32) NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX automate_outbox_slot_item ON automate_outbox_slot (item_id);
CREATE INDEX automate_outbox_slot_key ON automate_outbox_slot (concurrency_key);
CREATE TABLE automate_outbox_pause (
  kind VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  reason LONGTEXT,
  created_at DATETIME(6) NOT NULL,
  PRIMARY KEY (kind)
);
CREATE TABLE automate_outbox_limit (
  kind VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  concurrency INTEGER,
  rate INTEGER,
  per_milliseconds INTEGER NOT NULL,
  burst INTEGER,
  declared INTEGER NOT NULL,
  full_at DATETIME(6) NOT NULL,
  updated_at DATETIME(6) NOT NULL,
  PRIMARY KEY (kind)
);
CREATE TABLE automate_definition (
  id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  body JSON NOT NULL,
  created_at DATETIME(6) NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE automate_execution (
  id CHAR(32) NOT NULL,
  workflow VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  definition_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  status VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  event JSON NOT NULL,
  output JSON,
  tenant_id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  item_id CHAR(32) NOT NULL,
  error_code VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  error LONGTEXT,
  created_at DATETIME(6) NOT NULL,
  updated_at DATETIME(6) NOT NULL,
  completed_at DATETIME(6),
  PRIMARY KEY (id)
);
CREATE INDEX automate_execution_recent ON automate_execution (created_at);
CREATE INDEX automate_execution_status ON automate_execution (status, created_at);
CREATE INDEX automate_execution_tenant ON automate_execution (tenant_id, created_at);
CREATE INDEX automate_execution_workflow ON automate_execution (workflow, created_at);
CREATE TABLE automate_step (
  id CHAR(32) NOT NULL,
  execution_id CHAR(32) NOT NULL,
  step_id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  position INTEGER NOT NULL,
  status VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  attempts INTEGER NOT NULL,
  output JSON,
  error_code VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  error LONGTEXT,
  trace LONGTEXT,
  started_at DATETIME(6),
  next_attempt_at DATETIME(6),
  completed_at DATETIME(6),
  PRIMARY KEY (id)
);
CREATE UNIQUE INDEX automate_step_once ON automate_step (execution_id, step_id, position);
CREATE TABLE automate_webhook_delivery (
  id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  connector VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  trigger_name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  item_id CHAR(32) NOT NULL,
  received_at DATETIME(6) NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX automate_delivery_received ON automate_webhook_delivery (received_at);
CREATE TABLE automate_schedule (
  id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  last_fired_at DATETIME(6) NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE automate_worker (
  id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  host VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  pid INTEGER NOT NULL,
  started_at DATETIME(6) NOT NULL,
  seen_at DATETIME(6) NOT NULL,
  kinds JSON NOT NULL,
  slots INTEGER NOT NULL,
  in_flight INTEGER NOT NULL,
  stopping INTEGER NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE automate_activity (
  id CHAR(32) NOT NULL,
  at DATETIME(6) NOT NULL,
  worker_id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  kind VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  completed INTEGER NOT NULL,
  retried INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  lost INTEGER NOT NULL,
  run_times JSON NOT NULL,
  wait_times JSON NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX automate_activity_at ON automate_activity (at);
