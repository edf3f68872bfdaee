// What a person sees, in Debian's Chromium: set up, sign in, launch, work in
// JupyterLab, account; with and without JavaScript; and what a page of a
// workspace cannot do to the console.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, mkdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright-core";

const bin = process.env.BAILEY_BIN ?? path.resolve("../../bin/bailey");
const shots = process.env.BAILEY_SCREENSHOTS;
const className = process.env.BAILEY_CLASS ?? "pytorch";
const password = "correct-horse-battery";
let dir, server, browser, origin, setupLink, output = "";

async function freePort() {
  const s = createServer();
  await new Promise((ok) => s.listen(0, "127.0.0.1", ok));
  const { port } = s.address();
  await new Promise((ok) => s.close(ok));
  return port;
}

async function until(what, probe, ms = 120000) {
  const end = Date.now() + ms;
  for (;;) {
    const got = await probe();
    if (got) return got;
    if (Date.now() > end) throw new Error(`${what} did not happen; the server said:\n${output}`);
    await new Promise((ok) => setTimeout(ok, 50));
  }
}

async function shot(page, name) {
  if (!shots) return;
  await mkdir(shots, { recursive: true });
  await page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: true });
}

async function accessible(page) {
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]).analyze();
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target).join(" ")}`), []);
}

function context(options = {}) {
  return browser.newContext({ ignoreHTTPSErrors: true, ...options });
}

// watch collects console errors, page errors and CSP violations.
function watch(page) {
  const errors = [];
  page.on("console", (m) => m.type() === "error" && errors.push(m.text()));
  page.on("pageerror", (e) => errors.push(String(e)));
  page.on("response", (r) => r.status() >= 400 && errors.push(`${r.status()} ${r.request().method()} ${r.url()}`));
  return errors;
}

async function signIn(page, name = "admin", secret = password) {
  await page.goto(`${origin}/signin`);
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(secret);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${origin}/workspaces`);
}

// removeContainers takes away what a failed story left running: the workspaces
// of this server's installation and no others.
async function removeContainers() {
  const instance = dir && await readFile(path.join(dir, "state", "instance"), "utf8").catch(() => "");
  if (!instance?.trim()) return;
  const list = spawnSync("docker", ["ps", "-aq", "--filter", `label=dev.bailey.instance=${instance.trim()}`], { encoding: "utf8" });
  const ids = (list.stdout ?? "").split(/\s+/).filter(Boolean);
  if (ids.length) spawnSync("docker", ["rm", "-f", ...ids]);
}

before(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "bailey-browser-"));
  const port = await freePort();
  server = spawn(bin, ["up", "--demo", "--state", path.join(dir, "state"), "--https", `127.0.0.1:${port}`, "--metrics", `127.0.0.1:${await freePort()}`, "--ssh", `127.0.0.1:${await freePort()}`]);
  for (const stream of [server.stdout, server.stderr]) stream.on("data", (b) => { output += b; });
  setupLink = await until("the set-up link", () => output.match(/https:\/\/\S+\/setup#\S+/)?.[0]);
  origin = new URL(setupLink).origin;
  browser = await chromium.launch({
    executablePath: process.env.BAILEY_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  if (server && server.exitCode === null) {
    const gone = new Promise((ok) => server.once("exit", ok));
    server.kill("SIGTERM");
    await gone;
  }
  await removeContainers();
  if (dir) await rm(dir, { recursive: true, force: true });
});

test("before set-up, the start page says what to do", async () => {
  const page = await (await context()).newPage();
  const errors = watch(page);
  await page.goto(origin);
  await page.getByText("Not set up yet").waitFor();
  await accessible(page);
  assert.deepEqual(errors, []);
  await page.context().close();
});

test("the set-up link makes the administrator, once", async () => {
  const page = await (await context()).newPage();
  const errors = watch(page);
  await page.goto(setupLink);
  assert.equal(await page.getByLabel("Set-up code").inputValue(), new URL(setupLink).hash.slice(1));
  assert.equal(new URL(page.url()).hash, "", "the code leaves the address bar");
  await accessible(page);
  await shot(page, "setup");
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByLabel("Password again").fill(password);
  await page.getByRole("button", { name: "Create the administrator" }).click();
  await page.waitForURL(`${origin}/workspaces`);
  await accessible(page);
  await shot(page, "workspaces-empty");
  assert.deepEqual(errors, []);

  const second = await (await context()).newPage();
  const answer = await second.goto(setupLink);
  assert.equal(answer.status(), 409);
  await second.context().close();
  await page.context().close();
});

test("a wrong password says so and keeps the name", async () => {
  const page = await (await context()).newPage();
  await page.goto(`${origin}/signin`);
  await accessible(page);
  await shot(page, "signin");
  await page.getByLabel("Name").fill("admin");
  await page.getByLabel("Password").fill("not this one");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  assert.equal(await page.getByLabel("Name").inputValue(), "admin");
  await page.context().close();
});

test("two clicks from sign-in to JupyterLab, and a kernel computes", async () => {
  const page = await (await context({ viewport: { width: 1280, height: 800 } })).newPage();
  const errors = watch(page);
  await signIn(page);
  await page.locator(`input[name=class][value=${className}]`).check();
  await page.getByRole("button", { name: "Launch" }).click();
  await page.waitForURL(/\/workspaces\/[a-z0-9]+$/);
  await shot(page, "launching");
  await page.getByRole("link", { name: "Open JupyterLab" }).waitFor({ timeout: 60000 });
  await accessible(page);
  await shot(page, "running");
  assert.deepEqual(errors, [], "the console logs no error");
  await page.getByRole("link", { name: "Open JupyterLab" }).click();
  await page.locator(".jp-Launcher").waitFor({ timeout: 60000 });
  assert.notEqual(new URL(page.url()).origin, origin, "the workspace has an origin of its own");
  await shot(page, "lab");
  await page.locator(".jp-LauncherCard", { hasText: "Python 3" }).first().click();
  await page.getByText(/Python 3 \(ipykernel\) \| Idle/).waitFor({ timeout: 120000 });
  const cell = page.locator(".jp-Notebook .jp-Cell .cm-content").first();
  await cell.click();
  const [code, want] = className === "notebook" ? ["sum(range(9))", "36"]
    : ["import torch; (torch.ones(2,2)@torch.ones(2,2)).sum()", "tensor(8.)"];
  await page.keyboard.insertText(code);
  await until("the code to be in the cell", async () => (await cell.textContent()) === code);
  await page.keyboard.press("Shift+Enter");
  try {
    await page.locator(".jp-OutputArea-output", { hasText: want }).waitFor({ timeout: 120000 });
  } finally {
    await shot(page, "kernel");
    if (errors.length) console.error(errors);
  }
  assert.deepEqual(errors, [], "JupyterLab logs no error");

  // What a page of the workspace may do to the console: nothing.
  const attack = await page.evaluate(async (target) => {
    const out = {};
    try { out.read = (await fetch(`${target}/api/v1/me`, { credentials: "include" })).status; } catch { out.read = "blocked"; }
    try { await fetch(`${target}/signout`, { method: "POST", mode: "no-cors", credentials: "include" }); out.post = "sent"; } catch { out.post = "blocked"; }
    out.cookie = document.cookie.includes("__Host-bailey");
    return out;
  }, origin);
  assert.equal(attack.read, "blocked", "a workspace's page cannot read the console");
  assert.equal(attack.cookie, false, "no script sees our cookies");
  await page.goto(`${origin}/workspaces`);
  await page.getByRole("heading", { name: "Workspaces" }).waitFor();
  await page.context().close();
});

test("account, volumes, images and administration are there and accessible, dark too", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const page = await (await context({ colorScheme })).newPage();
    const errors = watch(page);
    await signIn(page);
    for (const at of ["workspaces", "volumes", "network", "images", "sessions", "groups", "device", "account", "admin"]) {
      await page.goto(`${origin}/${at}`);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await accessible(page);
      await shot(page, `${at}-${colorScheme}`);
    }
    assert.deepEqual(errors, []);
    await page.context().close();
  }
});

test("without JavaScript: sign in, start, follow, stop and delete", async () => {
  const page = await (await context({ javaScriptEnabled: false })).newPage();
  await signIn(page);
  await page.getByRole("link", { name: className, exact: true }).click();
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByRole("button", { name: "Start" }).click();
  await page.getByRole("link", { name: "Open JupyterLab" }).waitFor({ timeout: 60000 });
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByText("Delete this workspace").click();
  await page.getByRole("button", { name: `Delete ${className}` }).click();
  await page.waitForURL(`${origin}/workspaces`);
  await page.goto(`${origin}/volumes`);
  await page.getByText("Delete this volume").click();
  await page.getByLabel("Name").fill("wrong");
  await page.getByRole("button", { name: "Delete files" }).click();
  await page.getByRole("alert").waitFor();
  await page.getByText("Delete this volume").click();
  await page.getByLabel("Name").fill(className);
  await page.getByRole("button", { name: "Delete files" }).click();
  await page.getByText("You have no volume yet").waitFor();
  await page.context().close();
});

test("signing out ends the session", async () => {
  const page = await (await context()).newPage();
  await signIn(page);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(`${origin}/signin`);
  await page.goto(`${origin}/workspaces`);
  await page.waitForURL(`${origin}/signin`);
  await page.context().close();
});
