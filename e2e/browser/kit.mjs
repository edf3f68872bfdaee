// What the browser tests share: a server of their own, Debian's Chromium, and
// waiting for things to happen.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright-core";

export const password = "correct-horse-battery";
const bin = process.env.BAILEY_BIN ?? path.resolve("../../bin/bailey");
const shots = process.env.BAILEY_SCREENSHOTS;

export async function freePort() {
  const s = createServer();
  await new Promise((ok) => s.listen(0, "127.0.0.1", ok));
  const { port } = s.address();
  await new Promise((ok) => s.close(ok));
  return port;
}

// freePorts returns n different ones.
export async function freePorts(n) {
  const found = new Set();
  while (found.size < n) found.add(await freePort());
  return [...found];
}

export async function accessible(page) {
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]).analyze();
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target).join(" ")}`), []);
}

// A Site is a server in a folder of its own, and a browser. name begins the
// names of its pictures.
export class Site {
  output = "";
  constructor(name) { this.name = name; }

  // start runs bailey up with more arguments; config is the text of its file.
  // Without admin nobody has an account yet.
  async start({ args = [], config = "", env = {}, admin = true, chromiumArgs = [] } = {}) {
    this.dir = await mkdtemp(path.join(tmpdir(), `bailey-${this.name}-`));
    const [https, metrics] = await freePorts(2);
    const all = ["up", "--demo", "--state", path.join(this.dir, "state"), "--https", `127.0.0.1:${https}`, "--metrics", `127.0.0.1:${metrics}`, ...args];
    if (admin) {
      await writeFile(path.join(this.dir, "password"), `${password}\n`, { mode: 0o600 });
      all.push("--admin-password-file", path.join(this.dir, "password"));
    }
    if (config) {
      await writeFile(path.join(this.dir, "bailey.yaml"), config);
      all.push("--config", path.join(this.dir, "bailey.yaml"));
    }
    this.server = spawn(bin, all, { env: { ...process.env, ...env } });
    for (const stream of [this.server.stdout, this.server.stderr]) stream.on("data", (b) => { this.output += b; });
    this.origin = await this.until("the address", () => {
      if (this.server.exitCode !== null) throw new Error(`the server ended:\n${this.output}`);
      return this.output.match(/Open\s+(https:\/\/[^\s/]+)/)?.[1];
    });
    this.browser = await chromium.launch({
      executablePath: process.env.BAILEY_CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", ...chromiumArgs],
    });
  }

  // stop ends all of it: the containers of this server's installation too, which
  // a failed story leaves running, and no others.
  async stop() {
    await this.browser?.close();
    if (this.server && this.server.exitCode === null) {
      const gone = new Promise((ok) => this.server.once("exit", ok));
      this.server.kill("SIGTERM");
      await gone;
    }
    if (!this.dir) return;
    const instance = (await readFile(path.join(this.dir, "state", "instance"), "utf8").catch(() => "")).trim();
    if (instance) {
      const list = spawnSync("docker", ["ps", "-aq", "--filter", `label=dev.bailey.instance=${instance}`], { encoding: "utf8" });
      const ids = (list.stdout ?? "").split(/\s+/).filter(Boolean);
      if (ids.length) spawnSync("docker", ["rm", "-f", ...ids]);
    }
    await rm(this.dir, { recursive: true, force: true });
  }

  context(options = {}) { return this.browser.newContext({ ignoreHTTPSErrors: true, ...options }); }

  async until(what, probe, ms = 120000) {
    const end = Date.now() + ms;
    for (;;) {
      const got = await probe();
      if (got) return got;
      if (Date.now() > end) throw new Error(`${what} did not happen; the server said:\n${this.output.slice(-8000)}`);
      await new Promise((ok) => setTimeout(ok, 50));
    }
  }

  async shot(page, name, fullPage = true) {
    if (!shots || !page) return;
    await mkdir(shots, { recursive: true });
    await page.screenshot({ path: path.join(shots, `${this.name}-${name}.png`), fullPage });
  }

  // giveName sends name and password; what comes next is the caller's to see.
  async giveName(page, name = "admin", secret = password) {
    await page.goto(`${this.origin}/signin`);
    await page.getByLabel("Name").fill(name);
    await page.getByLabel("Password").fill(secret);
    await page.getByRole("button", { name: "Sign in" }).click();
  }

  async signIn(page, name = "admin", secret = password) {
    await this.giveName(page, name, secret);
    await page.waitForURL(`${this.origin}/workspaces`);
  }

  // addUser makes an account on the administration page, as who is signed in.
  async addUser(page, name, groups = "") {
    await page.goto(`${this.origin}/admin`);
    await page.getByLabel("Name", { exact: true }).fill(name);
    await page.getByLabel("First password").fill(password);
    await page.getByLabel("Groups").fill(groups);
    await page.getByRole("button", { name: "Create" }).click();
    await page.getByRole("rowheader", { name }).waitFor();
  }

  // launch starts a workspace of a class and waits until it can be opened. It
  // returns its address.
  async launch(page, className) {
    await page.goto(`${this.origin}/workspaces`);
    await page.locator(`input[name=class][value=${className}]`).check();
    await page.getByRole("button", { name: "Launch" }).click();
    await page.waitForURL(/\/workspaces\/[a-z0-9]+$/);
    const open = page.getByRole("link", { name: "Open JupyterLab" });
    await open.waitFor({ timeout: 60000 });
    return open.getAttribute("href");
  }
}

// compute runs code in a new notebook of the JupyterLab on the page, and waits
// for text in its output.
export async function compute(page, code, want) {
  await page.locator(".jp-Launcher").waitFor({ timeout: 60000 });
  await page.locator(".jp-LauncherCard", { hasText: "Python 3" }).first().click();
  await page.getByText(/Python 3 \(ipykernel\) \| Idle/).waitFor({ timeout: 120000 });
  await page.locator(".jp-Notebook .jp-Cell .cm-content").first().click();
  await page.keyboard.insertText(code);
  await page.keyboard.press("Shift+Enter");
  await page.locator(".jp-OutputArea-output", { hasText: want }).waitFor({ timeout: 120000 });
}
