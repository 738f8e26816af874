#!/usr/bin/env bash
# Draws the dashboards with the last minutes of the cluster that make up started: pictures.sh MINUTES
# FOLDER NAMESPACE POLICY. The ScaledJob is called like the policy. The first time it installs
# Grafana's components, which takes a minute or more and 460 MB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../.. && pwd)
prometheus=$(cd "$root" && go run ./e2e/cmd/ebbtide-e2e status -o json | node -p 'JSON.parse(fs.readFileSync(0)).prometheus')
[ -d node_modules ] || npm install --legacy-peer-deps --no-audit --no-fund
to=$(date +%s)
node pictures.mjs "$prometheus" $((to - 60 * $1)) "$to" "$(cd "$root" && realpath "$2")" "$root"/charts/ebbtide/files/dashboards/*.json \
  -- namespace="$3" policy="$4" scaledjob="$4" objective=10 price=0.04 cluster='.*'
