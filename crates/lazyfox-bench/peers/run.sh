#!/usr/bin/env bash
# Measures all peers in turn, each in a fresh database, and prints one line of JSON for each run.
#   run.sh DATABASE_ADMIN_URL DIR
# DATABASE_ADMIN_URL may create databases; DIR keeps the packages, which are installed if they are not there.
# ROUNDS, SECONDS_EACH, CALLERS and JOBS change how much is measured.
set -euo pipefail

admin=${1:?"usage: run.sh DATABASE_ADMIN_URL DIR"}
dir=${2:?"usage: run.sh DATABASE_ADMIN_URL DIR"}
here=$(cd "$(dirname "$0")" && pwd)
database=lazyfox_bench_peer

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

install_packages() {
  cp "$here/package.json" "$here/package-lock.json" "$here/requirements.txt" "$dir"
  (cd "$dir" && npm ci --no-audit --no-fund)
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install --quiet --requirement "$dir/requirements.txt"
}

# The address of the same server with another database.
address() {
  node -e 'const url = new URL(process.argv[1]); url.pathname = process.argv[2]; console.log(url.href)' \
    "$admin" "$1"
}

fresh_database() {
  psql --quiet --dbname "$admin" --command "drop database if exists $database" 2>/dev/null
  psql --quiet --dbname "$admin" --command "create database $database"
}

# run_peer SCRIPT MODE
run_peer() {
  local program=(node "$here/$1" --packages "$dir")
  [[ $1 == *.py ]] && program=("$dir/venv/bin/python" "$here/$1")
  fresh_database
  "${program[@]}" --database-url "$(address "$database")" --mode "$2" \
    --seconds "${SECONDS_EACH:-10}" --callers "${CALLERS:-64}" --jobs "${JOBS:-20000}"
}

install_packages >&2
for ((round = 1; round <= ${ROUNDS:-3}; round++)); do
  for mode in callers bulk; do
    for script in graphile-worker.mjs pg-boss.mjs procrastinate_peer.py; do
      run_peer "$script" "$mode"
    done
  done
done
psql --quiet --dbname "$admin" --command "drop database if exists $database"
