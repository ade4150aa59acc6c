// Without editor and pages, which favours it; else as it is installed.
module.exports = {
    flowFile: process.env.BENCH_FLOW,
    credentialSecret: false,
    disableEditor: true,
    httpAdminRoot: false,
    httpNodeRoot: false,
    uiHost: "127.0.0.1",
    uiPort: Number(process.env.BENCH_UI_PORT),
    logging: { console: { level: "warn", metrics: false, audit: false } },
    telemetry: { enabled: false, updateNotification: false },
    functionGlobalContext: { known: require(process.env.BENCH_KNOWN) },
};
