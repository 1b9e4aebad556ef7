// Shows the OpenAPI document of this node. Everything from it goes into the page as text.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const byId = (id) => document.getElementById(id);

function make(name, text, ...children) {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

// A schema with what it refers to in its place, as far as that is readable.
function expand(schema, all, depth) {
  if (!schema || typeof schema !== "object") return schema;
  if (Array.isArray(schema)) return schema.map((one) => expand(one, all, depth));
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return depth > 4 ? name : expand(all[name], all, depth + 1);
  }
  const entries = Object.entries(schema).map(([key, value]) => [key, expand(value, all, depth)]);
  return Object.fromEntries(entries);
}

function content(title, described, all) {
  const parts = [];
  for (const [type, media] of Object.entries((described && described.content) || {})) {
    if (type === "application/problem+json") continue;
    parts.push(make("h4", `${title}: ${type}`));
    parts.push(make("pre", JSON.stringify(expand(media.schema, all, 0), null, 2)));
  }
  return parts;
}

function table(heads, rows) {
  const cells = (kind, row) => make("tr", "", ...row.map((text) => make(kind, text)));
  return make("table", "", cells("th", heads), ...rows.map((row) => cells("td", row)));
}

function operation(path, method, one, all) {
  const line = make("summary", "");
  const name = make("span", method.toUpperCase());
  name.className = "method";
  const role = make("span", one["x-role"] || "open to all");
  role.className = "role";
  line.append(role, name, make("code", path), make("span", ` ${one.summary || ""}`));
  const shown = make("details", "", line);
  if (one.description) shown.append(make("p", one.description));
  const facts = `Action ${one["x-action"]}${one["x-audited"] ? ", in the audit log" : ""}.`;
  shown.append(make("p", facts));
  const parameters = (one.parameters || []).map((p) => [p.name, p.in, p.description || ""]);
  if (parameters.length) shown.append(table(["Parameter", "In", "Meaning"], parameters));
  shown.append(...content("Body", one.requestBody, all));
  const responses = Object.entries(one.responses || {});
  shown.append(table(["Status", "Meaning"], responses.map(([s, r]) => [s, r.description])));
  for (const [status, response] of responses) shown.append(...content(status, response, all));
  shown.dataset.text = `${method} ${path} ${one.summary} ${one["x-action"]}`.toLowerCase();
  return shown;
}

function show(api) {
  byId("about").textContent = `Version ${api.info.version}. ${api.info.description}`;
  byId("sign-in").hidden = true;
  byId("find").hidden = false;
  const all = (api.components && api.components.schemas) || {};
  const main = byId("operations");
  for (const tag of api.tags || []) {
    const listed = [];
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const method of METHODS) {
        const one = methods[method];
        if (one && (one.tags || []).includes(tag.name)) {
          listed.push(operation(path, method, one, all));
        }
      }
    }
    if (listed.length) {
      main.append(make("h2", tag.name), make("p", tag.description), ...listed);
    }
  }
  byId("text").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const one of main.querySelectorAll("details")) {
      one.hidden = !one.dataset.text.includes(wanted);
    }
  });
}

async function read(token) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch("openapi.json", { headers, credentials: "same-origin" });
  const body = await answer.json();
  if (answer.ok) return show(body);
  byId("about").textContent = body.detail;
  byId("sign-in").hidden = false;
}

function failed(error) {
  byId("about").textContent = `The document cannot be read: ${error.message}`;
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  read(byId("token").value).catch(failed);
});
read("").catch(failed);
