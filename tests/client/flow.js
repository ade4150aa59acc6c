// What an app built on Pipedrive's own client does, from the installation to the end, against the sandbox.
//
// Usage: node flow.js SANDBOX

"use strict";

const assert = require("node:assert/strict");
const http = require("node:http");
const { v1 } = require("pipedrive");

const sandbox = process.argv[2];
const CHANNEL = "node-office";
const ADA = "11";
const RAVI = "12";
const started = Date.now();
const say = (what) => console.log(`ok ${((Date.now() - started) / 1000).toFixed(1)} s  ${what}`);

const conversation = (id) => ({
  id,
  link: "",
  status: "open",
  seen: false,
  next_messages_cursor: "",
  messages: [],
  participants: [
    { id: "office", name: "Office", role: "source_user" },
    { id: "customer", name: "+44 7700 900142", role: "end_user" },
  ],
});

// The app: its callback URL and its manifest endpoints.
const seen = [];
const app = http.createServer((request, response) => {
  seen.push(`${request.method} ${request.url}`);
  const answer = (type, body) => {
    response.writeHead(200, { "content-type": type });
    response.end(body);
  };
  const path = request.url.split("?")[0];
  const one = path.match(/^\/api\/channels\/[^/]+\/conversations\/([^/]+)$/);
  if (path === "/oauth/callback") {
    answer("text/html", "<p>Connected</p>");
  } else if (one) {
    answer("application/json", JSON.stringify({ success: true, data: conversation(one[1]), additional_data: { after: "" } }));
  } else {
    answer("application/json", JSON.stringify({ success: true, data: [], additional_data: { after: "" } }));
  }
});

async function switches(path, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(`${sandbox}/sandbox/${path}`, options);
  assert.equal(response.status, 200, `${path}: ${response.status}`);
  return response.json();
}

// A user's browser: the authorize page, its form, and the way back to the app. Gives the code.
async function allow(oauth2, user) {
  const page = await fetch(oauth2.authorizationUrl);
  const html = await page.text();
  assert.equal(page.status, 200, html);
  const form = new URLSearchParams({ user, decision: "allow" });
  for (const [, name, value] of html.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)">/g)) {
    form.set(name, value);
  }
  const decided = await fetch(new URL("/oauth/authorize", sandbox), { method: "POST", body: form, redirect: "manual" });
  assert.equal(decided.status, 302);
  const location = decided.headers.get("location");
  assert.ok(location.startsWith(oauth2.redirectUri), location);
  assert.equal((await fetch(location)).status, 200);
  return new URL(location).searchParams.get("code");
}

async function refused(work, what) {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new assert.AssertionError({ message: `${what} was not refused` });
}

async function main() {
  await new Promise((resolve) => app.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${app.address().port}`;
  await switches("gateway", { url });
  await switches("oauth", { access_seconds: 2 });
  const installation = () =>
    new v1.OAuth2Configuration({
      clientId: "sandbox-client",
      clientSecret: "sandbox-secret",
      redirectUri: `${url}/oauth/callback`,
      host: sandbox,
    });
  const oauth2 = installation();

  const wrong = await refused(oauth2.authorize("made-up"), "a made-up code");
  assert.equal(wrong.message, "Invalid grant: authorization_code is invalid");
  const code = await allow(oauth2, ADA);
  const token = await oauth2.authorize(code);
  assert.ok(token.access_token.length > 768);
  assert.equal(oauth2.basePath, `${sandbox}/api/v1`);
  assert.ok((await refused(installation().authorize(code), "a used code")).message.includes("Invalid grant"));
  say("authorization URL, permission, exchange of the code");

  const configuration = new v1.Configuration({ accessToken: oauth2.getAccessToken, basePath: oauth2.basePath });
  const me = (await new v1.UsersApi(configuration).getCurrentUser()).data;
  assert.equal(me.company_name, "Acme Heating");
  const channels = new v1.ChannelsApi(configuration);
  const channel = (await channels.addChannel({ AddChannelRequest: { name: "Office", provider_channel_id: CHANNEL } })).data;
  assert.equal(channel.provider_channel_id, CHANNEL);
  assert.equal(channel.pd_company_id, me.company_id);
  const message = (id) => ({
    ReceiveMessageRequest: {
      id,
      channel_id: CHANNEL,
      sender_id: "customer",
      conversation_id: "c1",
      message: `text of ${id}`,
      status: "sent",
      created_at: "2026-03-01T09:30:00.250Z",
      attachments: [],
    },
  });
  assert.equal((await channels.receiveMessage(message("m1"))).data.id, "m1");
  assert.ok(seen.some((line) => line.startsWith(`GET /api/channels/${CHANNEL}/conversations/c1?`)), seen.join("\n"));
  say("channel added, message received after the conversation was asked for");

  const before = oauth2.refreshToken;
  while (!oauth2.shouldRefreshToken()) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal((await channels.receiveMessage(message("m2"))).data.id, "m2");
  assert.notEqual(oauth2.refreshToken, before, "the refresh token was rotated");
  say("expired token refreshed, next message received");

  const second = installation();
  await second.authorize(await allow(second, RAVI));
  const colleague = new v1.ChannelsApi(
    new v1.Configuration({ accessToken: second.getAccessToken, basePath: second.basePath }),
  );
  // The client gives the body of a refusal, without its status.
  const reason = async (work, what) => (await refused(work, what)).additional_data?.code;
  const mine = { AddChannelRequest: { name: "Mine", provider_channel_id: "node-mine" } };
  assert.equal(await reason(colleague.addChannel(mine), "a channel by no admin"), "ADMIN_ONLY");
  assert.equal(
    await reason(colleague.deleteChannel({ id: CHANNEL }), "a colleague's channel"),
    "FORBIDDEN_USER_REQUEST",
  );
  say("a colleague without admin rights is refused");

  assert.equal((await channels.deleteConversation({ channel_id: CHANNEL, conversation_id: "c1" })).success, true);
  assert.equal((await channels.deleteChannel({ id: CHANNEL })).success, true);
  const left = await switches("state");
  assert.deepEqual(left.channels, []);
  say("conversation and channel deleted");

  await oauth2.revokeToken("refresh_token");
  const late = await refused(channels.receiveMessage(message("m3")), "a revoked installation");
  assert.equal(late.errorCode, 401);
  const { violations } = await switches("violations");
  assert.deepEqual(violations, []);
  say("revoked; no violation of the contract");
  app.close();
  app.closeAllConnections();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
