#!/bin/bash
# Programs for modems that we did not write use the simulated one, unmodified: gammu, smstools and ModemManager. That
# keeps the simulator honest. The other way round the gateway's driver works on modems that we did not write: the fake ones
# of python-gsmmodem-new 0.13.0, from PyPI. ofono's phone simulator (ofono-phonesim) is the better known one and can be had
# from neither Debian 12 nor PyPI; no other package of theirs that simulates a modem with messages was found.
#
# `PIPEPOST=target/debug/pipepost` takes a program that is built already. Prints SKIP with the reason and ends with 77
# where a tool is missing.
. "$(dirname "$0")/support/script.sh"

need gammu smsd ModemManager mmcli dbus-daemon dbus-send

if [ -z "${PIPEPOST:-}" ]; then
    cargo build --locked --quiet
    PIPEPOST=target/debug/pipepost
fi
PIPEPOST=$(realpath "$PIPEPOST")

folder=$(mktemp -d)
started=()
stop() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${started[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    started=()
}
trap 'stop; rm -rf "$folder"' EXIT

fail() {
    local log
    for log in "$folder"/*.log; do
        echo "--- ${log##*/}"
        tail -n 30 "$log"
    done
    echo "FAIL: $*"
    exit 1
}

# Waits until a command succeeds, at most 30 seconds.
until_true() {
    local what=$1
    shift
    local end=$((SECONDS + 30))
    while [ "$SECONDS" -lt "$end" ]; do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
    done
    fail "$what"
}

# Whether a file says this.
says() {
    grep -qF -- "$1" "$2"
}

# want WHAT TEXT WORDS: the text has the words.
want() {
    case "$2" in
        *"$3"*) ;;
        *) fail "$1 does not say \"$3\" but: $2" ;;
    esac
}

# Starts a modem; what is written to descriptor 3 are its commands, its words are in modem.log.
modem() {
    rm -f "$folder/in" "$folder/modem.log"
    mkfifo "$folder/in"
    "$PIPEPOST" sim modem --send-time 50 --report-after 200 "$@" <"$folder/in" >"$folder/modem.log" 2>&1 &
    started+=($!)
    exec 3>"$folder/in"
    until_true "the modem does not start" says "modem at" "$folder/modem.log"
}

gammu_reads_and_sends() {
    modem --profile "$1" --link "$folder/tty" --do "text +4915550001 Hello from the street"
    cat >"$folder/gammurc" <<END
[gammu]
device = $folder/tty
connection = at115200
model = at
logfile = $folder/gammu.log
logformat = textalldate
END
    g() { timeout 30 gammu -c "$folder/gammurc" "$@" 2>&1 || fail "gammu $*"; }
    want "gammu identify" "$(g identify)" "356938035643809"
    echo "text +4915550002 $(printf 'Ein längerer Text mit Ümläuten. %.0s' 1 2 3 4 5 6 7)" >&3
    echo "text +4915550003 Жук 🙂" >&3
    until_true "texts do not arrive" says_status "taken: 4"
    local all
    want "gammu getallsms" "$(g getallsms)" "4 SMS parts in 4 SMS sequences"
    all=$(g geteachsms)
    want "gammu geteachsms" "$all" "Hello from the street"
    want "gammu geteachsms" "$all" '"+4915550001"'
    want "gammu geteachsms" "$all" "$(printf 'Ein längerer Text mit Ümläuten. %.0s' 1 2 3 4 5 6 7 | sed 's/ $//')"
    want "gammu geteachsms" "$all" "Жук 🙂"
    want "gammu geteachsms" "$all" "4 SMS parts in 3 SMS sequences"
    g sendsms TEXT +4915550004 -report -text "Hello from gammu {€}" >"$folder/sent"
    says "sent to +4915550004 (reference 0): Hello from gammu {€}" "$folder/modem.log" || fail "gammu's text"
    g sendsms TEXT +4915550005 -unicode -len 200 -text "$(printf 'Привет от gammu. %.0s' 1 2 3 4 5 6)" >"$folder/sent"
    says "part 2 of 2" "$folder/modem.log" || fail "gammu's second part"
    g deleteallsms 1 >"$folder/sent"
    until_true "gammu deletes nothing" says_status "deleted: 4"
    want "gammu getallsms" "$(g getallsms)" "0 SMS parts"
    stop
    exec 3>&-
    echo "ok: gammu on $1 ($SECONDS s)"
}

# Whether the modem's status says this; each call asks again.
says_status() {
    echo status >&3
    says "$1" "$folder/modem.log"
}

smstools_reads_and_sends() {
    modem --profile "$1" --link "$folder/tty" --do "text +4915550001 Hello from the street"
    mkdir -p "$folder"/spool/{outgoing,checked,incoming,sent,failed,report,saved,stats}
    cat >"$folder/smsd.conf" <<END
devices = GSM1
outgoing = $folder/spool/outgoing
checked = $folder/spool/checked
incoming = $folder/spool/incoming
sent = $folder/spool/sent
failed = $folder/spool/failed
report = $folder/spool/report
saved = $folder/spool/saved
infofile = $folder/smsd.running
pidfile = $folder/smsd.pid
logfile = $folder/smsd.log
loglevel = 7
delaytime = 1
errorsleeptime = 1
blocktime = 5
[GSM1]
device = $folder/tty
init = AT+CNMI=2,1,0,2,0
incoming = yes
report = yes
check_network = 1
END
    printf 'To: 4915550006\n\nHello from smstools\n' >"$folder/spool/outgoing/one"
    smsd -c"$folder/smsd.conf" -t >"$folder/smsd.out.log" 2>&1 &
    started+=($!)
    until_true "smstools receives nothing" grep -rqF "Hello from the street" "$folder/spool/incoming"
    grep -rqx "From: 4915550001" "$folder/spool/incoming" || fail "smstools' sender"
    until_true "smstools sends nothing" test -e "$folder/spool/sent/one"
    says "sent to +4915550006 (reference 0): Hello from smstools" "$folder/modem.log" || fail "smstools' text"
    # It reads reports where it reads messages; this make has no other memory for them.
    until_true "smstools gets no report" grep -rqF "Status: 0" "$folder/spool/report"
    until_true "smstools does not delete what it has read" says_status "deleted: 2"
    stop
    exec 3>&-
    echo "ok: smstools on $1 ($SECONDS s)"
}

modem_manager_reads_and_sends() {
    local address="unix:path=$folder/bus" name="pipepost-modem-$$" text
    cat >"$folder/bus.conf" <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>$address</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
END
    dbus-daemon --config-file="$folder/bus.conf" --nofork >"$folder/bus.log" 2>&1 &
    started+=($!)
    until_true "no bus" test -S "$folder/bus"
    # ModemManager 1.20 overlooks a message that is indicated while it reads another one.
    modem --profile "$1" --text-interval 3000 --listen-abstract "abstract:$name" --do "text +4915550001 Hello from the street"
    DBUS_SESSION_BUS_ADDRESS=$address ModemManager --test-session --test-enable --test-no-udev --no-auto-scan \
        --test-no-suspend-resume --test-no-qrtr --debug >"$folder/modemmanager.log" 2>&1 &
    started+=($!)
    profile() {
        DBUS_SESSION_BUS_ADDRESS=$address dbus-send --session --print-reply \
            --dest=org.freedesktop.ModemManager1 /org/freedesktop/ModemManager1 \
            org.freedesktop.ModemManager1.Test.SetProfile string:r1 string:generic "array:string:abstract:$name"
    }
    m() { DBUS_SYSTEM_BUS_ADDRESS=$address timeout 60 mmcli "$@" 2>&1; }
    until_true "ModemManager does not start" profile
    until_true "ModemManager does not find the modem" m -m any
    want "mmcli" "$(m -m any)" "356938035643809"
    want "mmcli --enable" "$(m -m any --enable)" "successfully enabled"
    listed() { m -m any --messaging-list-sms | grep -q "/SMS/$1 "; }
    until_true "ModemManager lists nothing" listed 0
    text=$(m -s 0)
    want "mmcli -s" "$text" "text: Hello from the street"
    want "mmcli -s" "$text" "number: +4915550001"
    echo "text +4915550002 $(printf 'Ein längerer Text mit Ümläuten. %.0s' 1 2 3 4 5 6 7)" >&3
    until_true "ModemManager hears nothing of a new text" listed 1
    long_one() { m -s 1 | grep -qF "Text mit Ümläuten. Ein längerer"; }
    until_true "ModemManager does not join the parts" long_one
    text=$(printf 'Hello from ModemManager. %.0s' 1 2 3 4 5 6 7)
    want "mmcli --create" "$(m -m any --messaging-create-sms="text='$text',number='+4915550007'")" "SMS/2"
    want "mmcli --send" "$(m -s 2 --send)" "successfully sent"
    echo sent >&3
    until_true "ModemManager's text" says "to +4915550007 in 2 part(s): $text" "$folder/modem.log"
    stop
    exec 3>&-
    echo "ok: ModemManager on $1 ($SECONDS s)"
}

the_driver_on_fake_modems() {
    local place=target/modem-peers package=python-gsmmodem-new version=0.13.0
    local source=$place/$package-$version
    if ! [ -d "$source" ]; then
        rm -rf "$place"
        python3 -m venv "$place" 2>/dev/null || skip "python3 cannot make a virtual environment (python3-venv)"
        # The fake modems are in the source only, and its decoder needs pyserial.
        { timeout 300 "$place/bin/pip" install --quiet --disable-pip-version-check pyserial &&
            timeout 300 "$place/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
                --dest "$place" "$package==$version"; } >"$place.log" 2>&1 ||
            skip "$package cannot be fetched: $(tail -n 1 "$place.log")"
        tar -xzf "$place/$package-$version.tar.gz" -C "$place"
    fi
    "$place/bin/python" -W ignore tests/modem-peers/fake_modems.py "$PIPEPOST" "$source"
}

gammu_reads_and_sends sim800
smstools_reads_and_sends ec25
modem_manager_reads_and_sends generic
modem_manager_reads_and_sends huawei
the_driver_on_fake_modems
