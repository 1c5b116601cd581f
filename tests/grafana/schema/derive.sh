#!/usr/bin/env bash
# Derives dashboard.schema.json from the types that Grafana publishes on npm. Needed again only when
# entry.ts or Grafana's version changes: tests use the committed result and need no npm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/entry.ts" "$work"
cd "$work"
npm init -y >/dev/null
npm install --silent --ignore-scripts \
    @grafana/schema@11.6.0 ts-json-schema-generator@2.4.0 typescript@5.9.3
cat >tsconfig.json <<'JSON'
{"compilerOptions": {"strict": true, "moduleResolution": "node", "skipLibCheck": true,
                     "module": "esnext", "target": "es2020"}, "files": ["entry.ts"]}
JSON
# Types of one name in several files: so none is exposed. Documentation is dropped for size.
npx ts-json-schema-generator --path entry.ts --type Dashboard --tsconfig tsconfig.json \
    --no-type-check --expose none --no-top-ref --jsDoc none --minify \
    -o "$here/dashboard.schema.json"
