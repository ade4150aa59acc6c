# What the scripts for curl share.

# Posts the body on standard input. A failure is tried again every second, ten times, whatever it is.
post() {
    curl --silent --show-error --fail --output /dev/null --cacert "$BENCH_CA" --max-time 10 \
        --retry 10 --retry-delay 1 --retry-all-errors \
        --header "@$BENCH_HEADERS" --data-binary @- "$BENCH_URL/api/v1/channels/messages/receive"
}
