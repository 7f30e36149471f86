#!/bin/sh
# Runs once, on an empty volume: the fleet's role owns its database and may do nothing beyond.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$(cat /run/secrets/store)" --username "$POSTGRES_USER" <<'SQL'
CREATE ROLE fleet LOGIN PASSWORD :'password';
CREATE DATABASE fleet OWNER fleet;
REVOKE CONNECT ON DATABASE fleet FROM PUBLIC;
SQL
