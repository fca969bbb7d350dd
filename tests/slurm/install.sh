#!/usr/bin/env bash
# Debian's packages for a SLURM of one node, where they are not there yet.
set -euo pipefail
missing=0
for program in slurmctld slurmd slurmdbd munged mariadbd; do command -v $program >/dev/null || missing=1; done
[ $missing = 1 ] || exit 0
[ "$(id -u)" = 0 ] || { echo "SLURM is missing. As root: apt-get install slurm-wlm slurmdbd munge mariadb-server"; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# The packages' own services stay off: the tests start private ones.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get install -y -q --no-install-recommends slurm-wlm slurmdbd munge mariadb-server
