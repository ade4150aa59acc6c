"use strict";

// The app's life: the offer to connect, who has installed it, and the switches of the OAuth server. It uses what
// inbox.js defines; text is shown through textContent only.

const RULES = [
  ["access_seconds", "Life of access tokens", [[2, "2 s"], [10, "10 s"], [60, "1 min"], [3600, "1 h"]]],
  ["rotate", "Refresh tokens change", "switch"],
  ["keep_channels", "Channels stay after uninstalling", "switch"],
];

let countdown = 0;

// `oauth` is null where the sandbox has a fixed token.
window.showApp = async (oauth) => {
  $("tab-app").hidden = !oauth;
  if (!oauth) return;
  showOffer(oauth);
  const app = await ask("GET", "oauth");
  showUsers(app);
  paintRules(app.rules);
  const query = new URLSearchParams({ client_id: app.client_id, redirect_uri: app.redirect_uri || "" });
  $("marketplace").href = "/oauth/authorize?" + query;
};

function showOffer({ app, offer }) {
  clearTimeout(countdown);
  $("offer").hidden = !offer;
  if (!offer) return;
  $("offer-open").href = offer.path;
  const left = offer.by_itself_at === null ? null : Math.max(0, Math.ceil((offer.by_itself_at - Date.now()) / 1000));
  const words = app + " asks to be connected to this inbox.";
  const text = left === null ? words : words + " It goes on by itself in " + left + " s.";
  if ($("offer-words").textContent !== text) $("offer-words").textContent = text;
  if (left) countdown = setTimeout(() => showOffer({ app, offer }), 250);
}

function showUsers(app) {
  const focused = $("users").contains(document.activeElement) ? document.activeElement.dataset.key : null;
  $("users").replaceChildren(...app.users.map((user) => userElement(user, app.installations)));
  const again = focused && $("users").querySelector("[data-key=\"" + focused + "\"]");
  if (again) again.focus();
}

function userElement(user, installations) {
  const item = make("li");
  const installation = installations.find((i) => i.company === user.company && i.user === user.id);
  const who = make("p", "who-line");
  who.append(make("strong", "", user.name), make("span", "soft", " · " + user.company_name));
  const state = installation
    ? "installed, " + installation.refreshes + (installation.refreshes === 1 ? " refresh" : " refreshes")
    : "not installed";
  const label = make("label", "admin");
  const admin = make("input");
  admin.type = "checkbox";
  admin.checked = user.admin;
  admin.dataset.key = "admin-" + user.id;
  admin.addEventListener("change", () => act("oauth/admin", { user: user.id, admin: admin.checked }));
  label.append(admin, make("span", "", "admin"));
  item.append(who, label, make("p", installation ? "state on" : "state", state));
  if (installation) {
    const buttons = make("p", "acts");
    const button = (key, words, path, body) => {
      const element = make("button", "quiet", words);
      element.type = "button";
      element.dataset.key = key + "-" + user.id;
      element.addEventListener("click", () => act(path, body));
      buttons.append(element);
    };
    button("leave", "Uninstall", "oauth/uninstall", { user: user.id });
    button("share", "Share", "oauth/share", { user: user.id, shared: true });
    button("unshare", "Stop sharing", "oauth/share", { user: user.id, shared: false });
    item.append(buttons);
  }
  return item;
}

function makeRules() {
  for (const [name, words, kind] of RULES) {
    const label = make("label");
    label.append(make("span", "", words));
    const input = make(kind === "switch" ? "input" : "select");
    if (kind === "switch") {
      input.type = "checkbox";
    } else {
      for (const [value, text] of kind) addOption(input, value, text);
    }
    input.name = name;
    input.addEventListener("change", () => {
      act("oauth", { [name]: kind === "switch" ? input.checked : Number(input.value) });
    });
    label.append(input);
    $("rules").append(label);
  }
}

function addOption(select, value, text) {
  const option = make("option", "", text);
  option.value = value;
  select.append(option);
}

function paintRules(rules) {
  for (const [name, , kind] of RULES) {
    const input = $("rules").elements[name];
    if (kind === "switch") {
      input.checked = rules[name];
      continue;
    }
    const text = String(rules[name]);
    if (![...input.options].some((option) => option.value === text)) addOption(input, text, text + " s");
    if (document.activeElement !== input) input.value = text;
  }
}

async function act(path, body) {
  let problem = "";
  try {
    const answer = await ask("POST", path, body);
    if (answer.status >= 300) problem = "The gateway answered with " + answer.status + ".";
  } catch (error) {
    problem = error.message;
  }
  $("app-problem").textContent = problem;
  $("app-problem").hidden = !problem;
  refresh();
}

$("end-access").addEventListener("click", () => act("oauth/end-access", {}));
$("end-refresh").addEventListener("click", () => act("oauth/end-refresh", {}));
makeRules();
