#!/bin/bash
# What tests/systemd-boot.sh runs inside the booted system. Prints a line per check and DONE at the end.
set -uo pipefail
cd /

token=token-5f2c6d0e
secret=secret-91b7aa34
number=+31612345678
words="meet me behind the shed"

failed=0
pass() { echo "ok: $*"; }
fail() {
    echo "FAIL: $1"
    shift
    [ $# -eq 0 ] || printf '%s\n' "$*" | sed 's/^/    /' | tail -n 40
    failed=$((failed + 1))
}
# check WHAT COMMAND...: passes when the command succeeds.
check() {
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then pass "$what"; else fail "$what" "$said"; fi
}
# equal WHAT GOT WANTED
equal() {
    if [ "$2" = "$3" ]; then pass "$1: $2"; else fail "$1: $2 instead of $3"; fi
}
# eventually SECONDS COMMAND...: tries until it succeeds.
eventually() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}
property() { systemctl show -P "$1" pipepost.service; }
said() { journalctl --sync && journalctl -u pipepost.service -o cat --no-pager | grep -qF -- "$1"; }
log() { journalctl -u pipepost.service --no-pager -n 30; }
is() { [ "$(property "$1")" = "$2" ]; }
stored() { pipepost queue | grep -qF "$words"; }
restarted() { is NRestarts "$1" && is ActiveState active && is SubState running; }

# What the package's installation does.
check "the user is made" systemd-sysusers pipepost.conf
check "the folder of the credentials is made" systemd-tmpfiles --create pipepost.conf
equal "the folder of the credentials" "$(stat -c '%a %U' /etc/pipepost/credentials)" "700 root"

# Empty credentials mean "not configured yet": the service starts all the same.
cat >/etc/pipepost/pipepost.toml <<'TOML'
[gateway]
id = "boot-test"
[pipedrive]
client_id = "0123456789abcdef"
public_url = "https://gateway.example.com"
[[broker]]
name = "site"
url = "mqtt://localhost"
[[device]]
name = "sms-stick"
preset = "sms2mqtt"
[[channel]]
id = "sms"
name = "SMS"
kind = "mqtt"
device = "sms-stick"
TOML
mkdir -p /etc/systemd/system/pipepost.service.d
printf '[Service]\nWatchdogSec=3\nRestartSec=500ms\n' >/etc/systemd/system/pipepost.service.d/quick.conf
systemctl daemon-reload
check "it starts with empty credentials" systemctl start pipepost
check "and says what is missing" eventually 5 said "client id and secret"
check "it stops" systemctl stop pipepost

# The start.
printf '%s\n' "$token" >/etc/pipepost/credentials/access-token
printf '%s\n' "$secret" >/etc/pipepost/credentials/client-secret
check "mosquitto starts with the shipped settings" systemctl start mosquitto
check "systemctl start returns when it is ready" systemctl start pipepost
equal "state after the start" "$(property ActiveState) $(property SubState)" "active running"
check "the status line is the gateway's own" eventually 5 bash -c \
    'text=$(systemctl show -P StatusText pipepost); [ -n "$text" ] && [[ "$text" != waiting\ for\ a* ]]'
echo "    Status: $(property StatusText)"
equal "the state folder" "$(stat -c '%a %U %G' /var/lib/pipepost)" "700 pipepost pipepost"
equal "the user" "$(stat -c %U "/proc/$(property MainPID)")" pipepost

# The commands.
check "root's pipepost status reaches it" bash -c 'pipepost status | grep -q "gateway boot-test · up"'
refused=$(setpriv --reuid=nobody --clear-groups pipepost status 2>&1)
equal "another user's pipepost status ends with" "$?" 77
check "and says what to do" grep -q sudo <<<"$refused"
check "a check by hand sees the credentials as well" bash -c 'pipepost check 2>&1 | grep -q usable && ! pipepost check 2>&1 | grep warning'
check "the credentials were read" bash -c 'pipepost --json status | grep -q "\"credentials\": true"'

# A message is stored.
check "the broker is reached" eventually 10 bash -c 'pipepost status | grep -q "broker site connected"'
mosquitto_pub -q 1 -t sms2mqtt/received \
    -m "{\"datetime\":\"2026-11-20 10:00:00\",\"number\":\"$number\",\"text\":\"$words\"}"
check "a message is stored" eventually 5 stored

# A crash.
systemctl kill --signal=KILL --kill-whom=main pipepost
check "after SIGKILL systemd starts it again" eventually 10 restarted 1 || log
check "with the message" eventually 5 stored

# A hang.
systemctl kill --signal=STOP --kill-whom=main pipepost
check "a hang is ended by the watchdog and systemd starts it again" eventually 15 restarted 2 || log
check "by SIGABRT" said "Main process exited, code=killed, status=6/ABRT"
check "with the message" eventually 5 stored
sleep 7
equal "a healthy one is left alone for two intervals, restarts" "$(property NRestarts)" 2

# A reload.
before=$(property MainPID)
check "a reload succeeds" systemctl reload pipepost
check "and is done" eventually 5 said "Certificates read again"
equal "state after the reload" "$(property ActiveState) $(property MainPID)" "active $before"

# The journal.
journalctl --sync
fields=$(journalctl -u pipepost.service GATEWAY=boot-test -o json --no-pager | tail -n 1)
check "a field finds its entry: GATEWAY" grep -q '"MESSAGE":"Store open gateway=boot-test ' <<<"$fields"
fields=$(journalctl -u pipepost.service CHANNEL=sms -o json --no-pager)
check "a field finds its entry: CHANNEL" grep -q '"MESSAGE":"Stored incoming message ' <<<"$fields"
check "with a priority" grep -q '"PRIORITY":"5"' <<<"$fields"
check "and the message's id" grep -q '"MESSAGE_ID":' <<<"$fields"
for text in "$token" "$secret" "${number#+}" "$words"; do
    if journalctl -u pipepost.service -o export --no-pager | grep -aqF -- "$text"; then
        fail "\"$text\" is in the journal"
    else
        pass "\"$text\" is not in the journal"
    fi
done

# The stop.
begun=$SECONDS
check "it stops" systemctl stop pipepost
[ $((SECONDS - begun)) -le 12 ] || fail "the stop took $((SECONDS - begun)) s"
equal "result, exit code and state" "$(property Result) $(property ExecMainStatus) $(property ActiveState)" \
    "success 0 inactive"
check "status without it reads the store" bash -c 'pipepost status | grep -q "NOT RUNNING"'
equal "files in the state folder that root made" "$(find /var/lib/pipepost ! -user pipepost | wc -l)" 0
find /var/lib/pipepost ! -user pipepost -ls
refused=$(setpriv --reuid=nobody --clear-groups pipepost status 2>&1)
equal "another user's pipepost status then ends with" "$?" 77

# A wrong configuration.
mkdir -p /etc/pipepost/conf.d
printf '[listener]\nmax_conections = 3\n' >/etc/pipepost/conf.d/50-typo.toml
if systemctl start pipepost 2>/dev/null; then fail "it starts with a wrong configuration" "$(log)"; fi
# Long enough for three restarts.
sleep 2
equal "exit code, state and restarts" "$(property ExecMainStatus) $(property ActiveState) $(property NRestarts)" \
    "78 failed 0"
check "the journal says what is wrong" bash -c \
    'journalctl -u pipepost.service -p err -o cat --no-pager | grep -F "unknown key \"max_conections\""'
check "and what to do" bash -c \
    'journalctl -u pipepost.service -p err -o cat --no-pager | grep -F "did you mean \"max_connections\""'
rm /etc/pipepost/conf.d/50-typo.toml
check "mended, it starts" systemctl start pipepost
check "with the message" eventually 5 stored
check "it stops" systemctl stop pipepost

[ "$failed" -eq 0 ] || log
echo "$failed checks failed"
echo DONE
