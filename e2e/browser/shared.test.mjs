// Workspaces that share the console's host or its whole origin (origin.mode port
// and path): JupyterLab works as it does elsewhere, and what a script in a
// workspace's page tries, it tries in vain. What a browser cannot be kept from
// is in docs/edge.md.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Site, accessible, compute, freePort } from "./kit.mjs";

const className = process.env.BAILEY_FILTER_CLASS ?? "notebook";
const sites = [];
after(async () => { for (const s of sites) await s.stop(); });

async function site(name, options) {
  const s = new Site(name);
  sites.push(s);
  await s.start(options);
  return s;
}

// plant tries, from a page of a workspace, to make the browser somebody else's
// at the console: first with what is there, then after filling the jar until the
// browser has forgotten what was there.
async function plant(page, session) {
  return page.evaluate((value) => {
    const names = ["__Host-bailey", "__Host-Http-bailey", "__Host-Http-bailey-form", "__Http-bailey"];
    for (const name of names) document.cookie = `${name}=${value}; Secure; Path=/`;
    for (let i = 0; i < 400; i++) document.cookie = `fill${i}=${"x".repeat(20)}; Secure; Path=/`;
    for (const name of names) document.cookie = `${name}=${value}; Secure; Path=/`;
    return document.cookie.split("; ").filter((c) => /bailey/.test(c)).map((c) => c.split("=")[0]);
  }, session);
}

async function sessionOf(context, origin) {
  return (await context.cookies(origin)).find((c) => c.name === "__Host-Http-bailey").value;
}

test("mode path: one origin, a working JupyterLab, and a script that gets nowhere", async () => {
  const s = await site("path", { config: "origin: {mode: path, host: localhost, trust: semi-trusted}\n" });
  assert.match(s.output, /WARNING: origin.mode is path/, "bailey up says what is given up");
  const admin = await s.context({ viewport: { width: 1280, height: 800 } });
  const page = await admin.newPage();
  const errors = [];
  page.on("pageerror", (e) => errors.push(String(e)));
  await s.signIn(page);
  await page.getByText("Workspaces share this console’s address.").waitFor();
  await accessible(page);
  await s.shot(page, "workspaces");
  await s.addUser(page, "bob");
  const address = await s.launch(page, className);
  assert.ok(address.startsWith(`${s.origin}/w/`), address);
  await page.getByRole("link", { name: "Open JupyterLab" }).click();
  await compute(page, "6*7", "42");
  await s.shot(page, "lab", false);
  assert.deepEqual(errors, [], "JupyterLab throws nothing");

  const got = await page.evaluate(async () => {
    const out = {};
    const status = async (path, options) => { try { return (await fetch(path, options)).status; } catch { return "blocked"; } };
    out.page = await status("/workspaces");
    out.admin = await status("/admin");
    out.api = await status("/api/v1/me");
    out.post = await status("/admin/users", { method: "POST", body: new URLSearchParams({ name: "eve", role: "admin" }) });
    out.popup = window.open("/admin") === null;
    out.blank = window.open("about:blank") === null;
    out.frame = await new Promise((done) => {
      const f = document.createElement("iframe");
      f.src = "/admin";
      f.onload = () => { try { done(f.contentDocument?.forms.length ?? 0); } catch { done(0); } };
      document.body.append(f);
    });
    try { await navigator.serviceWorker.register(`${location.pathname.split("/").slice(0, 3).join("/")}/files/sw.js`, { scope: "/" }); out.worker = "registered"; } catch { out.worker = "refused"; }
    try {
      await navigator.credentials.get({ publicKey: { challenge: new Uint8Array(32), rpId: location.hostname, timeout: 1000 } });
      out.passkey = "asked";
    } catch (e) { out.passkey = /publickey-credentials-get/.test(e.message) ? "switched off" : `${e.name}: ${e.message}`; }
    return out;
  });
  assert.deepEqual(got, { page: 403, admin: 403, api: 401, post: 403, popup: true, blank: true, frame: 0, worker: "refused", passkey: "switched off" });

  // A form leads the tab to the console, and there it is not one of ours.
  await page.evaluate(() => {
    const f = document.createElement("form");
    f.method = "post"; f.action = "/admin/users";
    for (const [name, value] of Object.entries({ name: "eve", role: "admin", password: "correct-horse-battery" })) {
      const i = document.createElement("input"); i.name = name; i.value = value; f.append(i);
    }
    document.body.append(f);
    f.submit();
  });
  await page.getByText("This form is not from a page of the console").waitFor();
  await page.goto(`${s.origin}/admin`);
  await page.getByRole("rowheader", { name: "bob" }).waitFor();
  assert.equal(await page.getByRole("rowheader", { name: "eve" }).count(), 0);

  // Bob does not get into the administrator's workspace.
  const bobs = await s.context();
  const bob = await bobs.newPage();
  await s.signIn(bob, "bob");
  assert.equal((await bob.goto(`${address}lab`)).status(), 404);

  // And nobody makes the administrator work as Bob.
  await page.goto(`${address}lab`);
  await page.locator(".jp-Launcher, .jp-Notebook").first().waitFor({ timeout: 60000 });
  await plant(page, await sessionOf(bobs, s.origin));
  await page.goto(`${s.origin}/workspaces`);
  const who = await page.locator(".signout span").allInnerTexts();
  assert.ok(who.length === 0 || who[0] === "admin", `the browser now works as ${who}`);
});

test("mode port: a script on another port plants nobody's session", async () => {
  const port = await freePort();
  const s = await site("port", { config: `origin: {mode: port, host: 127.0.0.1, ports: "${port}-${port}"}\n` });
  const admin = await s.context();
  const page = await admin.newPage();
  await s.signIn(page);
  await s.addUser(page, "bob");
  const bobs = await s.context();
  await s.signIn(await bobs.newPage(), "bob");
  const address = await s.launch(page, className);
  assert.ok(address.startsWith("https://127.0.0.1:") && !address.startsWith(s.origin), address);
  await page.getByRole("link", { name: "Open JupyterLab" }).click();
  await compute(page, "6*7", "42");
  const planted = await plant(page, await sessionOf(bobs, s.origin));
  assert.ok(!planted.some((name) => name.startsWith("__Host-Http-")), `a script set ${planted}`);
  await page.goto(`${s.origin}/workspaces`);
  const who = await page.locator(".signout span").allInnerTexts();
  assert.ok(who.length === 0 || who[0] === "admin", `the browser now works as ${who}`);
});
