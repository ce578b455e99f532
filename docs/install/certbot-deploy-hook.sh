#!/bin/sh
# Copies a renewed certificate to where vmess-server can read it, which reloads
# it automatically. Install it, executable, in /etc/letsencrypt/renewal-hooks/deploy.
set -e
to=/etc/vmess-server/tls
install -d -o root -g vmess-server -m 750 "$to"
install -o vmess-server -g vmess-server -m 400 "$RENEWED_LINEAGE/privkey.pem" "$to/privkey.pem"
install -o vmess-server -g vmess-server -m 444 "$RENEWED_LINEAGE/fullchain.pem" "$to/fullchain.pem"
